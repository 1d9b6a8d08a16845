#!/usr/bin/env python3
"""`bestroute eval` and `bestroute calibrate` against a running service, set against a recomputation in numpy.

    BESTROUTE=build/bestroute BESTROUTED=build/bestrouted python3 tests/e2e/test_eval.py

The records are made up: qualities follow from the service's own scores,
so that routing is worth something. numpy only.
"""

import gzip
import json
import os
import shutil
import subprocess
import tempfile
import unittest

import numpy as np

import test_cli
import test_weights
from test_cli import BUNDLE, PROMPTS, Service, run

service = None
folder = None
SAMPLES = 10


def setUpModule():
    global service, folder
    folder = tempfile.mkdtemp(prefix="bestroute-eval-")
    service = Service()
    service.wait()


def tearDownModule():
    service.stop()
    shutil.rmtree(folder)


def best_of(k, c, n):
    none = 1.0
    for i in range(n):
        none *= max(0, k - c - i) / (k - i)
    return 1 - none


def make_records():
    """Records over the prompts of examples/, two tasks,
    with candidates that the bundle knows and one it does not."""
    rng = np.random.default_rng(5)
    with open(PROMPTS, encoding="utf-8") as lines:
        prompts = [line.strip() for line in lines if line.strip()]
    records = []
    for index, prompt in enumerate(prompts):
        reference_right = int(rng.integers(6, SAMPLES + 1))
        entries = [{"model": "own-gpt", "n": 1, "quality": reference_right / SAMPLES, "k": SAMPLES, "k_a": 5,
                    "c": reference_right, "c_a": min(5, reference_right // 2 + 1),
                    "output_tokens": 200 + index}]
        for model in ("llama-31-8b", "phi-3-mini", "stranger"):
            right = int(rng.integers(0, SAMPLES + 1))
            for n in range(1, 6):
                entry = {"model": model, "n": n, "quality": best_of(SAMPLES, right, n), "basis": "derived"}
                if model != "phi-3-mini":
                    entry["output_tokens"] = 90 + 10 * index
                if n == 1:
                    c_a = min(5, max(0, right - 5), right) + (1 if 0 < right < 6 else 0)
                    entry.update(k=SAMPLES, c=right, k_a=5, c_a=c_a, basis="sampled")
                entries.append(entry)
        entries.append({"model": "mistral-8x7b", "n": 1, "quality": 1, "basis": "single"})
        records.append({"id": f"r{index}", "task": "even" if index % 2 == 0 else "odd", "prompt": prompt,
                        "split": "train" if index % 5 == 4 else "val", "prompt_tokens": 30 + index,
                        "reference": {"model": "own-gpt", "quality": reference_right / SAMPLES},
                        "candidates": entries})
    return records


def write(name, records):
    path = os.path.join(folder, name)
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record) + "\n")
    return path


def bundle_router(path=BUNDLE):
    with open(os.path.join(path, "router.json"), encoding="utf-8") as file:
        return json.load(file)


def make_scored_bundle(path):
    """The tiny bundle with N-class heads over three of its models:
    a kind that scores its reference as well."""
    shutil.copytree(BUNDLE, path)
    router = bundle_router()
    names = ("llama-31-8b", "phi-3-mini", "gpt-4o")
    tensors = {name: values for name, (_, values) in
               test_weights.read_tensors(os.path.join(BUNDLE, "model.safetensors")).items()
               if "single_heads" not in name}
    random = np.random.default_rng(9)
    tensors["head_layer.1.weight"] = random.normal(size=(len(names), 64)) / 4
    tensors["head_layer.1.bias"] = np.array([0.4, 0, 0.2])
    test_weights.bundle_io.write_safetensors(os.path.join(path, "model.safetensors"), [
        (name, "F32", values.shape, lambda values=values: [test_weights.bundle_io.to_bytes(values, "F32")])
        for name, values in tensors.items()])
    router.update(heads="n_class", name="scored", policy={"kind": "tolerance", "tolerance": 0},
                  models={name: router["models"][name] for name in names},
                  candidates=[{"model": name, "n": 1, "head": head,
                               **({"reference": True} if head == 2 else {})}
                              for head, name in enumerate(names)])
    test_weights.bundle_io.write_json(os.path.join(path, "router.json"), router)
    return path


def scores(records, url=None):
    text = "".join(json.dumps({"text": record["prompt"]}) + "\n" for record in records)
    path = os.path.join(folder, "prompts.jsonl")
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    done = run("score", "--url", url or service.url, "--json", "--file", path)
    assert done.returncode == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


class Replay:
    """The same figures, written again from the definitions."""

    def __init__(self, records, single=False, selector=1.0, bundle=BUNDLE, url=None):
        router = bundle_router(bundle)
        self.scored = "heads" in router
        self.models = router["models"]
        self.candidates = router["candidates"]
        self.reference = next(i for i, c in enumerate(self.candidates) if c.get("reference"))
        self.rows = [r for r in records if r["split"] == "val"]
        self.predicted = np.array([np.array(qualities(line), dtype=np.float64)
                                   for line in scores(self.rows, url)])
        shape = self.predicted.shape
        self.quality, self.match = np.full(shape, np.nan), np.full(shape, np.nan)
        self.paid, self.estimate = np.zeros(shape), np.zeros(shape)
        for r, row in enumerate(self.rows):
            known = {(c["model"], c["n"]): c for c in row["candidates"] if single
                     or c.get("basis") != "single"}
            for c, candidate in enumerate(self.candidates):
                model = self.models[candidate["model"]]
                entry = known.get((candidate["model"], candidate["n"]))
                tokens = model["avg_output_tokens"]
                self.estimate[r, c] = self.cost(model, row, candidate["n"], tokens)
                if c == self.reference:
                    entry = row["candidates"][0]
                    self.quality[r, c] = row["reference"]["quality"]
                elif entry is not None:
                    first = known.get((candidate["model"], 1), entry)["quality"]
                    self.quality[r, c] = (1 - selector) * first + selector * entry["quality"]
                    self.match[r, c] = 1 - (1 - entry["quality"]) * row["reference"]["quality"]
                if entry is not None:
                    tokens = entry.get("output_tokens", tokens)
                self.paid[r, c] = self.cost(model, row, candidate["n"], tokens)

    @staticmethod
    def cost(model, row, n, tokens):
        times = n if model.get("input_per_sample") else 1
        return model["input_price"] * row["prompt_tokens"] * times + model["output_price"] * tokens * n

    def utility(self, value):
        picks = []
        for r in range(len(self.rows)):
            known = [c for c in range(len(self.candidates)) if not np.isnan(self.quality[r, c])]
            picks.append(max(known, key=lambda c: (self.predicted[r, c] - value * self.estimate[r, c],
                                                   -self.estimate[r, c])))
        index = np.arange(len(picks))
        return self.paid[index, picks].mean(), self.quality[index, picks].mean()

    def threshold(self, value):
        picks = []
        for r in range(len(self.rows)):
            good = [c for c in range(len(self.candidates)) if not np.isnan(self.quality[r, c])
                    and (c == self.reference and not self.scored
                         or self.predicted[r, c] >= value)] or [self.reference]
            picks.append(min(good, key=lambda c: (self.estimate[r, c], -self.predicted[r, c])))
        index = np.arange(len(picks))
        return self.paid[index, picks].mean(), self.quality[index, picks].mean()

    def calibration_error(self):
        known = ~np.isnan(self.match)
        predicted, match = self.predicted[known].astype(np.float32), self.match[known]
        bins = np.minimum((predicted.astype(np.float64) * 10).astype(int), 9)
        return sum((bins
                    == b).sum() * abs(predicted[bins == b].mean(dtype=np.float64) - match[bins == b].mean())
                   for b in range(10) if (bins == b).any()) / len(bins)


def qualities(line):
    """The scores of one line of `score --json`, in the order of info."""
    found = line["quality"]
    return [c["quality"] for c in found] if isinstance(found[0], dict) else found


class Case(unittest.TestCase):
    def check(self, done, code):
        self.assertEqual(done.returncode, code, done.out[-2000:] + done.err[-2000:])
        return done

    def eval(self, *arguments, code=0):
        return self.check(run("eval", "--url", service.url, "--bootstrap", "50", *arguments), code)


class Eval(Case):
    def test_curves_baselines_and_calibration_are_those_of_the_definitions(self):
        records = make_records()
        path = write("records.jsonl.gz", records)
        for selector in (1.0, 0.5):
            report = json.loads(self.eval("--json", "--data", path, "--selector", str(selector)).out)
            replay = Replay(records, selector=selector)
            whole = report["all"]
            self.assertEqual(whole["rows"], len(replay.rows))
            for point in whole["curves"]["threshold"]:
                cost, quality = replay.threshold(point["parameter"])
                self.assertAlmostEqual(point["cost"], cost, delta=1e-12)
                self.assertAlmostEqual(point["quality"], quality, delta=1e-12)
            for entry in whole["candidates"]:
                c = next(i for i, own in enumerate(replay.candidates)
                         if (own["model"], own["n"]) == (entry["model"], entry["n"]))
                known = ~np.isnan(replay.quality[:, c])
                self.assertEqual(entry["rows"], known.sum())
                pick = np.where(known, c, replay.reference)
                index = np.arange(len(pick))
                self.assertAlmostEqual(entry["cost"], replay.paid[index, pick].mean(), delta=1e-12)
                self.assertAlmostEqual(entry["quality"], replay.quality[index, pick].mean(), delta=1e-12)
            self.assertAlmostEqual(whole["calibration"]["expected_error"], replay.calibration_error(),
                                   delta=1e-6)
            reference = replay.quality[:, replay.reference].mean()
            self.assertAlmostEqual(whole["reference"]["quality"]["value"], reference, delta=1e-12)
            self.assertLessEqual(whole["reference"]["quality"]["low"], reference)
            self.assertGreaterEqual(whole["reference"]["quality"]["high"], reference)

    def test_a_saving_is_where_the_curve_crosses_the_bar(self):
        path = write("records.jsonl", make_records())
        whole = json.loads(self.eval("--json", "--data", path).out)["all"]
        curve = [(p["cost"], p["quality"]) for p in whole["curves"]["threshold"]]
        cost, quality = whole["reference"]["cost"]["value"], whole["reference"]["quality"]["value"]
        for entry in whole["saving"]["threshold"]:
            bar = quality * (1 - entry["quality_drop"])
            costs = [c for c, q in curve if q >= bar]
            for (c0, q0), (c1, q1) in zip(curve, curve[1:]):
                if (q0 < bar) != (q1 < bar):
                    costs.append(c0 + (bar - q0) / (q1 - q0) * (c1 - c0))
            self.assertAlmostEqual(entry["value"], 1 - min(costs) / cost, delta=1e-9)

    def test_tasks_split_the_rows_and_the_seed_settles_the_intervals(self):
        path = write("records.jsonl", make_records())
        first = self.eval("--json", "--data", path).out
        self.assertEqual(first, self.eval("--json", "--data", path).out)
        self.assertNotEqual(first, self.eval("--json", "--data", path, "--seed", "2").out)
        report = json.loads(first)
        self.assertEqual({t["task"] for t in report["tasks"]}, {"even", "odd"})
        self.assertEqual(sum(t["rows"] for t in report["tasks"]), report["all"]["rows"])

    def test_single_answers_and_halves_are_taken_when_asked_for(self):
        path = write("records.jsonl", make_records())
        names = lambda done: {c["model"] for c in json.loads(done.out)["all"]["candidates"]}
        self.assertNotIn("mistral-8x7b", names(self.eval("--json", "--data", path)))
        self.assertIn("mistral-8x7b", names(self.eval("--json", "--data", path, "--single")))
        half = json.loads(self.eval("--json", "--data", path, "--second-half").out)["all"]
        rows = [r for r in make_records() if r["split"] == "val"]
        expected = np.mean([(r["candidates"][0]["c"] - r["candidates"][0]["c_a"]) / 5 for r in rows])
        self.assertAlmostEqual(half["reference"]["quality"]["value"], expected, delta=1e-12)
        records = make_records()
        for key in ("k_a", "c_a"):  # the reference of one record was sampled too rarely to be halved
            del records[0]["candidates"][0][key]
        path = write("unhalved.jsonl", records)
        whole = json.loads(self.eval("--json", "--data", path, "--second-half").out)["all"]
        self.assertEqual(whole["rows"], half["rows"] - 1)
        self.assertIn("9 records passed over", self.eval("--data", path, "--second-half").out)

    def test_scores_of_a_file_stand_for_the_service_s(self):
        records = [r for r in make_records() if r["split"] == "val"]
        path = write("records.jsonl", records)
        lines = [{**line, "id": record["id"]} for line, record in zip(scores(records), records)]
        elsewhere = {**lines[0], "id": "of no record"}
        given = write("scores.jsonl.gz", [*reversed(lines), elsewhere])
        own = json.loads(self.eval("--json", "--data", path).out)
        self.assertEqual({**own, "scores": given},
                         json.loads(self.eval("--json", "--data", path, "--scores", given).out))
        flat = write("flat.jsonl", [{**line, "quality": [0.5] * len(line["quality"])} for line in lines])
        curve = json.loads(self.eval("--json", "--data", path,
                                     "--scores", flat).out)["all"]["curves"]["threshold"]
        # all to the cheapest, or all to the reference
        self.assertEqual(len({point["cost"] for point in curve}), 2)
        # A number for an id is its digits, and a record may say "text" for its prompt, as for route.
        numbered = [{**{k: v for k, v in r.items() if k != "prompt"}, "id": i, "text": r["prompt"]}
                    for i, r in enumerate(records)]
        numbers = write("numbers.jsonl", numbered)
        by_number = write("scores-by-number.jsonl", [{**line, "id": i} for i, line in enumerate(lines)])
        again = json.loads(self.eval("--json", "--data", numbers, "--scores", by_number).out)
        self.assertEqual(again["all"], own["all"])
        for change, word in (({"id": 3.5}, "bad.jsonl:2: id"), ({"quality": [0.5]}, "bad.jsonl:2: quality"),
                             ({"quality": [2] * len(lines[0]["quality"])}, "bad.jsonl:2: quality[0]"),
                             ({"id": lines[0]["id"]}, f"two lines have the id '{lines[0]['id']}'"),
                             ({"id": "another"}, f"no line has the id '{lines[1]['id']}'")):
            bad = write("bad.jsonl", [lines[0], {**lines[1], **change}, *lines[2:]])
            self.assertIn(word, self.eval("--data", path, "--scores", bad, code=2).err)
        self.assertIn("nowhere", self.eval("--data", path, "--scores", "nowhere", code=2).err)

    def test_a_table_for_people(self):
        out = self.eval("--data", write("records.jsonl", make_records())).out
        for word in ("cost saved at", "threshold", "oracle", "calibration error", "llama-31-8b x 5"):
            self.assertIn(word, out)

    def test_a_report_says_what_it_was_made_of_and_what_a_picture_of_it_needs(self):
        records = make_records()
        path = write("records.jsonl", records)
        report = json.loads(self.eval("--json", "--data", path).out)
        replay = Replay(records)
        rows = len(replay.rows)
        for key, value in (("data", [path]), ("split", "val"), ("scores", None), ("rows", rows),
                           ("passed_over", 8),
                           ("single", False), ("second_half", False), ("bootstrap", 50), ("seed", 1)):
            self.assertEqual(report[key], value, key)
        self.assertEqual(report["bundle"]["name"], bundle_router()["name"])
        self.assertTrue(0 < report["stories"] <= rows)
        whole = report["all"]
        reference = replay.candidates[replay.reference]
        self.assertEqual((whole["reference"]["model"], whole["reference"]["n"]),
                         (reference["model"], reference["n"]))
        self.assertEqual([(c["model"], c["n"]) for c in whole["candidates"] if c["reference"]],
                         [(reference["model"], reference["n"])])
        policy = bundle_router()["policy"]
        self.assertEqual({key: whole["policy"][key] for key in policy}, policy)
        cost, quality = replay.threshold(policy["threshold"])
        for key, value in (("cost", cost), ("quality", quality)):
            self.assertAlmostEqual(whole["policy"][key]["value"], value, delta=1e-12)
            self.assertLessEqual(whole["policy"][key]["low"], value)
            self.assertGreaterEqual(whole["policy"][key]["high"], value)
        self.assertEqual(len(whole["quality_at"]["cost"]), 50)
        for kind in ("threshold", "utility"):
            points = sorted((p["cost"], p["quality"]) for p in whole["curves"][kind])
            for cost, entry in zip(whole["quality_at"]["cost"], whole["quality_at"][kind]):
                if entry["value"] is not None:
                    self.assertLessEqual(entry["value"], max(q for _, q in points))
                    self.assertLessEqual(entry["low"], entry["high"])
        for kind, over in (("threshold", "threshold_over"), ("utility", "utility_over")):
            bars = [(p["cost"], p["quality"]) for p in whole["curves"]["static"]]
            for cost, entry, difference in zip(whole["quality_at"]["cost"], whole["quality_at"][kind],
                                               whole[over]["static"]["difference"]):
                bar = np.interp(cost, *zip(*bars))
                self.assertAlmostEqual(entry["value"] - bar, difference["value"], delta=1e-9)
        bins = whole["calibration"]["bins"]
        self.assertEqual(sum(b["pairs"] for b in bins), np.count_nonzero(~np.isnan(replay.match)))
        for entry in bins:
            if entry["pairs"] == 0:
                self.assertEqual((entry["low"], entry["high"]), (None, None))
            else:
                self.assertLessEqual(entry["low"], entry["measured"] + 1e-9)
                self.assertGreaterEqual(entry["high"], entry["measured"] - 1e-9)

    def test_bad_records_are_named_by_file_line_and_key(self):
        good = make_records()[0]
        for change, word in (({"prompt_tokens": "many"}, "prompt_tokens"),
                             ({"prompt_tokens": None}, "prompt_tokens"),
                             ({"candidates": {}}, "candidates"), ({"prompt": 7}, "prompt"),
                             ({"reference": {"model": "own-gpt", "quality": 1.5}}, "reference.quality"),
                             ({"candidates": [{"model": "llama-31-8b", "n": 1, "quality": -1}]},
                              "candidates[0].quality"),
                             ({"candidates": [{"model": "llama-31-8b", "n": 0}]}, "candidates[0].n")):
            path = write("bad.jsonl", [good, {**good, **change}])
            done = self.eval("--data", path, code=2)
            self.assertIn(f"bad.jsonl:2: {word}", done.err)
        with open(os.path.join(folder, "bad.jsonl"), "w", encoding="utf-8") as out:
            out.write("\n{]\n")
        self.assertIn("bad.jsonl:2: ", self.eval("--data", os.path.join(folder, "bad.jsonl"), code=2).err)
        self.assertIn("nowhere", self.eval("--data", "nowhere", code=2).err)
        self.assertIn("no record of split 'test'",
                      self.eval("--data", path_of_good(good), "--split", "test", code=2).err)
        stranger = {**good, "candidates": [good["candidates"][0]]}
        self.assertIn("no record has a measured candidate",
                      self.eval("--data", path_of_good(stranger), code=2).err)
        self.assertIn("--data FILE", self.eval(code=2).err)


class ScoredReference(Case):
    """A kind that scores its reference: evaluated and calibrated as served,
    without the reference's privilege."""

    def setUp(self):
        self.bundle = make_scored_bundle(os.path.join(tempfile.mkdtemp(dir=folder), "scored"))
        self.service = Service(bundle=self.bundle).wait()
        self.addCleanup(self.service.stop)
        self.records = make_records()
        self.path = write("records.jsonl", self.records)
        self.replay = Replay(self.records, bundle=self.bundle, url=self.service.url)

    def run_on(self, command, *arguments):
        return json.loads(self.check(run(command, "--url", self.service.url, "--bootstrap", "50", "--json",
                                         "--data", self.path, *arguments), 0).out)

    def test_it_is_replayed_as_it_is_served(self):
        np.testing.assert_allclose(self.replay.predicted.sum(1), 1, atol=1e-5)
        self.assertLess(self.replay.predicted[:, self.replay.reference].max(), 0.999)
        whole = self.run_on("eval")["all"]
        for kind in ("threshold", "utility"):
            for point in whole["curves"][kind]:
                cost, quality = getattr(self.replay, kind)(point["parameter"])
                self.assertAlmostEqual(point["cost"], cost, delta=1e-12, msg=f"{kind} {point}")
                self.assertAlmostEqual(point["quality"], quality, delta=1e-12)
        self.assertGreater(len({point["cost"] for point in whole["curves"]["utility"]}), 3)

    def test_a_calibration_holds_for_the_policy_that_is_written(self):
        for kind, key in (("threshold", "threshold"), ("utility", "lambda")):
            out = self.run_on("calibrate", "--policy", kind, "--bundle", self.bundle, "--reduce-cost", "0.3")
            written = bundle_router(self.bundle)["policy"]
            self.assertEqual(list(written), ["kind", key])
            cost, quality = getattr(self.replay, kind)(written[key])
            self.assertAlmostEqual(out["mean_cost"], cost, delta=1e-12)
            self.assertAlmostEqual(out["quality"], quality, delta=1e-12)
            self.check(run_daemon_check(self.bundle), 0)


def path_of_good(record):
    return write("good.jsonl", [record])


class Calibrate(Case):
    def setUp(self):
        self.bundle = tempfile.mkdtemp(dir=folder)
        for name in os.listdir(BUNDLE):
            shutil.copy(os.path.join(BUNDLE, name), self.bundle)
        self.path = write("records.jsonl", make_records())

    def calibrate(self, *arguments, code=0):
        return self.check(run("calibrate", "--url", service.url, "--bootstrap", "50", "--data", self.path,
                              *arguments), code)

    def test_each_target_is_met_and_written(self):
        replay = Replay(make_records())
        reference = replay.paid[:, replay.reference].mean(), replay.quality[:, replay.reference].mean()
        for flag, value in (("--reduce-cost", 0.3), ("--reference-share", 0.5), ("--quality", 0.9)):
            before = bundle_router(self.bundle)
            out = json.loads(self.calibrate("--json", "--bundle", self.bundle, flag, str(value)).out)
            written = bundle_router(self.bundle)["policy"]["threshold"]  # in full; the output is rounded
            cost, quality = replay.threshold(written)
            self.assertAlmostEqual(out["mean_cost"], cost, delta=1e-12)
            self.assertAlmostEqual(out["quality"], quality, delta=1e-12)
            if flag == "--reduce-cost":
                self.assertLessEqual(cost, (1 - value) * reference[0])
            elif flag == "--quality":
                self.assertGreaterEqual(quality, value * reference[1])
            else:
                self.assertLessEqual(out["reference_share"], value)
            after = bundle_router(self.bundle)
            self.assertEqual(list(after["policy"]), ["kind", "threshold"])
            self.assertAlmostEqual(after["policy"]["threshold"], out["threshold"], delta=1e-14)
            self.assertEqual([row["threshold"] for row in after["policy_table"]["table"]],
                             [i / 20 for i in range(21)])
            for row in after["policy_table"]["table"]:
                self.assertAlmostEqual(row["quality"], replay.threshold(row["threshold"])[1], delta=1e-12)
            for key in ("models", "candidates", "name", "max_tokens"):
                self.assertEqual(after[key], before[key])
            self.assertFalse([n for n in os.listdir(self.bundle) if n.startswith("router.json.")])
        self.check(run_daemon_check(self.bundle), 0)

    def test_a_lambda_is_set_as_a_threshold_is(self):
        replay = Replay(make_records())
        reference = replay.paid[:, replay.reference].mean(), replay.quality[:, replay.reference].mean()
        for flag, value in (("--reduce-cost", 0.3), ("--quality", 0.9)):
            out = json.loads(self.calibrate("--json", "--policy", "utility", "--bundle", self.bundle, flag,
                                            str(value)).out)
            after = bundle_router(self.bundle)
            self.assertEqual(list(after["policy"]), ["kind", "lambda"])
            self.assertEqual(after["policy"]["kind"], "utility")
            cost, quality = replay.utility(after["policy"]["lambda"])
            self.assertAlmostEqual(out["mean_cost"], cost, delta=1e-12)
            self.assertAlmostEqual(out["quality"], quality, delta=1e-12)
            low, high = out["intervals"]["lambda"]
            self.assertLessEqual(low, out["lambda"])
            self.assertGreaterEqual(high, out["lambda"])
            if flag == "--reduce-cost":
                self.assertLessEqual(cost, (1 - value) * reference[0])
            else:
                self.assertGreaterEqual(quality, value * reference[1])
        self.check(run_daemon_check(self.bundle), 0)
        done = self.calibrate("--policy", "budget", "--dry-run", "--quality", "0.5", code=2)
        self.assertIn("threshold or utility", done.err)

    def test_a_report_holds_the_target_and_every_setting(self):
        replay = Replay(make_records())
        for policy, key, flag, target in (("threshold", "threshold", "--reduce-cost", {"reduce_cost": 0.3}),
                                          ("utility", "lambda", "--quality", {"quality": 0.3}),
                                          ("threshold", "threshold", "--reference-share",
                                           {"reference_share": 0.3})):
            out = json.loads(self.calibrate("--json", "--policy", policy, "--dry-run",
                                            "--bundle", self.bundle, flag, "0.3").out)
            self.assertEqual((out["policy"], out["target"], out["rows"], out["data"]),
                             (policy, target, len(replay.rows), [self.path]))
            self.assertAlmostEqual(out["reference"]["quality"], replay.quality[:, replay.reference].mean(),
                                   delta=1e-12)
            self.assertAlmostEqual(out["reference"]["cost"], replay.paid[:, replay.reference].mean(),
                                   delta=1e-12)
            for setting in out["curve"][::20]:
                cost, quality = getattr(replay, policy)(setting[key])
                self.assertAlmostEqual(setting["mean_cost"], cost, delta=1e-12)
                self.assertAlmostEqual(setting["quality"], quality, delta=1e-12)
            chosen = {name: out[name] for name in (key, "reference_share", "mean_cost", "quality")}
            self.assertIn(chosen, out["curve"])

    def test_nothing_is_written_on_a_dry_run_or_a_failure(self):
        before = bundle_router(self.bundle)
        self.calibrate("--dry-run", "--bundle", self.bundle, "--reduce-cost", "0.3")
        done = self.calibrate("--bundle", self.bundle, "--quality", "1.9", code=4)
        self.assertIn("no threshold reaches the target", done.err)
        self.assertEqual(before, bundle_router(self.bundle))
        other = {**before, "name": "another"}
        with open(os.path.join(self.bundle, "router.json"), "w", encoding="utf-8") as file:
            json.dump(other, file)
        self.assertIn("is not the bundle",
                      self.calibrate("--bundle", self.bundle, "--quality", "0.5", code=2).err)
        self.assertEqual(other, bundle_router(self.bundle))

    def test_usage(self):
        for arguments, word in (([], "one target"),
                                (["--quality", "1", "--reduce-cost", "0.1"], "one target"),
                                (["--quality", "1"], "--bundle DIR"),
                                (["--reduce-cost", "2"], "--reduce-cost")):
            self.assertIn(word, self.calibrate(*arguments, code=2).err)


def run_daemon_check(bundle):
    """A bestrouted that only loads the bundle."""
    done = subprocess.run([test_cli.DAEMON, "--bundle", bundle, "--check"], capture_output=True, timeout=60,
                          env=test_cli.clean_environment())
    done.out, done.err = done.stdout.decode(), done.stderr.decode()
    return done


if __name__ == "__main__":
    unittest.main()
