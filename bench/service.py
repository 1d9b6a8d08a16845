#!/usr/bin/env python3
"""What the service adds: round trips without an encoder next to a bare nng echo and one that hands each
message to another thread and back, and one client's latency with it.

    bench/service.py BUILD_FOLDER BUNDLE [--seconds S] [--rounds N]

Every figure alternates between the two sides within one run and the median of the rounds is taken, since
machines are shared and noisy. Prints Markdown.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time


def measure(bench, url, in_flight, seconds, *options):
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([bench, "--url", url, "--in-flight", str(in_flight), "--seconds", str(seconds),
                        "--warmup", str(seconds / 10), "--json", file.name, *map(str, options)], check=True,
                       capture_output=True)
        return json.load(file)["runs"][0]


def wait_until(action, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("build")
    parser.add_argument("bundle")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=35571)
    args = parser.parse_args()
    bench = os.path.join(args.build, "bestroute-bench")
    daemon = os.path.join(args.build, "bestrouted")
    client = os.path.join(args.build, "bestroute")

    with tempfile.TemporaryDirectory() as scratch:
        transports = {
            "tcp": [f"tcp://127.0.0.1:{args.port + i}" for i in range(3)],
            "ipc": [f"ipc://{scratch}/{name}" for name in ("echo", "over", "service")],
        }
        running = []

        def start(*command):
            running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            return running[-1]

        def ready(url):
            wait_until(lambda: subprocess.run([client, "ping", "--url", url], check=True,
                                              capture_output=True))

        try:
            for echo, over, _ in transports.values():
                start(bench, "--echo", echo)
                start(bench, "--echo", over, "--hand-over")
            noop = start(daemon, "--engine", "noop", "--bundle", args.bundle,
                         "--listen", transports["tcp"][-1], "--listen", transports["ipc"][-1])
            ready(transports["ipc"][-1])

            print("| transport | requests in flight | bare echo, requests/s | echo with hand-over | service "
                  "without encoder | share of the bare echo | share of the hand-over echo | p50 bare echo | "
                  "p50 service |")
            print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            for name, urls in transports.items():
                for contexts in (1, 8, 64, 256):
                    # rounds[side]: the bare echo's, the one's that hands over, the service's
                    rounds = list(zip(*([measure(bench, url, contexts, args.seconds, "--raw") for url in urls]
                                        for _ in range(args.rounds))))
                    rates = [[row["requests_per_s"] for row in side] for side in rounds]
                    p50 = [1000 * statistics.median(row["latency_ms"]["p50"] for row in side)
                           for side in rounds]
                    ratio = [statistics.median(ours / theirs for ours, theirs in zip(rates[2], rates[i]))
                             for i in (0, 1)]
                    print(f"| {name} | {contexts} | "
                          + " | ".join(f"{statistics.median(side):,.0f}" for side in rates)
                          + f" | {ratio[0]:.2f} | {ratio[1]:.2f} | {p50[0]:.0f} us | {p50[2]:.0f} us |",
                          flush=True)
            for what, flags in (("text", ()), ("tokens", ("--tokens", args.bundle))):
                rows = [measure(bench, transports["ipc"][-1], 8, args.seconds, "--queries", 64, *flags)
                        for _ in range(args.rounds)]
                print(f"\n64 prompts of 20 words a request as {what}, ipc, 8 requests in flight, client "
                      f"included: {statistics.median(r['queries_per_s'] for r in rows):,.0f} prompts/s.")
            noop.terminate()
            noop.wait()

            full = f"ipc://{scratch}/full"
            start(daemon, "--bundle", args.bundle, "--listen", full)
            ready(full)
            rows = [measure(bench, full, 1, args.seconds) for _ in range(args.rounds)]
            trips = [1000 * row["latency_ms"]["p50"] for row in rows]
            encoder = [1000 * row["compute_ms"]["p50"] for row in rows]
            added = statistics.median(trip - compute for trip, compute in zip(trips, encoder))
            print("\nOne client, one prompt of 20 words, with the encoder: p50 "
                  f"{statistics.median(trips):.0f} us for the round trip, of which "
                  f"{statistics.median(encoder):.0f} us in the encoder: the service and the transport add "
                  f"{added:.0f} us.")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


if __name__ == "__main__":
    main()
