#!/usr/bin/env python3
"""Holds our engines against Hugging Face's DebertaV2Model on the full 44M shape.

    python3 tools/check_44m.py --dump build/release/tests/forward_dump

Needs torch, transformers and safetensors. Makes the seeded bundle of the 44M shape (weights/generate.py
--preset 44m) in a temporary folder, or takes the one given with --bundle. For each length it runs one
sequence of random ids through the model in float32 (eager) and through each engine, and prints a table:

    hidden    the worst row of the last hidden states: |ours - theirs| / |theirs|
    quality   the worst |difference| over the candidates, the three ways forward_dump runs them together

The exit status is 0 when every engine keeps its bar, 77 when transformers is not installed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTHS = [3, 4, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 511, 512]
POOL_INDEX = 1

# engine, precision, bar for hidden, bar for quality
ENGINES = [
    ("reference", "f32", 1e-5, 1e-5),
    ("cpu", "f32", 1e-5, 1e-5),
    ("cpu", "bf16", 2e-2, 2e-2),
    ("cuda", "f32", 1e-5, 1e-5),
    ("cuda", "f16", 5e-3, 5e-3),
    ("cuda", "bf16", 4e-2, 4e-2),
    ("cuda", "fp8", 3e-1, 3e-1),
]

try:
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from transformers import DebertaV2Config, DebertaV2Model
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def load_model(bundle):
    """The encoder and its heads, in float32."""
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    weights = {name: tensor.float() for name, tensor in load_file(str(bundle / "model.safetensors")).items()}
    prefix = "pretrained_model."
    model = DebertaV2Model(DebertaV2Config(**config, attn_implementation="eager")).eval().float()
    backbone = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    result = model.load_state_dict(backbone, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("position_ids")]
    if missing or result.unexpected_keys:
        sys.exit(f"the bundle and the model disagree: missing {missing}, unexpected {result.unexpected_keys}")
    heads = []
    while f"single_heads.{len(heads)}.1.weight" in weights:
        name = f"single_heads.{len(heads)}.1"
        heads.append((weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return model, heads


def expect(model, heads, ids):
    with torch.no_grad():
        hidden = model(input_ids=torch.from_numpy(ids)[None].long()).last_hidden_state[0]
        logits = [torch.nn.functional.linear(hidden[POOL_INDEX], weight, bias) for weight, bias in heads]
        return hidden.numpy(), torch.stack([torch.softmax(z, dim=-1)[0] for z in logits]).numpy()


def make_sequences(config, lengths):
    random = np.random.default_rng(44)
    sequences = []
    for length in lengths:
        ids = random.integers(3, config["vocab_size"], length, dtype=np.int32)
        ids[0], ids[POOL_INDEX], ids[-1] = 1, config["vocab_size"] - 99, 2
        sequences.append(ids)
    return sequences


def run_engine(arguments, bundle, engine, precision, sequences, folder):
    """What forward_dump computed: [(hidden, quality, quality, quality)],
    or None where there is no such engine."""
    given = folder / "input"
    answer = folder / "output"
    parts = [np.array([len(sequences)], dtype=np.int32)]
    for ids in sequences:
        parts += [np.array([len(ids)], dtype=np.int32), ids]
    np.concatenate(parts).tofile(given)
    done = subprocess.run(
        [arguments.dump, bundle, engine, precision, given, answer], check=False, capture_output=True,
        text=True
    )
    if done.returncode == 77:
        print(f"{engine} {precision} is passed over: {done.stderr.strip()}")
        return None
    if done.returncode != 0:
        sys.exit(f"{engine} {precision}: {done.stderr.strip()}")
    print(f"{engine} {precision}: {', '.join(done.stdout.splitlines())}")

    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    router = json.loads((bundle / "router.json").read_text(encoding="utf-8"))
    width = config["hidden_size"]
    heads = 1 + max(candidate.get("head", -1) for candidate in router["candidates"])
    values = np.fromfile(answer, dtype=np.float32)
    at = 0

    def take(*shape):
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return values[at - count : at].reshape(shape)

    alone = [(take(len(ids), width), take(heads)) for ids in sequences]
    pooled = [take(heads) for _ in sequences]
    together = [take(heads) for _ in sequences]
    assert at == len(values), "forward_dump wrote another number of values"
    return [(*first, second, third) for first, second, third in zip(alone, pooled, together)]


def compare(expected, results):
    """[(hidden error, quality error)] per sequence; NaN counts as infinite."""
    errors = []
    for (hidden, quality), (ours, *qualities) in zip(expected, results):
        rows = np.linalg.norm(ours.astype(np.float64) - hidden, axis=-1) / np.linalg.norm(hidden, axis=-1)
        quality_error = max(float(np.abs(q.astype(np.float64) - quality).max()) for q in qualities)
        pair = (float(rows.max()), quality_error)
        errors.append(tuple(value if value == value else float("inf") for value in pair))
    return errors


def print_table(lengths, columns):
    names = list(columns)
    print()
    print("| tokens | " + " | ".join(f"{name}: hidden | {name}: quality" for name in names) + " |")
    print("| --- |" + " --- | --- |" * len(names))
    rows = [(str(length), [columns[name][i] for name in names]) for i, length in enumerate(lengths)]
    worst = [tuple(max(pair[side] for pair in columns[name]) for side in (0, 1)) for name in names]
    for label, pairs in [*rows, ("worst", worst)]:
        print(f"| {label} | "
              + " | ".join(f"{hidden:.1e} | {quality:.1e}" for hidden, quality in pairs) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dump", default=str(ROOT / "build/release/tests/forward_dump"),
                        help="the built forward_dump")
    parser.add_argument("--bundle", type=pathlib.Path,
                        help="a bundle of at least 512 tokens; default: made anew")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    arguments = parser.parse_args()
    lengths = [int(word) for word in arguments.lengths.split(",")]

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bundle = arguments.bundle
        if bundle is None:
            bundle = folder / "bundle"
            generate = [sys.executable, ROOT / "weights/generate.py", "--preset", "44m", "--out", bundle]
            subprocess.run(generate, check=True)
        model, heads = load_model(bundle)
        sequences = make_sequences(model.config.to_dict(), lengths)
        expected = [expect(model, heads, ids) for ids in sequences]
        del model

        columns = {}
        kept = True
        for engine, precision, hidden_bar, quality_bar in ENGINES:
            results = run_engine(arguments, bundle, engine, precision, sequences, folder)
            if results is None:
                continue
            columns[f"{engine} {precision}"] = errors = compare(expected, results)
            for length, (hidden, quality) in zip(lengths, errors):
                if hidden > hidden_bar or quality > quality_bar:
                    print(f"{engine} {precision}, {length} tokens: hidden {hidden:.2e}, quality "
                          f"{quality:.2e}: over the bar")
                    kept = False
        print_table(lengths, columns)
        spread = np.stack([quality for _, quality in expected])
        print(f"\nThe qualities themselves lie between {spread.min():.3f} and {spread.max():.3f}.")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
