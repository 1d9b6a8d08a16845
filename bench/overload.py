#!/usr/bin/env python3
"""A service offered several times what it can do: what it still does, how fast it refuses the rest, its
memory, and how soon it is itself again.

    bench/overload.py BUILD_FOLDER BUNDLE [--times 3] [--seconds 60]
        [--flags "--queue-max 64 --max-queries 64"]

Where it may, the load generator runs at real-time priority: on cores that are busy with the encoder its own
wait for one would else count as the service's. Capacity is what a closed loop reaches just before. Recovery
is measured in the second second after the load has ended, next to the same client alone before it. Prints
Markdown; exits 1 when replies are lost or of a wrong kind.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time


def take_precedence():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("bundle")
    parser.add_argument("--times", type=float, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--words", default="20")
    parser.add_argument("--flags", default="--queue-max 64 --max-queries 64")
    args = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    url = f"ipc://{scratch.name}/service"
    service = subprocess.Popen([os.path.join(args.build, "bestrouted"), "--bundle", args.bundle,
                                "--listen", url, "--log-level", "error", *args.flags.split()])
    try:
        sys.exit(measure(args, url, service, scratch.name))
    finally:
        service.terminate()
        service.wait()


def measure(args, url, service, scratch):
    ping = [os.path.join(args.build, "bestroute"), "ping", "--url", url]
    until = time.monotonic() + 120
    while subprocess.run(ping, capture_output=True).returncode != 0:
        if service.poll() is not None or time.monotonic() > until:
            return "the service did not become ready"
        time.sleep(0.1)

    def load(*options):
        report = os.path.join(scratch, "report.json")
        subprocess.run([os.path.join(args.build, "bestroute-bench"), "--url", url, "--lengths", args.words,
                        "--json", report, *map(str, options)], check=True, capture_output=True,
                       preexec_fn=take_precedence)
        with open(report) as file:
            return json.load(file)["runs"][0]

    def resident_mib():
        with open(f"/proc/{service.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    alone = load("--in-flight", 1, "--seconds", 5)["latency_ms"]
    capacity = load("--in-flight", 32, "--seconds", 8)["queries_per_s"]
    memory = []
    ended = threading.Event()

    def watch():
        while not ended.wait(0.5):
            memory.append(resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    overload = load("--rate", args.times * capacity, "--seconds", args.seconds)
    ended.set()
    watcher.join()
    after = load("--in-flight", 1, "--warmup", 1, "--seconds", 1)["latency_ms"]

    settled = memory[len(memory) // 4:] # contexts and arenas reach their size in the first quarter
    refused, refusal = overload["errors"].get("overloaded", 0), overload["refusal_ms"]
    print("| | |\n| --- | ---: |")
    print(f"| capacity, 32 in flight | {capacity:.1f}/s |")
    print(f"| offered for {args.seconds:.0f} s | {args.times * capacity:.1f}/s |")
    print(f"| answered | {overload['queries_per_s']:.1f}/s, {100 * overload['queries_per_s'] / capacity:.0f} "
          "% of capacity |")
    print(f"| their latency | p50 {overload['latency_ms']['p50']:.0f} ms, p99 "
          f"{overload['latency_ms']['p99']:.0f} ms |")
    print(f"| refused | {refused} of {overload['sent']}: p50 {refusal['p50']:.2f} ms, p99 "
          f"{refusal['p99']:.2f} ms, max {refusal['max']:.2f} ms |")
    print(f"| resident memory | {settled[0]:.1f} MiB after a quarter, {settled[-1]:.1f} at the end, most "
          f"{max(memory):.1f} |")
    print(f"| one client alone | p50 {alone['p50']:.1f} ms, p99 {alone['p99']:.1f} ms |")
    print(f"| the same, 1 to 2 s after the load | p50 {after['p50']:.1f} ms, p99 {after['p99']:.1f} ms |")
    wrong = {code: count for code, count in overload["errors"].items() if code != "overloaded"}
    return f"not answered as they should be: {wrong}" if wrong else 0


if __name__ == "__main__":
    main()
