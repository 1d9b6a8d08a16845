"""Routing records: JSON lines with the measured quality of real answers, as training examples.

A record has a prompt, a task, a split, a reference {model, quality} and candidates: pairs (model, n) with
`quality` (0..1), the probability that the best of n is right. A label is the match probability

    match = 1 - (1 - quality) * reference_quality

that best-of-n is at least as good as one answer of the reference. Labels stay soft.
"""

import gzip
import hashlib
import json
from collections import defaultdict

import numpy as np


class DataError(Exception):
    """Bad records; the message names the file, the line and the key."""


class Row:
    """One prompt with everything measured about it."""

    def __init__(self, record, where):
        try:
            self.id = str(record["id"])
            self.task = str(record["task"])
            self.split = str(record["split"])
            self.prompt = record["prompt"]
            self.prompt_tokens = float(record["prompt_tokens"])
            # records without one teach the encoder prompts, not qualities
            reference = record.get("reference")
            self.reference_model = reference["model"] if reference else None
            self.reference_quality = float(reference["quality"]) if reference else 0.0
            self.quality = {}
            self.output_tokens = {}
            self.single = set()
            for candidate in record["candidates"]:
                pair = (candidate["model"], int(candidate["n"]))
                if candidate.get("quality") is None:
                    continue
                self.quality[pair] = float(candidate["quality"])
                if candidate.get("output_tokens") is not None:
                    self.output_tokens[pair] = float(candidate["output_tokens"])
                if candidate.get("basis") == "single":
                    self.single.add(pair)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {type(error).__name__}: {error}") from error
        if not isinstance(self.prompt, str) or not self.prompt:
            raise DataError(f"{where}: prompt: expected a text")
        values = [self.reference_quality, *self.quality.values()]
        if not all(0 <= value <= 1 for value in values):
            raise DataError(f"{where}: quality: expected numbers in [0, 1]")

    def match(self, pair, reference_quality=None):
        reference = self.reference_quality if reference_quality is None else reference_quality
        return 1 - (1 - self.quality[pair]) * reference

    def share(self, salt):
        """A number in [0, 1) that depends on the prompt alone: the same prompt is always on the same side."""
        digest = hashlib.sha256(f"{salt}:{self.prompt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def read_rows(path):
    rows = []
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from error
            rows.append(Row(record, f"{path}:{number}"))
    if not rows:
        raise DataError(f"{path}: no records")
    return rows


def is_offered(row, model, offered):
    return not offered or model not in offered or row.task in offered[model]


class Labels:
    """Soft labels [rows, pairs] and their weights.

    A pair that was measured on a row has its match probability, weight 1. A pair whose model was never
    measured on any row of that task has label 0 with weight `unmeasured`: where nothing is known, nothing is
    promised, and the reference answers; so has one that is not `offered` (model -> tasks) there. Everything
    else has weight 0. Rows that are not `known` to a reference of ours (a file whose strongest model is a
    weak one) get the mean quality that the references have on that task.
    """

    def __init__(self, rows, pairs, references, unmeasured, offered=None):
        known = [row for row in rows if row.reference_model in references]
        by_task = defaultdict(list)
        measured = set()
        for row in known:
            by_task[row.task].append(row.reference_quality)
        for row in rows:
            measured.update((row.task, model) for model, _ in row.quality if is_offered(row, model, offered))
        self.rows = [row for row in rows if row.task in by_task]
        self.known = np.array([row.reference_model in references for row in self.rows])
        self.match = np.zeros((len(self.rows), len(pairs)), dtype=np.float32)
        self.weight = np.zeros_like(self.match)
        self.measured = np.zeros(self.match.shape, dtype=bool)
        for r, row in enumerate(self.rows):
            foreign = row.reference_model not in references
            reference = float(np.mean(by_task[row.task])) if foreign else None
            for p, pair in enumerate(pairs):
                if pair in row.quality and is_offered(row, pair[0], offered):
                    self.match[r, p] = row.match(pair, reference)
                    self.weight[r, p] = 1
                    self.measured[r, p] = True
                elif (row.task, pair[0]) not in measured:
                    self.weight[r, p] = unmeasured


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))  # exp would overflow


def costs(rows, pairs, models, measured):
    """USD of each pair on each row [rows, pairs]; `measured`:
    with the row's own answer lengths where known."""
    out = np.zeros((len(rows), len(pairs)))
    for r, row in enumerate(rows):
        for p, (name, n) in enumerate(pairs):
            model = models[name]
            tokens = model["avg_output_tokens"]
            if measured:
                tokens = row.output_tokens.get((name, n), row.output_tokens.get((name, 1), tokens))
            out[r, p] = model["input_price"] * row.prompt_tokens + model["output_price"] * n * tokens
    return out


def write_scores(path, rows, predicted):
    """The lines of `bestroute score --json`: the reference, last of the candidates, has 1."""
    with open(path, "w", encoding="utf-8") as out:
        for row, qualities in zip(rows, predicted):
            out.write(json.dumps({"id": row.id,
                                  "quality": [*(round(float(q), 6) for q in qualities), 1]}) + "\n")
