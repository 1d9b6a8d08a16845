#!/usr/bin/env python3
"""The whole service on a CUDA device: the prompts of examples/prompts.txt through the 44M shape,
beside the CPU's answers.

The same prompts go to a service on the cpu engine in float32 and to services on the cuda engine. In float32
every decision must be the same and qualities within 1e-5; in f16 and bf16 qualities within the bars of
docs/EXACTNESS.md. Skipped (77) where there is no device. Programs and paths come from ctest's environment.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

DAEMON = os.environ["BESTROUTED"]
CLIENT = os.environ["BESTROUTE"]
SOURCE = os.environ["BESTROUTE_SOURCE"]
PROMPTS = os.path.join(SOURCE, "examples/prompts.txt")
POLICIES = {"threshold": ["--threshold", "0.5"], "budget": ["--policy", "budget", "--max-cost", "0.0005"]}

# precision, most a quality may differ from float32 on the CPU, least share of decisions that stay
CASES = (("f32", 1e-5, 1.0), ("f16", 5e-3, 0.95), ("bf16", 4e-2, 0.85))


def no_device():
    """Why the cuda engine cannot be used here, or None."""
    done = subprocess.run([DAEMON, "--bundle", os.path.join(SOURCE, "weights/tiny"), "--engine", "cuda",
                           "--check"],
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    reason = done.stderr.strip().splitlines()[-1]
    if "no CUDA device" in reason or "without CUDA" in reason:
        return reason
    raise SystemExit(f"the check failed: {done.stderr}")


@contextlib.contextmanager
def service(bundle, folder, *flags):
    url = f"ipc://{folder}/{len(os.listdir(folder))}.ipc"
    log_path = os.path.join(folder, f"{len(os.listdir(folder))}.log")
    with open(log_path, "w", encoding="utf-8") as log:
        # A virtual device takes minutes for a pass, and does not hang.
        process = subprocess.Popen([DAEMON, "--bundle", bundle, "--listen", url, "--pass-timeout-ms", "0",
                                    *flags],
                                   stderr=log)
    try:
        for _ in range(1200):
            if subprocess.run([CLIENT, "ping", "--url", url], capture_output=True,
                              check=False).returncode == 0:
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            raise SystemExit("the service did not start")
        if process.poll() is not None:
            with open(log_path, encoding="utf-8") as log:
                raise SystemExit(f"the service ended: {log.read()}")
        yield process, url, log_path
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, f"the service exited with {process.returncode}"
    finally:
        process.kill()
        process.wait()


def ask(url, op, *flags):
    done = subprocess.run([CLIENT, op, "--url", url, "--json", "--timeout-ms", "600000", *flags],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def answers(url):
    qualities = [row["quality"] for row in ask(url, "score", "--file", PROMPTS)]
    decisions = {name: [(row["model"], row["n"]) for row in ask(url, "route", "--file", PROMPTS, *flags)]
                 for name, flags in POLICIES.items()}
    return qualities, decisions


def compare(precision, tolerance, share, expected, got):
    worst = max(abs(a - b) for x, y in zip(expected[0], got[0]) for a, b in zip(x, y))
    pairs = [pair for name in POLICIES for pair in zip(expected[1][name], got[1][name])]
    same = sum(a == b for a, b in pairs)
    print(f"cuda {precision}: {len(expected[0])} prompts, worst quality {worst:.1e}, {same} of {len(pairs)} "
          "decisions the same")
    assert len(got[0]) == len(expected[0]) > 30
    assert worst <= tolerance, f"{precision}: a quality differs by {worst}, at most {tolerance}"
    assert same >= share * len(pairs), f"{precision}: {same} of {len(pairs)} decisions stay"


def check_reload(process, url, log_path):
    """A reload while prompts are being answered: every one of them is."""
    asking = subprocess.Popen([CLIENT, "score", "--url", url, "--json", "--timeout-ms", "600000", "--file",
                               PROMPTS], stdout=subprocess.PIPE, text=True)
    process.send_signal(signal.SIGHUP)
    out, _ = asking.communicate(timeout=300)
    assert asking.returncode == 0
    assert len(out.splitlines()) > 30
    for _ in range(600):
        with open(log_path, encoding="utf-8") as log:
            if log.read().count("bundle_loaded") >= 2:
                return
        time.sleep(0.1)
    raise SystemExit("the bundle was not loaded again")


def main():
    reason = no_device()
    if reason is not None:
        print(f"skipped: {reason}")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.path.join(folder, "bundle")
        subprocess.run([sys.executable, os.path.join(SOURCE, "weights/generate.py"), "--preset", "44m",
                        "--out", bundle],
                       check=True, stdout=subprocess.DEVNULL)
        with service(bundle, folder, "--engine", "cpu", "--precision", "f32") as (_, url, _):
            expected = answers(url)
        for precision, tolerance, share in CASES:
            with service(bundle, folder, "--engine", "cuda", "--precision", precision) as (_, url, _):
                compare(precision, tolerance, share, expected, answers(url))
        with service(bundle, folder) as (process, url, log_path):
            server = json.loads(subprocess.run([CLIENT, "info", "--url", url, "--json"], capture_output=True,
                                               text=True, check=True).stdout)["server"]
            assert server["engine"] == "cuda", f"auto chose {server['engine']}"
            assert server["precision"] == "f16", f"auto chose {server['precision']}"
            check_reload(process, url, log_path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
