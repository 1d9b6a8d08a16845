#!/usr/bin/env python3
"""Turns the JSON lines of bench/gpu.sh into tables: gpu_report.py LINES OUT_FOLDER writes gpu.md and gpu.json there."""
import json
import math
import os
import re
import sys

TILE = 128
PRODUCTS = (("qkv", 18), ("attention_output", 6), ("ffn_up_gelu", 24), ("ffn_down", 6))  # tiles across


def wave_share(tokens, multiprocessors):
    """How full the last waves of the four products' 128 x 128 tiles are."""
    down = math.ceil(tokens / TILE)
    tiles = sum(down * across for _, across in PRODUCTS)
    slots = sum(math.ceil(down * across / multiprocessors) * multiprocessors for _, across in PRODUCTS)
    return tiles / slots * tokens / (down * TILE)


def multiprocessors_of(device):
    """From the engine's own full batch, which is the wave-aligned one: enough to predict the optima."""
    return {2816: 132, 2304: 108}.get(device["batch_tokens"])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    for line in lines:
        if "us" in line:
            line["gb_per_s"] = line["bytes"] / line["us"] * 1e-3
            line["tflop_per_s"] = line["flops"] / line["us"] * 1e-6
    device = next(line for line in lines if line["kind"] == "device")
    ceilings = {line["name"]: line for line in lines if line["kind"] == "ceiling"}
    bandwidth = ceilings["copy"]["gb_per_s"]
    peak = ceilings["large product"]["tflop_per_s"]
    out = [f"# {device['name']}", "", f"Measured by `bench/gpu.sh`, {device['precision']} unless said otherwise.", "",
           f"Ceilings: a copy moves {bandwidth:.0f} GB/s; a large product reaches {peak:.1f} TFLOP/s.", ""]
    out += ["## Kernels at a full batch", "", "| kernel | tokens | length | us | GB/s | of copy | TFLOP/s | of product |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for line in lines:
        if line["kind"] == "kernel":
            out.append(f"| {line['name']} | {line['tokens']} | {line['length'] or ''} | {line['us']:.2f} | "
                       f"{line['gb_per_s']:.0f} | {line['gb_per_s'] / bandwidth:.2f} | {line['tflop_per_s']:.1f} | "
                       f"{line['tflop_per_s'] / peak:.2f} |")
    out += ["", "## Products of a layer by tokens", ""]
    multiprocessors = multiprocessors_of(device)
    predicted = f" | waves full at {multiprocessors} multiprocessors" if multiprocessors else ""
    products = [line for line in lines if line["kind"] == "product"]
    out += ["| tokens | " + " | ".join(f"{name}, us | TFLOP/s" for name, _ in PRODUCTS) + predicted + " |",
            "| ---: |" + " ---: |" * (2 * len(PRODUCTS) + (1 if predicted else 0))]
    for tokens in sorted({line["tokens"] for line in products}):
        cells = []
        for name, _ in PRODUCTS:
            found = [line for line in products if line["name"] == name and line["tokens"] == tokens]
            cells.append(f"{found[0]['us']:.1f} | {found[0]['tflop_per_s']:.0f}" if found else "| ")
        share = f" | {wave_share(tokens, multiprocessors):.2f}" if predicted else ""
        out.append(f"| {tokens} | " + " | ".join(cells) + share + " |")
    out += ["", "## The forward pass", "",
            "| precision | passes | tokens | prompts per pass | queries/s | TFLOP/s | of product | one prompt alone, us |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for line in lines:
        if line["kind"] != "forward":
            continue
        run = line["run"]
        for result in run["results"]:
            passes = "enqueued" if line["flag"] == "--plain" else "recorded"
            out.append(f"| {run['precision']} | {passes} | {result['tokens']} | {result['batch']} | "
                       f"{result['queries_per_s']:.0f} | {result['gflops'] / 1000:.1f} | "
                       f"{result['gflops'] / 1000 / peak:.2f} | {result['latency_ms'] * 1000:.0f} |")
    cut = [line["at"] for line in lines if line["kind"] == "cut"]
    if cut:
        out += ["", f"Out of time before: {', '.join(cut)}."]
    with open(os.path.join(sys.argv[2], "gpu.md"), "w", encoding="utf-8") as file:
        file.write(re.sub(r" +\n", "\n", "\n".join(out)) + "\n")
    with open(os.path.join(sys.argv[2], "gpu.json"), "w", encoding="utf-8") as file:
        json.dump(lines, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
