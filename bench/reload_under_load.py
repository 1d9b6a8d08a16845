#!/usr/bin/env python3
"""Reloads under full load: two bundles take turns in a service that clients keep busy,
and every reply is looked at.

    python3 bench/reload_under_load.py BUILD_FOLDER [--seconds 60] [--every 1]

Fails when a request fails, when a reply's qualities are not those of the bundle it names, or when memory or
open files grow with the reloads. Prints Markdown. Needs a msgpack library (Debian: python3-msgpack).
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE / "examples"))
try:
    import client
except ImportError:
    print("skipped: no msgpack library for", sys.executable, "(Debian: python3-msgpack)")
    sys.exit(77)

TEXTS = [f"question {i}: " + "and what of it " * (i % 11) for i in range(32)]
CLIENTS, QUERIES = 4, 16  # so many requests are under way, of so many prompts
TOLERANCE = 1e-4  # float32; company in a batch rounds differently
RELOADS_LEAST = 12  # fewer show no leak


def start(build, bundle, folder):
    listen, admin = f"ipc://{folder}/data.ipc", f"ipc://{folder}/admin.ipc"
    service = subprocess.Popen(
        [os.path.join(build, "bestrouted"), "--bundle", bundle, "--listen", listen, "--admin", admin,
         "--engine", "cpu", "--precision", "f32"], stderr=subprocess.PIPE, text=True)
    for line in service.stderr:
        if " bundle_loaded " in line:
            threading.Thread(target=service.stderr.read, daemon=True).start()
            return service, listen.removeprefix("ipc://"), admin.removeprefix("ipc://")
    raise SystemExit("the service ended: " + str(service.wait()))


def sizes(process):
    """Resident memory in kB and open files."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]), len(os.listdir(f"/proc/{process.pid}/fd"))


def score(connection, texts):
    return connection.call("score", queries=[{"text": text} for text in texts])


def learn(connection):
    """The bundle that serves, and the qualities it gives each text."""
    reply = score(connection, TEXTS)
    return reply["bundle"]["hash"], [result["quality"] for result in reply["results"]]


def distance(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


class Asker(threading.Thread):
    def __init__(self, url, number, known, leave):
        super().__init__()
        self.connection, self.number, self.known, self.leave = client.Client(url), number, known, leave
        self.answers, self.failed, self.mixed, self.seconds = {hash: 0 for hash in known}, [], 0, []

    def look(self, reply, at):
        expected = self.known.get(reply["bundle"]["hash"])
        good = expected is not None and len(reply["results"]) == QUERIES
        for i, result in enumerate(reply["results"]):
            good = good and "quality" in result and distance(
                result["quality"], expected[(at + i) % len(TEXTS)]) <= TOLERANCE
        self.mixed += not good
        if expected is not None:
            self.answers[reply["bundle"]["hash"]] += 1

    def run(self):
        at = self.number * len(TEXTS) // CLIENTS
        while not self.leave.is_set():
            began = time.monotonic()
            try:
                reply = score(self.connection, [TEXTS[(at + i) % len(TEXTS)] for i in range(QUERIES)])
            except (OSError, RuntimeError) as error:
                self.failed.append(str(error))
                return
            self.seconds.append(time.monotonic() - began)
            self.look(reply, at)
            at += QUERIES + 1


def slope(points):
    """Of a straight line through points one step apart."""
    middle, mean = (len(points) - 1) / 2, sum(points) / len(points)
    return sum((i - middle) * (y - mean) for i, y in enumerate(points)) / sum(
        (i - middle) ** 2 for i in range(len(points)))


def reload_for(args, service, admin, bundles):
    """Reloads in turn; how long each took, and the sizes after it."""
    took, memory, files = [], [], []
    began = time.monotonic()
    while len(took) * args.every < args.seconds:
        time.sleep(max(0, began + len(took) * args.every - time.monotonic()))
        at = time.monotonic()
        admin.call("reload", bundle=bundles[(len(took) + 1) % 2])
        took.append(time.monotonic() - at)
        for values, value in zip((memory, files), sizes(service)):
            values.append(value)
    return took, memory, files


def check(args, askers, memory, files):
    """What is wrong, or nothing."""
    growth = slope(memory[len(memory) // 2 :])
    yield from (f"a request failed: {text}" for asker in askers for text in asker.failed)
    if any(asker.mixed for asker in askers):
        yield "a reply's qualities are not those of the bundle it names"
    if not all(sum(asker.answers[hash] for asker in askers) for hash in askers[0].known):
        yield "one of the bundles answered nothing"
    if growth > args.growth_kb:
        yield f"memory grows by {growth:.0f} kB a reload"
    # a passing probe of a listener has some open
    if min(files[len(files) // 2 :]) > min(files[: len(files) // 2]):
        yield f"open files grow: {files}"


def run(args, bundles, folder):
    service, url, admin_url = start(args.build, bundles[0], folder)
    try:
        connection, admin = client.Client("ipc://" + url), client.Client("ipc://" + admin_url, 120)
        known = dict([learn(connection)])
        admin.call("reload", bundle=bundles[1])
        known.update([learn(connection)])
        admin.call("reload", bundle=bundles[0])
        first, second = known.values()
        assert min(map(distance, first,
                       second)) > 10 * TOLERANCE, "the bundles cannot be told apart by their qualities"

        leave = threading.Event()
        askers = [Asker("ipc://" + url, i, known, leave) for i in range(CLIENTS)]
        before = admin.call("stats")["stats"]
        began = time.monotonic()
        for asker in askers:
            asker.start()
        took, memory, files = reload_for(args, service, admin, bundles)
        leave.set()
        for asker in askers:
            asker.join()
        wall = time.monotonic() - began
        after = admin.call("stats")["stats"]
    finally:
        service.terminate()
        code = service.wait(60)

    latency = sorted(second for asker in askers for second in asker.seconds)
    computed = (after["compute_ns"] - before["compute_ns"]) / 1e9 / wall
    at = lambda values, share: sorted(values)[int(share * (len(values) - 1))]
    print("| | |\n| --- | ---: |")
    print(f"| reloads in {wall:.0f} s | {len(took)} |")
    print(f"| a reload took, median and longest | {1000 * at(took, .5):.0f} ms, {1000 * max(took):.0f} ms |")
    print(f"| requests of {QUERIES} prompts answered, by bundle | "
          f"{' + '.join(str(sum(asker.answers[hash] for asker in askers)) for hash in known)} |")
    print(f"| failed, mixed | {sum(len(asker.failed) for asker in askers)}, "
          f"{sum(asker.mixed for asker in askers)} |")
    print("| latency p50, p99, longest | "
          f"{', '.join(f'{1000 * at(latency, s):.0f} ms' for s in (.5, .99, 1))} |")
    print(f"| scoring threads that were computing, mean | {computed:.2f} |")
    tenths = [memory[i * (len(memory) - 1) // 10] for i in range(11)]
    print(f"| resident MB, at every tenth of the run | {', '.join(f'{kb / 1024:.0f}' for kb in tenths)} |")
    print("| growth a reload in the second half, by a straight line through it | "
          f"{slope(memory[len(memory) // 2 :]):.1f} kB |")
    print(f"| open files: at the beginning, at most, at the end | {files[0]}, {max(files)}, {files[-1]} |")
    wrong = list(check(args, askers, memory, files))
    if code != 0:
        wrong.append(f"the service ended with {code}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=1, help="seconds from one reload to the next")
    parser.add_argument("--growth-kb", type=float, default=256,
                        help="of memory a reload, before it counts as a leak")
    args = parser.parse_args()
    if args.seconds < args.every * RELOADS_LEAST:
        parser.error(f"fewer than {RELOADS_LEAST} reloads show no leak")
    with tempfile.TemporaryDirectory() as folder:
        bundles = [os.path.join(folder, f"bundle{seed}") for seed in (1, 2)]
        for seed, bundle in enumerate(bundles, 1):
            subprocess.run([sys.executable, SOURCE / "weights/generate.py", "--hidden", "256",
                            "--layers", "3", "--ffn", "1024", "--seed", str(seed), "--out", bundle],
                           check=True, stdout=subprocess.DEVNULL)
        wrong = run(args, bundles, folder)
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
