#!/usr/bin/env python3
"""How much of a router's worth can be read from prompts at all? Regressions in place of an encoder.

    python3 weights/probe.py --bundle weights/demo --data gsm8k.jsonl.gz --data date.jsonl.gz --out /tmp/probe
    bestroute eval --data ... --split all --scores /tmp/probe/steps.jsonl

Each predictor is fitted task by task and cross-fitted over the rows of train and val, and writes for each of
them what `bestroute score --json` would, in the order of the bundle's candidates,
for `bestroute eval --scores`:

    mean        the task alone
    counts      what can be counted in the prompt (surface.py)
    steps       the same, and steps of each count at the fifths of its task
    embedding   a sentence encoder's state; with --teacher FOLDER
    half        no prompt at all: half of the samples (c_a of k_a), to be judged by the others:
                eval --second-half

numpy; --teacher also needs requirements.txt.
"""

import argparse
import gzip
import json
import os
import sys

import numpy as np

import bundle_io
from bundle_io import BundleError
from heads import assign_folds, cross_fit
from routing_data import DataError, Row, sigmoid, write_scores
from surface import Block, surface

FOLDS = 10


def read(paths):
    """Records of train and val, and their rows."""
    records = []
    for path in paths:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as lines:
            records += [json.loads(line) for line in lines if line.strip()]
    records = [r for r in records if r["split"] in ("train", "val")]
    return records, [Row(record, record["id"]) for record in records]


def best_of(k, c, n):
    """Probability that one of n samples is right, drawn without replacement from k of which c are."""
    wrong = np.prod([max(0, k - c - i) / (k - i) for i in range(min(n, k))])
    return 1 - wrong


def from_half(records, pairs):
    """Match by the samples of the first half alone. [rows, pairs]"""
    out = np.zeros((len(records), len(pairs)))
    for r, record in enumerate(records):
        first = {c["model"]: c for c in record["candidates"] if c["n"] == 1 and c.get("k_a")}
        own = first.get(record["reference"]["model"])
        reference = own["c_a"] / own["k_a"] if own else record["reference"]["quality"]
        for p, (model, n) in enumerate(pairs):
            if model in first:
                out[r, p] = 1 - (1 - best_of(first[model]["k_a"], first[model]["c_a"], n)) * reference
    return out


def by_task(rows, features_of, match, measured, penalty, seed):
    """Cross-fitted match probabilities; a head is solved for each task alone. [rows, pairs]"""
    tasks = np.array([row.task for row in rows])
    fold = assign_folds(rows, FOLDS, seed)
    out = np.zeros(match.shape)
    for task in np.unique(tasks):
        own = np.flatnonzero(tasks == task)
        logits = cross_fit(features_of(own), match[own], measured[own], [penalty] * match.shape[1], fold[own])
        out[own] = sigmoid(logits)
    return out


def run(options):
    router = bundle_io.read_json(os.path.join(options.bundle, "router.json"))
    pairs = [(c["model"], c["n"]) for c in router["candidates"]]
    if not router["candidates"][-1].get("reference"):
        raise DataError("the bundle's reference is not the last of its candidates")
    pairs = pairs[:-1]
    records, rows = read(options.data)
    measured = np.array([[pair in row.quality and pair not in row.single for pair in pairs] for row in rows])
    match = np.array([[row.match(pair) if known else 0 for pair, known in zip(pairs, line)]
                      for row, line in zip(rows, measured)])
    counts = np.array([surface(row.prompt) for row in rows])
    width = counts.shape[1]
    predictors = {
        "mean": lambda own: np.zeros((len(own), 1)),
        "counts": lambda own: Block(counts[own])(counts[own])[:, 1:1 + width],
        "steps": lambda own: Block(counts[own])(counts[own])[:, 1:],
    }
    if options.teacher:
        from network import teacher_embeddings  # torch, only where it is asked for
        embedding = teacher_embeddings(options.teacher, [row.prompt for row in rows])
        predictors["embedding"] = lambda own: embedding[own]
    os.makedirs(options.out, exist_ok=True)
    for name, features_of in predictors.items():
        write_scores(os.path.join(options.out, f"{name}.jsonl"), rows,
                     by_task(rows, features_of, match, measured, options.penalty, options.seed))
    write_scores(os.path.join(options.out, "half.jsonl"), rows, from_half(records, pairs))


def main(arguments):
    parser = argparse.ArgumentParser(description="What regressions on prompts would give a router.")
    parser.add_argument("--bundle", required=True, help="whose candidates to score")
    parser.add_argument("--data", action="append", required=True, help="records; may be repeated")
    parser.add_argument("--out", required=True, help="folder of the scores")
    parser.add_argument("--teacher", help="folder of a sentence encoder")
    parser.add_argument("--penalty", type=float, default=100)
    parser.add_argument("--seed", type=int, default=1)
    try:
        run(parser.parse_args(arguments))
    except (BundleError, DataError, OSError) as error:
        print(f"probe.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
