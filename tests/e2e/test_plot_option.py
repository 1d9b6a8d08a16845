#!/usr/bin/env python3
"""--plot of bestroute and bestroute-bench: they run the program bestroute-plot,
and say so where it is missing or fails.

A stand-in for bestroute-plot writes down what it is given, so that nothing is needed here but the standard
library and numpy. What the real one draws is test_plot.py's.
"""

import json
import math
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import test_cli
import test_eval
from test_cli import BUNDLE, Service, run

BENCH = os.environ["BESTROUTE_BENCH"]
NOT_ON_THE_PATH = ("--plot needs the program bestroute-plot, which is not on the PATH: install it with "
                   "`pip install ./python`")
GRAPHICS = ("libX", "libx", "cairo", "freetype", "fontconfig", "pixman", "png", "Magick", "libGL", "harfbuzz")

STAND_IN = """#!{python}
import json, os, signal, sys
with open({given!r}, "w") as out:
    json.dump({{"arguments": sys.argv[1:], "report": json.load(sys.stdin)}}, out)
print("what it prints")
fate = {fate!r}
if fate == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(fate)
"""


class PlotOption(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = test_eval.folder = tempfile.mkdtemp(prefix="bestroute-plot-option-")
        cls.records = test_eval.write("records.jsonl", test_eval.make_records())
        cls.service = Service().wait()
        cls.measured = ("--url", cls.service.url, "--bootstrap", "20", "--data", cls.records)
        cls.bundle = os.path.join(cls.folder, "bundle")
        shutil.copytree(BUNDLE, cls.bundle)

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()
        shutil.rmtree(cls.folder)

    def path_with_stand_in(self, fate=0):
        """A PATH on which bestroute-plot is the stand-in."""
        folder = tempfile.mkdtemp(dir=self.folder)
        self.given = os.path.join(folder, "given.json")
        program = os.path.join(folder, "bestroute-plot")
        with open(program, "w", encoding="utf-8") as out:
            out.write(STAND_IN.format(python=sys.executable, given=self.given, fate=fate))
        os.chmod(program, os.stat(program).st_mode | stat.S_IXUSR)
        return {"PATH": f"/nowhere:{folder}:{os.environ['PATH']}"}

    def was_given(self):
        with open(self.given, encoding="utf-8") as file:
            return json.load(file)

    def bench(self, path, *arguments):
        return subprocess.run([BENCH, "--noop", BUNDLE, *arguments], capture_output=True, text=True,
                              timeout=120, env={**os.environ, **path}, check=False)

    def test_eval_and_calibrate_hand_over_what_they_report_as_json(self):
        for command in (("eval",), ("calibrate", "--bundle", self.bundle, "--dry-run", "--quality", "0.9")):
            path = self.path_with_stand_in()
            done = run(*command, *self.measured, "--json", "--plot", "some/stem", environment=path)
            self.assertEqual(done.returncode, 0, done.err)
            self.assertEqual(self.was_given()["arguments"], ["--", "-", "some/stem"])
            printed, = done.out.splitlines()  # nothing of the other program's mixes with it
            self.assertEqual(differences(self.was_given()["report"], json.loads(printed)), [])
            self.assertIn("what it prints", done.err)
            table = run(*command, *self.measured, "--plot", "-stem", environment=path)
            self.assertEqual(table.returncode, 0, table.err)
            self.assertIn("95 %", table.out)
            self.assertEqual(self.was_given()["arguments"], ["--", "-", "-stem"])
            self.assertEqual(differences(self.was_given()["report"], json.loads(printed)), [])

    def test_the_bench_hands_over_its_report(self):
        path = self.path_with_stand_in()
        file = os.path.join(self.folder, "bench.json")
        done = self.bench(path, "--sweep", "in-flight:1,2", "--seconds", "0.2", "--warmup", "0",
                          "--json", file, "--plot", "stem")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(file, encoding="utf-8") as report:
            self.assertEqual(differences(self.was_given()["report"], json.load(report)), [])
        for other in (("--compare", file, file), ("--engine", BUNDLE), ("--echo", "ipc:///nowhere")):
            done = subprocess.run([BENCH, *other, "--plot", "stem"], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--plot: expected runs of a service", done.stderr)

    def test_a_failure_is_told_with_its_exit_status_after_the_results(self):
        for fate, words in ((3, "failed with exit status 3"), ("killed", "was ended by signal 9")):
            path = self.path_with_stand_in(fate)
            for json_flag in ((), ("--json",)):
                done = run("eval", *self.measured, *json_flag, "--plot", "stem", environment=path)
                self.assertEqual(done.returncode, 2)
                self.assertIn(f"bestroute: bestroute-plot {words}", done.err)
                if json_flag:
                    self.assertIn("all", json.loads(done.out))
                else:
                    self.assertIn("cost saved at", done.out)
            done = self.bench(path, "--requests", "5", "--warmup", "0", "--plot", "stem")
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"bestroute-bench: bestroute-plot {words}", done.stderr)
            self.assertIn("requests/s", done.stdout)

    def test_without_it_they_say_how_to_install_it_and_do_nothing_else(self):
        for path in ("/nowhere", "", ":"):
            started = time.monotonic()
            for command in (("eval",), ("calibrate", "--bundle", self.bundle, "--quality", "0.9")):
                done = run(*command, *self.measured, "--plot", "stem", environment={"PATH": path})
                self.assertEqual(done.returncode, 2)
                self.assertIn(NOT_ON_THE_PATH, done.err)
                self.assertEqual(done.out, "")
                done = run(*command, *self.measured, "--json", "--plot", "stem", environment={"PATH": path})
                self.assertEqual(json.loads(done.out)["error"]["code"], "usage")
            done = self.bench({"PATH": path}, "--seconds", "60", "--plot", "stem")
            self.assertEqual(done.returncode, 1)
            self.assertIn(NOT_ON_THE_PATH, done.stderr)
            self.assertLess(time.monotonic() - started, 50)
        with open(os.path.join(self.bundle, "router.json"), encoding="utf-8") as now, \
                open(os.path.join(BUNDLE, "router.json"), encoding="utf-8") as before:
            self.assertEqual(now.read(), before.read())

    def test_the_programs_link_no_library_for_pictures(self):
        for program in (test_cli.CLIENT, test_cli.DAEMON, BENCH):
            libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
            self.assertIn("libc.so", libraries)
            for word in GRAPHICS:
                self.assertNotIn(word, libraries)


def differences(a, b, path="report"):
    """Where two reports differ by more than what printing rounds off."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [found for index, pair in enumerate(zip(a, b))
                for found in differences(*pair, f"{path}[{index}]")]
    if isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-8, abs_tol=1e-12):
        return []
    return [] if a == b else [f"{path}: {a} and {b}"]


if __name__ == "__main__":
    unittest.main()
