#!/usr/bin/env python3
"""weights/train.py on records it could not learn less from: a smoke test of the whole way to a bundle.

    BESTROUTE_TRAIN_PYTHON=/path/to/venv/bin/python3 python3 tests/e2e/test_train.py

Needs the packages of weights/requirements.txt; without them it is skipped aloud (exit code 77).
Some two minutes.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import test_cli
from test_cli import Service, run

SOURCE = test_cli.SOURCE
PYTHON = os.environ.get("BESTROUTE_TRAIN_PYTHON", sys.executable)
SMALL = ["--hidden", "32", "--heads", "1", "--layers", "1", "--pieces", "300", "--batch-tokens", "1024",
         "--threads", "1"]
WAIT_S = 300


def record(index, rng):
    """Long sums are hard for the small model, long dates are not; the big one is nearly always right."""
    steps = rng.randint(1, 8)
    task = "sums" if index % 3 else "dates"
    if task == "sums":
        parts = [f"Box {i} of lot {index} holds {rng.randint(2, 90)} pears." for i in range(steps)]
        prompt = " ".join(parts) + " How many pears are there in all?"
    else:
        day = rng.choice(["Monday", "Friday", "Sunday"])
        prompt = f"Day {index} of the fair is a {day}{', and it rains' * steps}. Which day is next?"
    right = 0.95 - 0.1 * steps if task == "sums" else 0.3 + 0.08 * steps
    entries = [{"model": "small", "n": n, "quality": round(1 - (1 - right) ** n, 4), "output_tokens": 40,
                "basis": "derived"}
               for n in (1, 2)]
    entries.append({"model": "big", "n": 1, "quality": 0.95, "output_tokens": 60})
    return {"id": f"r{index}", "task": task, "prompt": prompt, "split": "val" if index % 4 == 0 else "train",
            "prompt_tokens": 10 + 9 * steps, "reference": {"model": "big", "quality": 0.95},
            "candidates": entries}


class Train(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bestroute-train-")
        rng = random.Random(1)
        cls.records = [record(i, rng) for i in range(240)]
        with open(cls.path("records.jsonl"), "w", encoding="utf-8") as out:
            out.writelines(json.dumps(r) + "\n" for r in cls.records)
        with open(cls.path("prices.json"), "w", encoding="utf-8") as out:
            json.dump({"models": {"small": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.1},
                                  "big": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 30}}}, out)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    def command(self, name, *more):
        return [PYTHON, os.path.join(SOURCE, "weights", "train.py"), "--data", self.path("records.jsonl"),
                "--prices", self.path("prices.json"), "--reference", "big", "--model", "small:2",
                "--out", self.path(name), *SMALL,
                "--distil-epochs", "12", "--distil-rate", "3e-3", *more]

    def train(self, name, *more, code=0):
        done = subprocess.run(self.command(name, *more), capture_output=True, text=True, timeout=WAIT_S,
                              check=False)
        self.assertEqual(done.returncode, code, done.stdout[-3000:] + done.stderr[-3000:])
        return done

    def weights(self, name):
        with open(self.path(name, "model.safetensors"), "rb") as file:
            return file.read()

    def test_from_records_to_decisions(self):
        self.train("bundle", "--folds", "3", "--scores", self.path("folds.jsonl"))
        with open(self.path("bundle.work", "report.json"), encoding="utf-8") as file:
            report = json.load(file)
        self.assertGreater(report["folds"]["all"]["saving_at_5_percent"], 0.05)
        service = Service(bundle=self.path("bundle"))
        self.addCleanup(service.stop)
        service.wait()
        data = ("--url", service.url, "--json", "--bootstrap", "10", "--data", self.path("records.jsonl"))
        val = json.loads(run("eval", *data).out)["all"]
        self.assertAlmostEqual(val["calibration"]["expected_error"],
                               report["val"]["all"]["calibration_error"], delta=2e-3)
        folds = run("eval", *data, "--split", "all", "--scores", self.path("folds.jsonl"))
        self.assertEqual(folds.returncode, 0, folds.err)
        whole = json.loads(folds.out)["all"]
        self.assertEqual(whole["rows"], len(self.records))
        self.assertAlmostEqual(whole["calibration"]["expected_error"],
                               report["folds"]["all"]["calibration_error"], delta=2e-3)

        # What was there to be learned: long sums are dear, and dates are the other way round.
        def quality(task, steps):
            rng = random.Random(5)
            texts = [r["prompt"] for r in (record(i, rng) for i in range(400, 700))
                     if r["task"] == task and (r["prompt_tokens"] - 10) // 9 == steps]
            lines = run("score", "--url", service.url, "--json", *texts).out.splitlines()
            return sum(json.loads(line)["quality"][0] for line in lines) / len(lines)

        self.assertGreater(quality("sums", 1), quality("sums", 8) + 0.2)
        self.assertLess(quality("dates", 1), quality("dates", 8))

    def test_a_killed_run_goes_on_to_the_same_weights(self):
        self.train("whole")
        with subprocess.Popen(self.command("killed"), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + WAIT_S
            while not os.path.exists(self.path("killed.work", "distil.pt")) and time.monotonic() < until:
                time.sleep(0.01)
            process.kill()
        self.assertFalse(os.path.exists(self.path("killed", "model.safetensors")))
        self.train("killed", "--resume")
        self.assertEqual(self.weights("killed"), self.weights("whole"))

    def test_the_whole_network_is_fine_tuned_when_asked(self):
        done = self.train("tuned", "--epochs", "2", "--rate", "1e-3", "--distil-epochs", "1")
        self.assertIn("epoch 2: held-back loss", done.stdout)
        check = subprocess.run([test_cli.DAEMON, "--bundle", self.path("tuned"), "--check"],
                               capture_output=True, check=False)
        self.assertEqual(check.returncode, 0, check.stderr)

    def test_usage(self):
        self.assertIn("--folds N", self.train("none", "--folds", "3", code=2).stderr)
        self.assertIn("nothing trains the encoder", self.train("none", "--distil-epochs", "0", code=2).stderr)
        self.assertIn("no records", self.train("none", "--data", os.devnull, code=1).stderr)


if __name__ == "__main__":
    probe = subprocess.run([PYTHON, "-c", "import numpy, sentencepiece, torch, tqdm, transformers"],
                           capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        print(f"skipped: {PYTHON} lacks what training needs: {probe.stderr.strip().splitlines()[-1]}")
        sys.exit(77)
    unittest.main()
