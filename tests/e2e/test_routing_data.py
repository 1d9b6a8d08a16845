#!/usr/bin/env python3
"""routing_data.py - labels and the decision metric of training, against figures made by hand.
Needs numpy alone."""

import gzip
import json
import os
import sys
import tempfile
import unittest

import numpy as np

SOURCE = os.environ.get("BESTROUTE_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(SOURCE, "weights"))
import heads  # noqa: E402
import judging  # noqa: E402
import probe  # noqa: E402
import routing_data  # noqa: E402
import surface  # noqa: E402
from routing_data import DataError, Labels, Row, read_rows  # noqa: E402


def record(task="sums", reference="big", reference_quality=0.8, **more):
    return {"id": "a", "task": task, "split": "train", "prompt": "What is 2 + 2?", "prompt_tokens": 8,
            "reference": {"model": reference, "quality": reference_quality},
            "candidates": [{"model": "small", "n": 1, "quality": 0.5, "output_tokens": 100},
                           {"model": "small", "n": 2, "quality": 0.75}], **more}


class Data(unittest.TestCase):
    def rows(self, *records):
        return [Row(r, "x:1") for r in records]

    def test_labels_are_soft_match_probabilities(self):
        labels = Labels(self.rows(record()), [("small", 1), ("small", 2), ("small", 3)], {"big"}, 0.2)
        np.testing.assert_allclose(labels.match[0], [1 - 0.5 * 0.8, 1 - 0.25 * 0.8, 0])
        np.testing.assert_allclose(labels.weight[0], [1, 1, 0])

    def test_what_was_never_measured_on_a_task_has_label_0(self):
        other = record(task="dates", candidates=[{"model": "tiny", "n": 1, "quality": 1}])
        labels = Labels(self.rows(record(), other), [("small", 1), ("tiny", 1)], {"big"}, 0.2)
        np.testing.assert_allclose(labels.weight, [[1, 0.2], [0.2, 1]])
        np.testing.assert_allclose(labels.match, [[0.6, 0], [0, 1]], atol=1e-6)
        offered = Labels(self.rows(record(), other), [("small", 1), ("tiny", 1)], {"big"}, 0.2,
                         {"small": {"dates"}})
        np.testing.assert_allclose(offered.weight, [[0.2, 0.2], [0.2, 1]])
        self.assertFalse(offered.measured[0].any())

    def test_a_foreign_reference_is_replaced_by_the_task_s_mean(self):
        foreign = record(reference="weak", reference_quality=0.1)
        alone = record(task="unknown", reference="weak")
        labels = Labels(self.rows(record(), record(reference_quality=0.6), foreign, alone), [("small", 1)],
                        {"big"}, 0)
        np.testing.assert_allclose(labels.match[:, 0], [0.6, 0.7, 1 - 0.5 * 0.7])

    def test_a_threshold_takes_the_cheapest_and_the_reference_bounds_it(self):
        predicted = np.array([[0.9, 0.95], [0.2, 0.6]])
        quality = np.array([[1.0, 1.0], [0.0, 0.5]])
        cost = np.array([[1.0, 2.0], [1.0, 20.0]])
        reference = (np.array([1.0, 1.0]), np.array([10.0, 10.0]), np.array([10.0, 12.0]))
        curve = judging.threshold_curve(predicted, quality, np.ones((2, 2), bool), cost, cost, reference,
                                        [0, 0.5, 1])
        np.testing.assert_allclose(curve, [[1, 0.5], [6.5, 1], [11, 1]])
        self.assertAlmostEqual(judging.saving(curve, 11, 1, 0.01), 1 - 6.5 / 11)
        self.assertEqual(judging.saving(curve, 11, 2, 0.01), 0)

    def test_a_utility_weighs_quality_against_cost_and_the_reference_has_1(self):
        predicted = np.array([[0.9, 0.95], [0.2, 0.6]])
        quality = np.array([[0.8, 1.0], [0.0, 0.5]])
        cost = np.array([[1.0, 2.0], [1.0, 5.0]])
        reference = (np.array([1.0, 1.0]), np.array([10.0, 10.0]), np.array([10.0, 12.0]))
        curve = judging.utility_curve(predicted, quality, np.ones((2, 2), bool), cost, cost, reference,
                                      [0.0, 0.03, 0.1, 1])
        # by hand: at 0.03 row 0 takes 0.95 - 0.06, row 1 stays: 0.6 - 0.15 < 1 - 0.3; at 0.1 row 0 takes 0.8,
        # row 1 0.2 - 0.1
        np.testing.assert_allclose(curve, [[11, 1], [7, 1], [1, 0.4], [1, 0.4]])

    def test_the_judge_knows_what_the_best_predictions_would_give(self):
        models = {"small": {"input_price": 0.0, "output_price": 1.0, "avg_output_tokens": 1.0},
                  "big": {"input_price": 0.0, "output_price": 10.0, "avg_output_tokens": 1.0}}
        rows = self.rows(*(record(reference_quality=1.0,
                                  candidates=[{"model": "small", "n": 1, "quality": q, "output_tokens": 1}])
                           for q in (1.0, 0.0)), record(task="other", reference="weak"))
        labels = Labels(rows, [("small", 1)], {"big"}, 0)
        judge = judging.Judge(labels, [("small", 1)], models, "big", {"big"})
        right, wrong = np.array([[0.9], [0.1]]), np.array([[0.1], [0.9]])
        self.assertEqual(judge.report(right)["saving_at_1_percent"], 0.45)  # one of two prompts at a tenth
        self.assertEqual(judge.report(wrong)["saving_at_1_percent"], 0)
        self.assertGreater(judge.area(right), judge.area(wrong))

    def test_costs_use_measured_lengths_where_asked(self):
        models = {"small": {"input_price": 1.0, "output_price": 2.0, "avg_output_tokens": 10.0}}
        rows = self.rows(record())
        np.testing.assert_allclose(routing_data.costs(rows, [("small", 2)], models, False),
                                   [[8 + 2 * 2 * 10]])
        np.testing.assert_allclose(routing_data.costs(rows, [("small", 2)], models, True),
                                   [[8 + 2 * 2 * 100]])

    def test_files_are_read_and_bad_lines_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "r.jsonl.gz")
            with gzip.open(path, "wt", encoding="utf-8") as out:
                out.write(json.dumps(record()) + "\n\n" + json.dumps(record()) + "\n")
            self.assertEqual(len(read_rows(path)), 2)
            for bad in ("{", json.dumps({"id": 1}), json.dumps(record(prompt="")),
                        json.dumps(record(reference_quality=1.5))):
                with gzip.open(path, "wt", encoding="utf-8") as out:
                    out.write(json.dumps(record()) + "\n" + bad + "\n")
                with self.assertRaisesRegex(DataError, "r.jsonl.gz:2: "):
                    read_rows(path)


class Surface(unittest.TestCase):
    def test_a_prompt_s_counts_stand_in_the_block_of_its_own_task(self):
        prompts = ["a b c.", "1 2 3 4 5 6.", "x = 7", "one. two. three."]
        tasks = ["sums", "sums", "code", "code"]
        lesson = surface.SurfaceTargets(prompts, tasks, ["code", "sums"])
        targets, is_task = lesson(prompts, tasks), lesson.offsets()
        width = len(surface.surface("x")) * 5
        self.assertEqual(targets.shape, (4, 3 * width + 2))
        np.testing.assert_allclose(targets[:, is_task], [[0, 1], [0, 1], [1, 0], [1, 0]])
        self.assertFalse(targets[:2, width: 2 * width + 1].any())  # sums, in the block of code
        self.assertTrue(targets[:2, 2 * width + 1:].any(1).all())
        z = targets[:2, 2 * width + 2: 2 * width + 2 + width // 5]
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
        self.assertLess(z[0, 3], z[1, 3])  # numbers: none against six

    def test_rare_tasks_get_prompts_made_of_beginnings_and_ends(self):
        prompts = ["One here. Two here. Three?", "Four there. Five?", "x = 1", "y = 2"]
        tasks = ["sums", "sums", "code", "code"]
        more, more_tasks = surface.recombined(prompts, tasks, ["sums", "code"], 20, 1)
        self.assertEqual(more[:4], prompts)
        self.assertEqual([more_tasks.count(t) for t in ("sums", "code")], [20, 20])
        self.assertEqual(surface.recombined(prompts, tasks, ["sums", "code"], 20, 1), (more, more_tasks))
        sums = [p for p, t in zip(more, more_tasks) if t == "sums"]
        self.assertTrue(all(p.startswith(("One here.", "Four there.")) and p.endswith("?") for p in sums))
        self.assertGreater(len(set(sums)), 5)
        self.assertEqual(surface.recombined(prompts, tasks, ["sums"], 1, 1), (prompts, tasks))


class Solving(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(3)
        self.features = rng.normal(size=(400, 6))
        self.truth = rng.normal(size=(6, 2))
        self.match = 1 / (1 + np.exp(-(self.features @ self.truth + [0.5, -1])))
        self.weight = np.ones_like(self.match)

    def test_a_solved_head_is_where_the_loss_is_least(self):
        solved = heads.Heads(self.features, self.match, self.weight, [1e-6] * 2)
        np.testing.assert_allclose(routing_data.sigmoid(solved.logits(self.features)), self.match, atol=1e-4)
        penalty = 20.0
        shrunk = heads.Heads(self.features, self.match, self.weight, [penalty] * 2)
        x = (self.features - shrunk.mean) / shrunk.spread
        error = routing_data.sigmoid(x @ shrunk.coefficients + shrunk.biases) - self.match
        np.testing.assert_allclose(x.T @ error + penalty * shrunk.coefficients, 0, atol=1e-3)
        self.assertLess(np.abs(shrunk.coefficients).sum(), np.abs(solved.coefficients).sum())

    def test_folded_heads_are_the_same_heads(self):
        features = self.features * 7 + 3
        solved = heads.Heads(features, self.match, self.weight, [3.0] * 2)
        matrix, biases = solved.folded()
        np.testing.assert_allclose(features @ matrix + biases, solved.logits(features), atol=1e-9)

    def test_a_row_s_cross_fitted_score_does_not_know_its_label(self):
        fold = np.arange(400) % 4
        fold[:10] = -1
        before = heads.cross_fit(self.features, self.match, self.weight, [1.0] * 2, fold)
        self.assertTrue(np.isnan(before[:10]).all())
        changed = self.match.copy()
        changed[fold == 2] = 1 - changed[fold == 2]
        after = heads.cross_fit(self.features, changed, self.weight, [1.0] * 2, fold)
        np.testing.assert_array_equal(before[fold == 2], after[fold == 2])
        self.assertGreater(np.abs(before[fold == 1] - after[fold == 1]).max(), 0.1)

    def test_rows_without_weight_do_not_move_a_head(self):
        weight = self.weight.copy()
        weight[::2, 1] = 0
        changed = self.match.copy()
        changed[::2, 1] = 0
        one, other = (heads.Heads(self.features, m, weight, [1.0] * 2) for m in (self.match, changed))
        np.testing.assert_array_equal(one.coefficients, other.coefficients)

    def test_folds_keep_a_story_together_and_spread_each_task(self):
        story = "The party is on Monday, and it rained on the day before. "
        prompts = [story + "What is today?", story
                   + "What is tomorrow?"] + [f"How much is {i} and {i} and one more?" for i in range(40)]
        rows = [Row({**record(task="sums" if i < 22 else "dates"), "prompt": p}, "x:1")
                for i, p in enumerate(prompts)]
        fold = heads.assign_folds(rows, 4, 1)
        self.assertEqual(fold[0], fold[1])
        for task in ("sums", "dates"):
            counts = np.bincount([f for f, row in zip(fold, rows) if row.task == task], minlength=4)
            self.assertLessEqual(counts.max() - counts.min(), 2)
        self.assertEqual(heads.group_of("Short. What is it?"), "Short. What is it?")

    def test_calibration_mends_a_scale_and_a_bias_and_leaves_rare_heads_alone(self):
        logits = np.log(self.match / (1 - self.match))
        scale, bias = np.array(heads.calibrate(3 * logits + 1, self.match, self.weight)).T
        np.testing.assert_allclose(scale, 1 / 3, atol=0.08)
        np.testing.assert_allclose(bias, -1 / 3, atol=0.08)
        weight = np.zeros_like(self.weight)
        np.testing.assert_allclose(heads.calibrate(logits, self.match, weight), [[1, 0], [1, 0]])


    def test_a_temperature_is_one_scale_for_all_heads(self):
        logits = np.log(self.match / (1 - self.match))
        for factor in (0.5, 2):
            self.assertAlmostEqual(heads.temperature(factor * logits, self.match, 1000 * self.weight),
                                   1 / factor, delta=0.01)
        self.assertEqual(heads.temperature(logits, self.match, 0 * self.weight), 1)
        entropy = [heads.cross_entropy(s * logits, self.match, self.weight) for s in (0.5, 1, 2)]
        self.assertTrue((entropy[1] < entropy[0]).all() and (entropy[1] < entropy[2]).all())


class Probe(unittest.TestCase):
    def test_each_predictor_writes_scores_in_the_bundle_s_order(self):
        with tempfile.TemporaryDirectory() as folder:
            candidates = [{"model": "small", "n": 2}, {"model": "small", "n": 1},
                          {"model": "big", "n": 1, "reference": True}]
            with open(os.path.join(folder, "router.json"), "w", encoding="utf-8") as out:
                json.dump({"candidates": candidates}, out)
            records = []
            for i in range(60):  # hard where there are many numbers
                right = 9 - i % 9
                halves = [{"model": "small", "n": 1, "quality": right / 10, "k": 10, "c": right, "k_a": 5,
                           "c_a": right // 2},
                          {"model": "small", "n": 2, "quality": min(1, right / 8)},
                          {"model": "big", "n": 1, "quality": 0.8, "k": 10, "c": 8, "k_a": 5, "c_a": 4}]
                records.append({**record(candidates=halves), "id": f"r{i}",
                                "split": "test" if i == 0 else "train",
                                "prompt": f"Lot {i} has" + " 12 pears and" * (i % 9) + " no more."})
            path = os.path.join(folder, "records.jsonl")
            with open(path, "w", encoding="utf-8") as out:
                out.writelines(json.dumps(r) + "\n" for r in records)
            self.assertEqual(probe.main(["--bundle", folder, "--data", path, "--out", folder,
                                         "--penalty", "3"]), 0)
            scores = {}
            for name in ("mean", "counts", "steps", "half"):
                with open(os.path.join(folder, f"{name}.jsonl"), encoding="utf-8") as lines:
                    scores[name] = {line["id"]: line["quality"] for line in map(json.loads, lines)}
                self.assertEqual(len(scores[name]), 59)
                self.assertEqual({q[2] for q in scores[name].values()}, {1})
            # 8 of 10: 4 of the first 5
            np.testing.assert_allclose(scores["half"]["r1"][1], 1 - (1 - 4 / 5) * 4 / 5)
            np.testing.assert_allclose(scores["half"]["r1"][0], 1)  # two of them cannot both miss
            truth = [1 - (1 - (9 - i % 9) / 10) * 0.8 for i in range(1, 60)]
            for name, least in (("counts", 0.9), ("steps", 0.9)):
                self.assertGreater(np.corrcoef(truth, [scores[name][f"r{i}"][1] for i in range(1, 60)])[0, 1],
                                   least)
            self.assertLess(np.ptp([q[1] for q in scores["mean"].values()]), 0.1)


class Demo(unittest.TestCase):
    def test_the_demo_bundle_is_small_and_has_a_card(self):
        folder = os.path.join(SOURCE, "weights", "demo")
        total = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
        self.assertLess(total, 16 << 20)
        with open(os.path.join(folder, "router.json"), encoding="utf-8") as file:
            router = json.load(file)
        self.assertTrue(all("calibration" in c for c in router["candidates"] if not c.get("reference")))
        self.assertIn("README.md", os.listdir(folder))


if __name__ == "__main__":
    unittest.main()
