#!/usr/bin/env python3
"""routing_data.py - labels and the decision metric of training, against figures made by hand. Needs numpy alone."""

import gzip
import json
import os
import sys
import tempfile
import unittest

import numpy as np

SOURCE = os.environ.get("BESTROUTE_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(SOURCE, "weights"))
import routing_data  # noqa: E402
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
        offered = Labels(self.rows(record(), other), [("small", 1), ("tiny", 1)], {"big"}, 0.2, {"small": {"dates"}})
        np.testing.assert_allclose(offered.weight, [[0.2, 0.2], [0.2, 1]])
        self.assertFalse(offered.measured[0].any())

    def test_a_foreign_reference_is_replaced_by_the_task_s_mean(self):
        foreign = record(reference="weak", reference_quality=0.1)
        alone = record(task="unknown", reference="weak")
        labels = Labels(self.rows(record(), record(reference_quality=0.6), foreign, alone), [("small", 1)], {"big"}, 0)
        np.testing.assert_allclose(labels.match[:, 0], [0.6, 0.7, 1 - 0.5 * 0.7])

    def test_a_threshold_takes_the_cheapest_and_the_reference_bounds_it(self):
        predicted = np.array([[0.9, 0.95], [0.2, 0.6]])
        quality = np.array([[1.0, 1.0], [0.0, 0.5]])
        cost = np.array([[1.0, 2.0], [1.0, 20.0]])
        reference = (np.array([1.0, 1.0]), np.array([10.0, 10.0]), np.array([10.0, 12.0]))
        curve = routing_data.threshold_curve(predicted, quality, np.ones((2, 2), bool), cost, cost, reference, [0, 0.5, 1])
        np.testing.assert_allclose(curve, [[1, 0.5], [6.5, 1], [11, 1]])
        self.assertAlmostEqual(routing_data.saving(curve, 11, 1, 0.01), 1 - 6.5 / 11)
        self.assertEqual(routing_data.saving(curve, 11, 2, 0.01), 0)

    def test_costs_use_measured_lengths_where_asked(self):
        models = {"small": {"input_price": 1.0, "output_price": 2.0, "avg_output_tokens": 10.0}}
        rows = self.rows(record())
        np.testing.assert_allclose(routing_data.costs(rows, [("small", 2)], models, False), [[8 + 2 * 2 * 10]])
        np.testing.assert_allclose(routing_data.costs(rows, [("small", 2)], models, True), [[8 + 2 * 2 * 100]])

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
