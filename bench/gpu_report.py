#!/usr/bin/env python3
"""Turns the JSON lines of bench/gpu.sh into tables:
gpu_report.py LINES OUT_FOLDER [--quick] writes gpu.md and gpu.json.

Takes what there is: a run that was cut off yields the tables that it got to.
"""
import csv
import json
import math
import os
import re
import statistics
import sys

TILE = 128
PRODUCTS = (("qkv", 18), ("attention_output", 6), ("ffn_up_gelu", 24), ("ffn_down", 6))  # tiles across
SEPARATE = "ffn_up_separate_gelu"


def wave_share(tokens, across, multiprocessors):
    """How full the waves of 128 x 128 tiles are, of products that are so many tiles across."""
    down = math.ceil(tokens / TILE)
    tiles = sum(down * tile for tile in across)
    slots = sum(math.ceil(down * tile / multiprocessors) * multiprocessors for tile in across)
    return tiles / slots * tokens / (down * TILE)


def layer_share(tokens, multiprocessors):
    return wave_share(tokens, [across for _, across in PRODUCTS], multiprocessors)


def predicted_optima(multiprocessors, count=4, tokens_max=8192):
    """Whole tiles from which every step up or down by one tile leaves more of the last waves empty: the best
    of them."""
    shares = {tokens: layer_share(tokens, multiprocessors)
              for tokens in range(8 * TILE, tokens_max + 1, TILE)}
    peaks = [tokens for tokens, share in shares.items()
             if share >= shares.get(tokens - TILE, 0) and share >= shares.get(tokens + TILE, 0)]
    return sorted(sorted(peaks, key=lambda tokens: (-shares[tokens], tokens))[:count])


def read(path):
    """The lines that are whole; the last one of a run that was cut off may not be."""
    lines = []
    with open(path, encoding="utf-8") as file:
        for text in file:
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    for line in lines:
        if "us" in line:
            line["gb_per_s"] = line["bytes"] / line["us"] * 1e-3
            line["tflop_per_s"] = line["flops"] / line["us"] * 1e-6
    return lines


def table(head, rows, left=1):
    """Markdown, the first `left` columns set to the left."""
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, marks, *rows)] + [""]


def of(value, ceiling):
    return f"{value / ceiling:.2f}" if ceiling else ""


def kernels(lines, bandwidth, peak):
    rows = [(line["name"], line["tokens"], line["length"] or "", f"{line['us']:.2f}",
             f"{line['bytes'] / 1e6:.2f}",
             f"{line['flops'] / 1e9:.3f}", f"{line['gb_per_s']:.0f}", of(line["gb_per_s"], bandwidth),
             f"{line['tflop_per_s']:.1f}", of(line["tflop_per_s"], peak))
            for line in lines if line["kind"] == "kernel"]
    if not rows:
        return []
    head = ("kernel", "tokens", "length", "us", "MB", "GFLOP", "GB/s", "of copy", "TFLOP/s", "of product")
    return ["## Kernels at a full batch", "",
            "Their operands stay in L2 where they fit, as after the kernel before: more than a copy's rate "
            "is then no mistake.", ""] + table(head, rows)


def products(lines, precision, multiprocessors, peak):
    found = {(line["name"], line["tokens"]): line for line in lines
             if line["kind"] == "product" and line["precision"] == precision}
    if not found:
        return []
    counts = sorted({tokens for _, tokens in found})
    head = ["tokens"]
    for name, _ in PRODUCTS:
        head += [f"{name}, us", "TFLOP/s", "of product", "waves"]
    head += ["the four, us", "TFLOP/s", "waves"]
    rows = []
    whole = {}
    for tokens in counts:
        row = [tokens]
        lines_here = [found.get((name, tokens)) for name, _ in PRODUCTS]
        for line, (_, across) in zip(lines_here, PRODUCTS):
            share = f"{wave_share(tokens, [across], multiprocessors):.2f}" if multiprocessors else ""
            row += [f"{line['us']:.1f}", f"{line['tflop_per_s']:.1f}", of(line["tflop_per_s"], peak),
                    share] if line \
                else ["", "", "", share]
        if all(lines_here):
            us = sum(line["us"] for line in lines_here)
            whole[tokens] = sum(line["flops"] for line in lines_here) / us * 1e-6
            row += [f"{us:.1f}", f"{whole[tokens]:.1f}"]
        else:
            row += ["", ""]
        rows.append(row + [f"{layer_share(tokens, multiprocessors):.2f}" if multiprocessors else ""])
    out = [f"## Products of a layer by tokens, {precision}", "",
           "Weights come from memory, activations from L2. \"waves\": the share of full waves of 128 x 128 "
           f"tiles on {multiprocessors} multiprocessors, which is what is predicted of the peak.",
           ""] + table(head, rows, 0)
    if multiprocessors:
        out += ["Predicted optima: " + ", ".join(f"{tokens} ({layer_share(tokens, multiprocessors):.2f})"
                                                 for tokens in predicted_optima(multiprocessors))
                + " tokens."]
    if whole:
        best = sorted(whole, key=whole.get, reverse=True)[:4]
        out += ["Measured best: "
                + ", ".join(f"{tokens} ({whole[tokens]:.1f} TFLOP/s)" for tokens in best) + "."]
    separate = [(tokens, found[("ffn_up_gelu", tokens)]["us"], found[(SEPARATE, tokens)]["us"])
                for tokens in counts
                if ("ffn_up_gelu", tokens) in found and (SEPARATE, tokens) in found]
    if separate:
        out += ["", f"### FFN up: our fused GELU beside cuBLASLt and a GELU kernel, {precision}", ""]
        out += table(("tokens", "fused, us", "separate, us", "separate by fused"),
                     [(tokens, f"{fused:.1f}", f"{apart:.1f}", f"{apart / fused:.2f}")
                      for tokens, fused, apart in separate], 0)
    return out + [""]


def forward(lines, peak):
    runs = [(line["name"], line["run"], result) for line in lines if line["kind"] == "forward"
            for result in line["run"]["results"]]
    if not runs:
        return []
    rows = []
    for name, run, result in runs:
        rows.append((run["precision"], name, result["tokens"], result["batch"], run["streams"],
                     f"{result['queries_per_s']:.0f}", f"{result['queries_per_s'] * result['tokens']:.0f}",
                     f"{result['batch'] * run['streams'] / result['queries_per_s'] * 1e6:.0f}",
                     f"{result['gflops'] / 1000:.1f}", of(result["gflops"] / 1000, peak)))
    head = ("precision", "pass", "tokens", "prompts per pass", "encoders", "queries/s", "tokens/s",
            "one pass, us", "TFLOP/s", "of product")
    out = ["## The forward pass, from ids on the host to qualities on the host", ""] + table(head, rows, 2)
    alone = [(run["precision"], "enqueued" if "enqueued" in name else "recorded", result["tokens"],
              f"{result['latency_ms'] * 1000:.0f}", f"{result['latency_p99_ms'] * 1000:.0f}")
             for name, run, result in runs if name in ("alone and full", "1, enqueued")]
    out += ["## One prompt alone", ""] + table(("precision", "passes", "tokens", "p50, us", "p99, us"), alone,
                                               2)
    rates = {(name, run["precision"], result["tokens"]): result["queries_per_s"]
             for name, run, result in runs}
    plain = [(tokens, name, f"{rates[(name, 'f16', tokens)] / rate:.2f}")
             for (label, precision, tokens), rate in rates.items() if label.endswith(", enqueued")
             for name in [{"full, enqueued": "alone and full"}.get(label, label[:-len(", enqueued")])]
             if (name, precision, tokens) in rates]
    if plain:
        out += ["## Recorded passes beside plain launches", ""]
        out += table(("tokens", "pass", "recorded by enqueued, queries/s"), plain, 0)
    both = [(tokens, *(f"{rates[('full, two encoders', precision, tokens)]:.0f}"
                       if ("full, two encoders", precision, tokens) in rates else ""
                       for precision in ("f16", "bf16", "fp8")))
            for tokens in sorted({tokens for name, _, tokens in rates if name == "full, two encoders"})]
    if both:
        out += ["## Precisions, full batches by two encoders, queries/s", ""]
        out += table(("tokens", "f16", "bf16", "fp8"), both, 0)
    return out


def clocks(folder):
    try:
        with open(os.path.join(folder, "clocks.csv"), encoding="utf-8") as file:
            rows = [[float(cell) for cell in row] for row in csv.reader(file) if len(row) == 3]
    except (OSError, ValueError):
        return []
    if not rows:
        return []
    columns = list(zip(*rows))
    return [f"While measuring: {statistics.median(columns[0]):.0f} MHz in the median, {min(columns[0]):.0f} "
            f"at least; up to {max(columns[1]):.0f} W and {max(columns[2]):.0f} degrees.", ""]


def main():
    lines = read(sys.argv[1])
    folder = sys.argv[2]
    device = next((line for line in lines if line["kind"] == "device"), {"name": "no device was measured"})
    ceilings = [line for line in lines if line["kind"] == "ceiling"]
    bandwidth = max((line["gb_per_s"] for line in ceilings), default=None)
    peak = max((line["tflop_per_s"] for line in ceilings), default=None)
    out = [f"# {device['name']}", "", "Measured by `bench/gpu.sh`, f16 unless said otherwise.", ""]
    if "--quick" in sys.argv[3:]:
        out += ["**A quick run: tiny sizes, to try the script. Its times mean nothing.**", ""]
    if ceilings:
        out += [f"Ceilings: a copy moves {bandwidth:.0f} GB/s; a large product reaches {peak:.1f} TFLOP/s.",
                ""]
    out += clocks(folder) if "--quick" not in sys.argv[3:] else []
    steps = [(line["name"], line["result"]) for line in lines if line["kind"] == "step"]
    out += table(("step", "result"), steps, 2) if steps else []
    out += forward(lines, peak) + kernels(lines, bandwidth, peak)
    for precision in ("f16", "bf16", "fp8"):
        out += products(lines, precision, device.get("multiprocessors"), peak)
    cut = [line["at"] for line in lines if line["kind"] == "cut"]
    if cut:
        out += [f"Out of time before: {', '.join(cut)}.", ""]
    with open(os.path.join(folder, "gpu.md"), "w", encoding="utf-8") as file:
        file.write(re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", "\n".join(out))).rstrip() + "\n")
    with open(os.path.join(folder, "gpu.json"), "w", encoding="utf-8") as file:
        json.dump(lines, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
