#!/usr/bin/env python3
"""What a pass asks of a GPU, counted by a virtual one, as a table, with the bars it must keep.

    GPU_LAUNCHER="path/to/launcher" tools/gpu_counters.py

The launcher runs a program on a virtual GPU and writes its counters with --report FILE, and those of the
matrix products to $VGPU_BLAS_REPORT. Without one the test is skipped (77). It makes a bundle with the 44M
model's widths and two layers, one that computes all tokens and the last one, runs one full f16 pass of each
batch below, and extrapolates to six layers. $BESTROUTE_SOURCE and $BENCH_FORWARD come from ctest.

Asserted, for every kernel of the pass: sectors within 1.05 of ideal, no local memory; on the tensor-core
kernels bank conflicts within 1.1 of conflict-free; at most 45 launches for six layers; the expected time at
3.0 TB/s and 790 TFLOP/s at most 1.5 times the floor of the algorithm's FLOPs alone.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

BANDWIDTH = 3.0e12  # bytes/s of an H100's memory
FLOPS = 790e12  # dense 16-bit FLOP/s that a large product reaches on it
LAYERS = 6
WIDTH, FFN, HEADS, HEAD_SIZE = 768, 3072, 12, 64
CANDIDATES = 15
# tokens per sequence, sequences: 2816 tokens, whole waves on 132 multiprocessors
BATCHES = ((64, 44), (128, 22))

SECTORS_MAX = 1.05
CONFLICTS_MAX = 1.10
LAUNCHES_MAX = 45
FLOOR_MAX = 1.5

TENSOR_CORE = ("attention_band", "linear", "linear_warpgroup")
# Launches in a pass of two layers that belong to the layer of all tokens, of which six layers have five.
ONCE_PER_LAYER = {"attention_band": 1, "linear_warpgroup": 1, "layernorm": 2}


def short(name):
    found = re.search(r"\d([a-z][a-z_]*?)_kernel", name)
    return found.group(1) if found else name


def run_pass(launcher, bundle, folder, length, seqs):
    report, products = "r.json", "p.json"  # in `folder`, where the program runs
    command = [*launcher, "--report", report, os.environ["BENCH_FORWARD"], "--bundle", bundle,
               "--engine", "cuda", "--precision", "f16", "--lengths", str(length),
               "--batch-tokens", str(length * seqs), "--streams", "1",
               "--no-check", "--dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder,
                          env={**os.environ, "VGPU_BLAS_REPORT": products})
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with open(os.path.join(folder, report), encoding="utf-8") as file:
        kernels = json.load(file)["kernels"]
    with open(os.path.join(folder, products), encoding="utf-8") as file:
        gemms = json.load(file)["gemms"]
    return kernels, gemms


def product_bytes(outputs, rows, inputs, adds):
    return 2 * (rows * inputs + outputs * inputs + rows * outputs * (2 if adds else 1))


def ideal_bytes(name, launches, length, seqs):
    """What the op must move at least, per launch, if nothing but its operands went through memory."""
    tokens = length * seqs
    element = 2
    return {
        "embed_layernorm": 2 * tokens * WIDTH * element,
        "layernorm": (2 * tokens + seqs) * WIDTH * element * 2 / launches,
        "attention_band": 4 * tokens * WIDTH * element,
        "attention_vectors": 2 * tokens * WIDTH * element,
        "gather_rows": 2 * seqs * WIDTH * element,
        "heads": seqs * WIDTH * element + CANDIDATES * (WIDTH * 4 + seqs * 4),
        "linear_warpgroup": product_bytes(FFN, tokens, WIDTH, False),
        "linear": product_bytes(FFN, seqs, WIDTH, False),
    }.get(name, 0)


def scale_to_six_layers(name, launches, tokens, seqs):
    """How many average launches of the two-layer pass the six-layer pass is worth."""
    if name == "layernorm":  # two over all tokens and one over the pooled ones, against ten and one
        return launches * ((LAYERS - 1) * 2 * tokens + seqs) / (2 * tokens + seqs)
    return launches + (LAYERS - 2) * ONCE_PER_LAYER.get(name, 0)


def rows_of_kernels(kernels, length, seqs):
    """One row per kernel: launches of the two-layer pass, of the six-layer pass,
    and the cost of one launch."""
    rows = []
    tokens = length * seqs
    for mangled, k in sorted(kernels.items(), key=lambda pair: short(pair[0])):
        name = short(mangled)
        launches = k["launches"]
        moved = (k["global_load_bytes"] + k["global_store_bytes"]) / launches
        flops = k["mma_flops"] / launches
        operations = k["lane_instructions_by_class"]
        ideal = ideal_bytes(name, launches, length, seqs)
        # Tiles of a product read its operands again through L2; memory sees them once.
        through_memory = ideal if name.startswith("linear") else moved
        rows.append({
            "name": name,
            "launches": launches,
            "six_layers": launches + (LAYERS - 2) * ONCE_PER_LAYER.get(name, 0),
            "scale": scale_to_six_layers(name, launches, tokens, seqs),
            "bytes": through_memory,
            "read": moved,
            "ideal": ideal,
            "flops": flops,
            "tensor_share": k["mma_flops"] / max(1, k["mma_flops"] + operations["fp32"] + operations["half"]),
            "sectors": k["global_sectors"] / max(1, k["global_sectors_ideal"]),
            # At most this: a wide access takes several wavefronts even without conflicts.
            "conflicts": 1 + k["shared_bank_conflicts"] / max(1, k["shared_requests"]),
            "local": k["local_bytes"],
            "lanes": k["lane_efficiency"],
        })
    return rows


def rows_of_products(gemms, tokens):
    rows = []
    for g in gemms:
        outputs, count, inputs = g["m"], g["n"], g["k"]
        all_tokens = count == tokens
        adds = outputs == WIDTH and (all_tokens or inputs == FFN)
        in_layer = all_tokens and outputs != 2 * WIDTH
        rows.append({
            "name": f"cublasLt {outputs} x {count} x {inputs}",
            "launches": g["count"],
            "six_layers": g["count"] + (LAYERS - 2 if in_layer else 0),
            "scale": g["count"] + (LAYERS - 2 if in_layer else 0),
            "bytes": product_bytes(outputs, count, inputs, adds),
            "ideal": product_bytes(outputs, count, inputs, adds),
            "flops": 2 * outputs * count * inputs,
        })
    return rows


def floor_seconds(length, seqs):
    """The algorithm's FLOPs alone: bands, and the last layer for the pooled tokens."""
    tokens = length * seqs
    layer = 2 * tokens * (4 * WIDTH * WIDTH + 2 * WIDTH * FFN)
    attention = 4 * tokens * length * WIDTH + 4 * tokens * (length + 15) * WIDTH
    last = 2 * tokens * 2 * WIDTH * WIDTH + 2 * seqs * (2 * WIDTH * WIDTH + 2 * WIDTH * FFN)
    return ((LAYERS - 1) * (layer + attention) + last) / FLOPS


def check_batch(kernels, gemms, length, seqs):
    misses = []
    ours = rows_of_kernels(kernels, length, seqs)
    products = rows_of_products(gemms, length * seqs)
    print(f"\n### {seqs} sequences of {length} tokens, f16\n")
    print("| kernel | launches, 6 layers | MB each | of ideal | GFLOP on tensor cores | FLOP/byte | sectors "
          "of ideal | bank wavefronts of ideal | lanes busy | us each | us, 6 layers |")
    print("| --- |" + " ---: |" * 10)
    total = 0.0
    for row in ours + products:
        each = max(row["bytes"] / BANDWIDTH, row["flops"] / FLOPS)
        total += each * row["scale"]
        counted = (f"{row['sectors']:.3f} | {row['conflicts']:.3f} | {row['lanes']:.2f}" if "sectors" in row
                   else "| |")
        print(f"| {row['name']} | {row['six_layers']} | {row['bytes'] / 1e6:.2f} | "
              f"{row['bytes'] / row['ideal'] if row['ideal'] else 0:.2f} | {row['flops'] / 1e9:.2f} | "
              f"{row['flops'] / row['bytes']:.0f} | {counted} | {each * 1e6:.1f} | "
              f"{each * row['scale'] * 1e6:.1f} |")
    for row in ours:
        if row["sectors"] > SECTORS_MAX:
            misses.append(f"{row['name']}: {row['sectors']:.3f} times the ideal sectors")
        if row["name"] in TENSOR_CORE and row["conflicts"] > CONFLICTS_MAX:
            misses.append(f"{row['name']}: {row['conflicts']:.3f} times the ideal wavefronts in shared "
                          "memory")
        if row["local"] != 0:
            misses.append(f"{row['name']}: {row['local']} bytes of local memory")
    launches = sum(row["six_layers"] for row in ours + products)
    floor = floor_seconds(length, seqs)
    print(f"\n{launches} launches; expected {total * 1e6:.0f} us, {total / floor:.2f} times the floor of "
          f"{floor * 1e6:.0f} us.")
    if launches > LAUNCHES_MAX:
        misses.append(f"{launches} launches for {LAYERS} layers, at most {LAUNCHES_MAX}")
    if total > FLOOR_MAX * floor:
        misses.append(f"expected time is {total / floor:.2f} times the floor, at most {FLOOR_MAX}")
    names = {row["name"] for row in ours}
    for name in ("attention_band", "linear_warpgroup", "layernorm", "embed_layernorm", "heads",
                 "gather_rows"):
        if name not in names:
            misses.append(f"{name} did not run")
    return misses


def main():
    launcher = shlex.split(os.environ.get("GPU_LAUNCHER", ""))
    if not launcher:
        print("skipped: GPU_LAUNCHER names no virtual GPU")
        return 77
    source = os.environ["BESTROUTE_SOURCE"]
    misses = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.path.join(folder, "bundle")
        subprocess.run([sys.executable, os.path.join(source, "weights/generate.py"), "--preset", "44m",
                        "--layers", "2", "--vocab", "2064", "--out", bundle], check=True,
                       stdout=subprocess.DEVNULL)
        for length, seqs in BATCHES:
            kernels, gemms = run_pass(launcher, bundle, folder, length, seqs)
            misses += check_batch(kernels, gemms, length, seqs)
    print()
    for miss in misses:
        print(f"over the bar: {miss}")
    print("every bar is kept" if not misses else f"{len(misses)} bars are missed")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
