#!/usr/bin/env python3
"""How much a precision changes: qualities and decisions of two engine settings over the same prompts.

    bench/compare_precisions.py BUILD_FOLDER BUNDLE PROMPTS [--first reference:f32] [--second cpu:bf16]

PROMPTS has one prompt a line, or JSON objects with `text` or `prompt` (also gzipped). Prints a Markdown
table: the largest and the mean difference of a quality,
and per policy the share of prompts whose (model, n) changes.
"""
import argparse
import gzip
import json
import os
import subprocess
import tempfile
import time

POLICIES = {
    "the bundle's default": [],
    "threshold 0.3": ["--threshold", "0.3"],
    "threshold 0.5": ["--threshold", "0.5"],
    "threshold 0.7": ["--threshold", "0.7"],
    "budget 0.0005 USD": ["--policy", "budget", "--max-cost", "0.0005"],
    "utility 100 per USD": ["--lambda", "100"],
    "tolerance 0.05": ["--tolerance", "0.05"],
}


def prompts_of(path, limit):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            line = line.strip()
            if not line or limit == 0:
                continue
            limit -= 1
            record = json.loads(line) if line.startswith("{") else {"text": line}
            yield record.get("text") or record["prompt"]


class Service:
    def __init__(self, build, bundle, setting, folder):
        engine, precision = setting.split(":")
        self.client = os.path.join(build, "bestroute")
        self.url = f"ipc://{folder}/{engine}-{precision}"
        self.process = subprocess.Popen(
            [os.path.join(build, "bestrouted"), "--bundle", bundle, "--engine", engine,
             "--precision", precision, "--listen", self.url], stderr=subprocess.DEVNULL)
        for _ in range(600):
            if subprocess.run([self.client, "ping", "--url", self.url], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"the service did not start with {setting}")

    def ask(self, op, path, *options):
        out = subprocess.run([self.client, op, "--url", self.url, "--json", "--jsonl",
                              "--timeout-ms", "3600000", "--file", path, *options],
                             check=True, capture_output=True, text=True)
        return [json.loads(line) for line in out.stdout.splitlines()]

    def stop(self):
        self.process.terminate()
        self.process.wait()


def answers(args, setting, path, folder):
    service = Service(args.build, args.bundle, setting, folder)
    try:
        scores = [row["quality"] for row in service.ask("score", path)]
        routes = {}
        for name, options in POLICIES.items():
            routes[name] = [(row["model"], row["n"]) for row in service.ask("route", path, *options)]
        return scores, routes
    finally:
        service.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("bundle")
    parser.add_argument("prompts")
    parser.add_argument("--first", default="cpu:f32")
    parser.add_argument("--second", default="cpu:bf16")
    parser.add_argument("--limit", type=int, default=-1, help="use only so many prompts")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "prompts.jsonl")
        with open(path, "w", encoding="utf-8") as out:
            for text in prompts_of(args.prompts, args.limit):
                out.write(json.dumps({"text": text}) + "\n")
        first_scores, first_routes = answers(args, args.first, path, folder)
        second_scores, second_routes = answers(args, args.second, path, folder)

    differences = [abs(a - b) for x, y in zip(first_scores, second_scores) for a, b in zip(x, y)]
    print(f"{len(first_scores)} prompts, {args.second} against {args.first}: quality differs by "
          f"{max(differences):.1e} at most, {sum(differences) / len(differences):.1e} on average.\n")
    print("| policy | decisions changed |\n| --- | --- |")
    for name in POLICIES:
        pairs = list(zip(first_routes[name], second_routes[name]))
        changed = sum(a != b for a, b in pairs)
        print(f"| {name} | {changed} of {len(pairs)} ({100 * changed / len(pairs):.2f} %) |")


if __name__ == "__main__":
    main()
