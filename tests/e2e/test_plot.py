#!/usr/bin/env python3
"""bestroute-plot (python/) on real reports of the programs: what its pictures hold,
and what it says of wrong input.

    BESTROUTE=build/bestroute BESTROUTED=build/bestrouted BESTROUTE_BENCH=build/bestroute-bench \\
        python3 tests/e2e/test_plot.py

Needs matplotlib; without it the test is skipped aloud (exit code 77).
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

if __name__ == "__main__" and importlib.util.find_spec("matplotlib") is None:
    print(f"skipped: {sys.executable} has no matplotlib (Debian: python3-matplotlib, see "
          "cmake/packages-plot.txt)")
    sys.exit(77)

import test_cli
import test_eval
from test_cli import BUNDLE, Service, run

PACKAGE = os.path.join(test_cli.SOURCE, "python")
BENCH = os.environ["BESTROUTE_BENCH"]
PNG = b"\x89PNG\r\n\x1a\n"

sys.path.insert(0, PACKAGE)
from bestroute.plots import curve, latency, reliability, style, tradeoff
from bestroute.plots.main import main
from bestroute.plots.report import load_report

folder = None
reports = {}  # name -> the path of its file


def setUpModule():
    global folder
    folder = test_eval.folder = tempfile.mkdtemp(prefix="bestroute-plot-")
    records = test_eval.write("records.jsonl.gz", test_eval.make_records())
    service = Service().wait()
    try:
        measured = ("--url", service.url, "--bootstrap", "50", "--data", records, "--json")
        keep("eval", run("eval", *measured))
        keep("by-task",
             run("eval", *measured, "--split", "all", "--selector", "0.5", "--by-task", "--second-half"))
        for policy, target in (("threshold", "--reduce-cost"), ("utility", "--quality"),
                               ("threshold", "--reference-share")):
            keep(f"{policy}{target}",
                 run("calibrate", *measured, "--dry-run", "--bundle", BUNDLE, "--policy", policy,
                                          target, "0.6"))
    finally:
        service.stop()
    for name, load in (("in-flight", ["--sweep", "in-flight:1,3,9"]),
                       ("rate", ["--sweep", "rate:200,300.5", "--poisson"]),
                       ("overload", ["--sweep", "rate:50,20000", "--in-flight", "4", "--queries", "8"]),
                       ("single", ["--rate", "300", "--queries", "2"])):
        load_service(name, "--noop", BUNDLE, *load)
    load_service("engine", "--engine", BUNDLE, "--service-flags", "--engine reference")


def tearDownModule():
    shutil.rmtree(folder)


def keep(name, done):
    assert done.returncode == 0, done.err
    reports[name] = os.path.join(folder, f"{name}.json")
    with open(reports[name], "w", encoding="utf-8") as out:
        out.write(done.out)


def load_service(name, *flags):
    reports[name] = os.path.join(folder, f"{name}.json")
    subprocess.run([BENCH, *flags, "--seconds", "0.3", "--warmup", "0.1", "--json", reports[name]],
                   stdout=subprocess.DEVNULL, timeout=120, check=True)


def plot(*arguments, text=None, environment=None):
    """The program, as a process of its own."""
    return subprocess.run([sys.executable, "-m", "bestroute.plots", *arguments], input=text,
                          capture_output=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": PACKAGE, **(environment or {})}, check=False)


def plot_here(*arguments):
    """The same in this process, which has loaded matplotlib already: exit code, standard output and error."""
    out, words = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(words):
        try:
            code = main(arguments)
        except SystemExit as leave:
            code = leave.code
    return code, out.getvalue(), words.getvalue()


def texts_of(path):
    with open(path, encoding="utf-8") as file:
        return re.findall(r"<text[^>]*>([^<]*)</text>", file.read())


def read(name):
    with open(reports[name], encoding="utf-8") as file:
        return json.load(file)


class Case(unittest.TestCase):
    def draw(self, name):
        """The texts of STEM.svg; `stem` is kept."""
        self.stem = os.path.join(tempfile.mkdtemp(dir=folder), name)
        self.assertEqual(plot_here(reports[name], self.stem), (0, "", ""))
        return texts_of(self.stem + ".svg")

    def assert_says(self, texts, *parts):
        for part in parts:
            self.assertTrue(any(part in text for text in texts), f"'{part}' is in none of {texts}")


class Pictures(Case):
    def test_a_curve_names_candidates_hulls_reference_oracle_and_current_policy(self):
        texts = self.draw("eval")
        report = read("eval")
        self.assert_says(texts, "Quality against cost: bundle tiny-random", "records.jsonl.gz", "split val",
                         f"n = {report['rows']} prompts",
                         f"50 bootstrap samples of {report['stories']} stories",
                         "hull of static choices", "static choices per task", "threshold policies",
                         "utility policies", "95 % interval of ", "one candidate for every prompt",
                         "reference: ", "oracle (hindsight)",
                         "USD per 1,000 prompts", "quality")
        models = {c["model"] for c in report["all"]["candidates"] if not c["reference"]}
        self.assertGreater(len(models), 1)
        for model in models:
            ns = sorted(c["n"] for c in report["all"]["candidates"] if c["model"] == model)
            self.assert_says(texts, f"{model} ×{curve.span(ns)}")
        reference, = (c["model"] for c in report["all"]["candidates"] if c["reference"])
        self.assertEqual(report["all"]["reference"]["model"], reference)
        self.assert_says(texts, f"reference: {reference}")
        self.assert_says(texts, f"current policy: {report['all']['policy']['kind']}")

    def test_a_title_says_what_is_unusual_about_the_data(self):
        self.assert_says(self.draw("by-task"), "all splits", "selector strength 0.5",
                         "each task weighs the same",
                         "judged by the second half of the samples")

    def test_reliability_has_a_count_and_an_interval_for_each_bin(self):
        self.draw("eval")
        texts = texts_of(self.stem + "-calibration.svg")
        calibration = read("eval")["all"]["calibration"]
        self.assert_says(texts, "Reliability of predictions: bundle tiny-random", "n = ",
                         "perfect predictions",
                         f"expected calibration error {calibration['expected_error']:.4f}")
        filled = [b for b in calibration["bins"] if b["pairs"] > 0]
        self.assertGreater(len(filled), 1)
        for entry in filled:
            self.assertIn(f"{entry['pairs']:,}", texts)
            self.assertLessEqual(entry["low"], entry["high"])
        with style.settings():
            axes = reliability.draw(load_report(reports["eval"])).axes[0]
            bars = axes.containers[0].lines[2][0].get_segments()
        self.assertEqual(len(bars), len(filled))
        for ((_, low), (_, high)), entry in zip(bars, filled):
            self.assertAlmostEqual(low, min(entry["low"], entry["measured"]), delta=1e-9)
            self.assertAlmostEqual(high, max(entry["high"], entry["measured"]), delta=1e-9)

    def test_a_calibration_shows_what_was_chosen_and_why(self):
        for name, key, words in (("threshold--reduce-cost", "threshold", "target: 60 % less cost"),
                                 ("utility--quality", "lambda", "target: 60 % of the reference's quality"),
                                 ("threshold--reference-share", "threshold",
                                  "target: at most 60 % to the reference")):
            report = read(name)
            saved = 100 * (1 - report["mean_cost"] / report["reference"]["cost"])
            self.assert_says(self.draw(name), f"Calibration of {report['policy']}: bundle tiny-random",
                             f"n = {report['rows']} prompts", words, f"chosen: {key} {report[key]:.4g}",
                             "reference: ", f"{saved:.1f} % less cost at ",
                             f"95 % interval of the chosen {key}",
                             "prompts that the reference answers")

    def test_a_sweep_is_drawn_against_its_load(self):
        texts = self.draw("in-flight")
        self.assert_says(texts, "Latency against throughput: bundle tiny-random", "engine noop",
                         "closed loop", "1 prompt a request", "prompts/s answered", "latency, ms")
        for label in ("p50", "p95", "p99", "1 in flight", "3 in flight", "9 in flight"):
            self.assertIn(label, texts)
        texts = self.draw("rate")
        self.assert_says(texts, "Latency against the rate offered", "open loop, Poisson", "prompts/s offered")
        run_of_overload = read("overload")["runs"][1]
        self.assertLess(run_of_overload["queries_per_s"], 0.9 * 8 * run_of_overload["rate"])
        self.assert_says(self.draw("overload"), f"{run_of_overload['queries_per_s']:.4g}/s answered")
        with style.settings():
            axes = latency.draw(load_report(reports["overload"])).axes[0]
        self.assertEqual(axes.get_yscale(), "log")
        self.assertEqual([list(line.get_xdata()) for line in axes.lines], [[400, 160000]] * 3)

    def test_a_single_run_is_drawn_by_percentile(self):
        texts = self.draw("single")
        self.assert_says(texts, "Latency by percentile: bundle tiny-random", "600 prompts/s offered",
                         f"n = {read('single')['runs'][0]['answered']:,} requests")
        for label in ("as the client sees it", "in the service", "in the tokeniser", "50 %", "99.9 %",
                      "longest"):
            self.assertIn(label, texts)

    def test_no_text_covers_another(self):
        charts = [(name, chart) for chart, names in (
            (curve.draw, ("eval", "by-task")), (reliability.draw, ("eval", "by-task")),
            (tradeoff.draw, ("threshold--reduce-cost", "utility--quality", "threshold--reference-share")),
            (latency.draw, ("in-flight", "rate", "overload", "single"))) for name in names]
        for name, chart in charts:
            with style.settings():
                for first, second in overlaps(chart(load_report(reports[name]))):
                    self.fail(f"{name}: '{first}' and '{second}' overlap")

    def test_candidates_that_lie_close_together_keep_their_names_apart(self):
        report = read("eval")
        one = report["all"]["candidates"][0]
        for index in range(9):
            report["all"]["candidates"].append({**one, "model": f"maker/a-model-with-a-long-name-{index}",
                                                "reference": False, "cost": one["cost"] * (1 + index / 300)})
        path = os.path.join(folder, "crowded.json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump(report, out)
        with style.settings():
            self.assertEqual(overlaps(curve.draw(load_report(path))), [])

    def test_the_same_report_gives_the_same_bytes(self):
        for name, ends in (("eval", ("", "-calibration")), ("utility--quality", ("",)), ("in-flight", ("",))):
            written = []
            for hash_seed in ("1", "2"):
                stem = os.path.join(tempfile.mkdtemp(dir=folder), "same")
                self.assertEqual(plot(reports[name], stem,
                                      environment={"PYTHONHASHSEED": hash_seed}).returncode, 0)
                contents = []
                for end in ends:
                    for kind in ("svg", "png"):
                        with open(f"{stem}{end}.{kind}", "rb") as file:
                            contents.append(file.read())
                written.append(contents)
            self.assertEqual(written[0], written[1])
            self.assertTrue(written[0][1].startswith(PNG))

    def test_formats_are_those_asked_for_and_a_report_may_come_through_a_pipe(self):
        with open(reports["eval"], "rb") as file:
            text = file.read()
        for formats in (["svg"], ["png"], ["png", "svg"]):
            stem = os.path.join(tempfile.mkdtemp(dir=folder), "piped")
            done = plot("--format", ",".join(formats), "-", stem, text=text)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(sorted(os.listdir(os.path.dirname(stem))),
                             sorted(f"piped{end}.{kind}" for end in ("", "-calibration") for kind in formats))


class WrongInput(Case):
    def refused(self, *arguments, code=1):
        found, out, words = plot_here(*arguments)
        self.assertEqual(found, code, words)
        self.assertEqual(out, "")
        return words

    def refused_text(self, text):
        path = os.path.join(folder, "wrong.json")
        with open(path, "wb") as out:
            out.write(text if isinstance(text, bytes) else text.encode())
        words = self.refused(path, os.path.join(folder, "wrong"))
        self.assertTrue(words.startswith(f"bestroute-plot: {path}"), words)
        self.assertFalse(os.path.exists(os.path.join(folder, "wrong.svg")))
        return words

    def test_a_report_that_is_none(self):
        self.assertIn("nowhere.json: No such file or directory", self.refused("nowhere.json", "stem"))
        self.assertIn(f"{folder}: Is a directory", self.refused(folder, "stem"))
        self.assertIn("wrong.json:2: not JSON: ", self.refused_text('{"all":\n nothing}'))
        self.assertIn("not JSON", self.refused_text(""))
        self.assertIn("not UTF-8 at byte 1", self.refused_text(b'"\xff"'))
        self.assertIn("nested too deeply", self.refused_text("[" * 100000))
        self.assertIn("expected an object", self.refused_text("[]"))
        self.assertIn("unknown report", self.refused_text('{"model": "gpt-4", "n": 1}'))
        self.assertIn("the report of a command that failed: no such thing",
                      self.refused_text('{"error": {"code": "usage", "message": "no such thing"}}'))
        done = plot("-", "stem", text=b"{}")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"bestroute-plot: standard input: unknown report", done.stderr)

    def test_a_report_that_lacks_a_key_or_has_another_value(self):
        for name, path, value, words in (
                ("eval", ("bundle", "name"), None, "bundle.name: is missing"),
                ("eval", ("all", "quality_at"), None,
                 "all.quality_at: is missing; was the report written by an older"),
                ("eval", ("all", "reference", "cost", "value"), "dear",
                 "all.reference.cost.value: expected a number, found \"dear\""),
                ("eval", ("all", "candidates"), {}, "all.candidates: expected an array, found {}"),
                ("eval", ("all", "calibration", "bins", 3, "pairs"), True,
                 "all.calibration.bins[3].pairs: expected a whole number"),
                ("utility--quality", ("policy",), "pool", "policy: expected threshold or utility"),
                ("in-flight", ("runs",), [], "runs: holds no run"),
                ("in-flight", ("runs", 1, "latency_ms"), None, "runs[1].latency_ms: is missing"),
                ("in-flight", ("runs", 0, "rate"), "fast", "runs[0].rate: expected a number")):
            report = read(name)
            at = report
            for key in path[:-1]:
                at = at[key]
            if value is None:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            self.assertIn(words, self.refused_text(json.dumps(report)))
        self.assertIn("no latencies to draw", self.refused(reports["engine"], "stem"))

    def test_a_file_that_cannot_be_written(self):
        self.assertIn("missing/stem.svg: No such file or directory",
                      self.refused(reports["eval"], os.path.join(folder, "missing", "stem")))

    def test_usage(self):
        self.assertIn("STEM", self.refused(reports["eval"], code=2))
        self.assertIn("'pdf', expected some of svg, png",
                      self.refused("--format", "svg,pdf", reports["eval"], "stem", code=2))
        self.assertIn(b"bestroute calibrate --json", plot("--help").stdout)
        self.assertRegex(plot("--version").stdout.decode(), r"^bestroute-plot \d+\.\d+\.\d+\n$")

    def test_without_matplotlib(self):
        blocked = tempfile.mkdtemp(dir=folder)
        with open(os.path.join(blocked, "matplotlib.py"), "w", encoding="utf-8") as out:
            out.write("raise ModuleNotFoundError('hidden by a test', name='matplotlib')\n")
        done = plot(reports["eval"], "stem", environment={"PYTHONPATH": f"{blocked}:{PACKAGE}"})
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"matplotlib is not installed: `pip install matplotlib`", done.stderr)


class ThroughTheCommands(Case):
    """--plot with the real program on the PATH."""

    @classmethod
    def setUpClass(cls):
        programs = tempfile.mkdtemp(dir=folder)
        path = os.path.join(programs, "bestroute-plot")
        with open(path, "w", encoding="utf-8") as out:
            out.write(f'#!/bin/sh\nPYTHONPATH="{PACKAGE}" exec "{sys.executable}" -m bestroute.plots "$@"\n')
        os.chmod(path, 0o755)
        cls.environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
        cls.service = Service().wait()

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()

    def run_measured(self, *arguments):
        return run(*arguments, "--url", self.service.url, "--bootstrap", "50", "--data",
                   os.path.join(folder, "records.jsonl.gz"), environment=self.environment)

    def test_eval_calibrate_and_the_bench_draw(self):
        stem = os.path.join(tempfile.mkdtemp(dir=folder), "-stem")
        done = self.run_measured("eval", "--plot", stem)
        self.assertEqual(done.returncode, 0, done.err)
        self.assert_says(texts_of(stem + ".svg"), "Quality against cost")
        self.assert_says(texts_of(stem + "-calibration.svg"), "Reliability")
        for end in (".png", "-calibration.png"):
            with open(stem + end, "rb") as file:
                self.assertEqual(file.read(8), PNG)
        done = self.run_measured("calibrate", "--bundle", BUNDLE, "--dry-run", "--quality", "0.9",
                                 "--plot", stem)
        self.assertEqual(done.returncode, 0, done.err)
        self.assert_says(texts_of(stem + ".svg"), "Calibration of threshold")
        done = subprocess.run([BENCH, "--noop", BUNDLE, "--sweep", "in-flight:1,2", "--seconds", "0.2",
                               "--warmup", "0", "--plot", stem], capture_output=True, text=True, timeout=120,
                              env={**os.environ, **self.environment}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_says(texts_of(stem + ".svg"), "Latency against throughput")

    def test_its_own_words_stand_above_the_exit_status(self):
        done = self.run_measured("eval", "--plot", os.path.join(folder, "missing", "plot"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("missing/plot.svg: No such file or directory", done.err)
        self.assertIn("bestroute-plot failed with exit status 1", done.err)


def undrawn(figure):
    """The labels of ticks beyond the ends of their axis: they are there, and are not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def overlaps(figure):
    """Pairs of texts of the figure whose boxes share more than an edge."""
    from matplotlib.text import Text
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = list(undrawn(figure))
    boxes = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            box = Text.get_window_extent(text, renderer)
            if text not in hidden and box.width > 0:
                boxes.append((text.get_text(), box))
    shared = []
    for index, (first, a) in enumerate(boxes):
        for second, b in boxes[:index]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
                shared.append((first, second))
    return shared


if __name__ == "__main__":
    unittest.main()
