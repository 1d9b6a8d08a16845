#!/usr/bin/env python3
"""bestroute-bench against real services: counts add up, schedules are kept, late sends are not hidden. No
time is judged but where a service is made slow on purpose. Programs and paths come from ctest's environment.
"""
import contextlib
import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BENCH = os.environ["BESTROUTE_BENCH"]
TINY = os.path.join(os.environ["BESTROUTE_SOURCE"], "weights/tiny")


def bench(*flags, good=True):
    done = subprocess.run([BENCH, *map(str, flags)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == good, (flags, done.returncode, done.stdout, done.stderr)
    return done


def report(folder, *flags):
    path = os.path.join(folder, "report.json")
    bench(*flags, "--json", path)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@contextlib.contextmanager
def echo_at(folder, *flags):
    """A bare transport's url and process."""
    url = f"ipc://{folder}/echo"
    echo = subprocess.Popen([BENCH, "--echo", url, *flags])
    try:
        for _ in range(200):
            if os.path.exists(f"{folder}/echo"):
                break
            time.sleep(0.02)
        yield url, echo
    finally:
        echo.kill()
        echo.wait()


def errors(run):
    return sum(count for name, count in run["errors"].items() if not name.startswith("query_"))


def test_counts_add_up(folder):
    found = report(folder, "--noop", TINY, "--in-flight", 4, "--queries", 3, "--seconds", 0.5,
                   "--warmup", 0.1)
    run = found["runs"][0]
    assert run["sent"] == run["answered"] == run["ok"] > 0, run
    assert errors(run) == 0
    assert abs(run["queries_per_s"] / run["requests_per_s"] - 3) < 1e-6
    assert sum(run["batches"].values()) == run["ok"]
    latencies = [run["latency_ms"][level] for level in ("p50", "p90", "p95", "p99", "max")]
    assert latencies == sorted(latencies)
    assert run["server_cores"] is not None
    assert found["service"]["engine"] == "noop" and len(found["service"]["hash"]) == 64
    assert found["machine"]["cores"] >= 1


def test_a_count_of_requests_ends_the_run(folder):
    for load in (["--in-flight", 5], ["--rate", 2000]):
        run = report(folder, "--noop", TINY, "--requests", 101, "--seconds", 60, "--warmup", 0,
                     *load)["runs"][0]
        assert run["sent"] == run["ok"] == 101, run


def test_an_open_loop_sends_what_the_schedule_says(folder):
    for flags in ([], ["--poisson"]):
        run = report(folder, "--noop", TINY, "--rate", 400, "--seconds", 1, "--warmup", 0.2,
                     *flags)["runs"][0]
        assert abs(run["sent"] - 400) <= (1 if not flags else 100), run
        assert run["ok"] == run["sent"]


def test_prompts_tokens_lengths_and_policies_are_taken(folder):
    prompts = os.path.join(folder, "prompts.txt")
    with open(prompts, "w", encoding="utf-8") as file:
        file.write("hello\ngood evening, how are you\n\n")
    for flags in (["--prompts", prompts], ["--lengths", "3-9"], ["--lengths", "12~0.5"], ["--tokens", TINY],
                  ["--score"],
                  ["--policy", "budget", "--max-cost", "0.01"],
                  ["--policy", "pool", "--total-budget", "0.5", "--queries", 2]):
        run = report(folder, "--noop", TINY, "--requests", 20, "--warmup", 0, *flags)["runs"][0]
        assert run["ok"] == 20 and not run["errors"], (flags, run)
        assert run["tokens_per_s"] > 0


def test_refusals_are_counted_by_code(folder):
    run = report(folder, "--noop", TINY, "--service-flags", "--max-queries 2", "--queries", 3,
                 "--requests", 10, "--warmup", 0)["runs"][0]
    assert run["errors"] == {"too_large": 10}, run
    assert run["ok"] == 0 and run["refusal_ms"]["max"] > 0
    run = report(folder, "--noop", TINY, "--policy", "threshold", "--threshold", 7, "--requests", 10,
                 "--warmup", 0)["runs"][0]
    assert run["errors"] == {"bad_request": 10}, run


def test_sweeps_tables_and_comparisons(folder):
    stem = os.path.join(folder, "sweep")
    for sweep, key in (("in-flight:1,3", "in_flight"), ("rate:200,300.5", "rate")):
        out = bench("--noop", TINY, "--sweep", sweep, "--seconds", 0.3, "--warmup", 0,
                    "--json", stem + ".json", "--csv", stem + ".csv")
        with open(stem + ".json", encoding="utf-8") as file:
            runs = json.load(file)["runs"]
        assert [run[key] for run in runs] == [float(x) for x in sweep.split(":")[1].split(",")]
        with open(stem + ".csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["sent"]) for row in rows] == [run["sent"] for run in runs]
        assert "requests/s" in out.stdout
        compared = bench("--compare", stem + ".json", stem + ".json").stdout
        ratios = [line.split()[-1] for line in compared.splitlines() if line.startswith("  requests_per_s")]
        assert ratios == ["1.000", "1.000"], compared
        assert re.findall(r"^ *([0-9.]+)(?:/s| in flight) ", out.stdout,
                          re.MULTILINE) == sweep.split(":")[1].split(","), out.stdout


def test_the_engine_alone(folder):
    out = bench("--engine", TINY, "--service-flags", "--engine reference --workers 2", "--seconds", 0.3,
                "--json", os.path.join(folder, "engine.json")).stdout
    assert "2 workers" in out and "engine reference" in out
    path = os.path.join(folder, "engine.json")
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    run, = found["runs"]
    assert run["queries_per_s"] > 0 and run["one_ms"] > 0 and found["service"]["engine"] == "reference"
    assert re.search(r"one_ms .* 1\.000\n", bench("--compare", path, path).stdout)


def test_the_table_says_what_was_measured_on_what(folder):
    out = bench("--noop", TINY, "--requests", 10, "--warmup", 0, "--queries", 2, "--policy", "budget",
                "--max-cost", "0.01", "--connections", 2, "--rate", 1000).stdout
    for part in ("machine  ", " cores, ", " GiB, Linux ", "engine noop", "precision ",
                 "bundle   tiny-random ", "route by budget", "2 prompts a request of 20 words",
                 "open loop, constant rate, 2 connections", "requests/s", "p99.9 ms", "in the service, "
                                                                                      "p50/p99 ms: tokenize ",
                 "queue ", "compute ", "total ", "requests by queries in their pass: "):
        assert part in out, (part, out)
    out = bench("--noop", TINY, "--requests", 10, "--warmup", 0, "--service-flags", "--max-queries 2",
                "--queries", 3).stdout
    assert "errors: too_large: 10" in out and "refused within: " in out, out


def test_a_line_on_a_terminal_follows_the_run(folder):
    leader, follower = pty.openpty()
    running = subprocess.Popen([BENCH, "--noop", TINY, "--rate", "500", "--seconds", "1.5", "--warmup", "0.6",
                                "--json", os.path.join(folder, "r.json")], stdout=subprocess.DEVNULL,
                               stderr=follower)
    os.close(follower)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal without writers ends
        while more := os.read(leader, 4096):
            said += more
    os.close(leader)
    assert running.wait(60) == 0
    assert b"500/s  warming up" in said and b"500/s  measured" in said and b" queries/s  p50 " in said, said


def test_an_echo_that_hands_over_answers_everything_by_one_more_thread(folder):
    threads = []
    for flags in [], ["--hand-over"]:
        with echo_at(folder, *flags) as (url, echo):
            run = report(folder, "--url", url, "--raw", "--requests", 500, "--warmup", 0,
                         "--in-flight", 64)["runs"][0]
            assert run["answered"] == run["sent"] == 500, run
            threads.append(len(os.listdir(f"/proc/{echo.pid}/task")))
        os.remove(f"{folder}/echo")
    assert threads[1] == threads[0] + 1, threads


def test_an_echo_and_raw_replies(folder):
    with echo_at(folder) as (url, echo):
        run = report(folder, "--url", url, "--raw", "--requests", 50, "--warmup", 0,
                     "--in-flight", 3)["runs"][0]
        assert run["ok"] == 50, run
        # What comes back is the request itself, which is no reply.
        run = report(folder, "--url", url, "--requests", 5, "--warmup", 0)["runs"][0]
        assert run["errors"] == {"broken": 5} and run["ok"] == 0, run
        # While the echo stands still for half a second, an open loop's requests wait from when they were due;
        # a closed loop's never come about.
        flags = ["--url", url, "--raw", "--seconds", 2, "--warmup", 0,
                 "--json", os.path.join(folder, "report.json")]
        waits = {}
        for name, load in (("open", ["--rate", 200, "--in-flight", 2]), ("closed", ["--in-flight", 1])):
            running = subprocess.Popen([BENCH, *map(str, flags), *map(str, load)], stdout=subprocess.DEVNULL)
            time.sleep(0.7)
            echo.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            echo.send_signal(signal.SIGCONT)
            assert running.wait(60) == 0
            with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
                waits[name] = json.load(file)["runs"][0]
        assert waits["open"]["latency_ms"]["p90"] > 100, waits["open"]
        assert waits["open"]["late_ms"]["max"] > 300
        assert abs(waits["open"]["sent"] - 400) <= 1
        assert waits["closed"]["latency_ms"]["p90"] < 100, waits["closed"]
        assert waits["closed"]["latency_ms"]["max"] > 300


def test_requests_that_are_never_answered_time_out(folder):
    with echo_at(folder) as (url, echo):
        started = subprocess.Popen([BENCH, "--url", url, "--raw", "--rate", "100", "--seconds", "1",
                                    "--warmup", "0", "--timeout-ms", "300",
                                    "--json", os.path.join(folder, "mute.json")],
                                   stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        echo.send_signal(signal.SIGSTOP)
        assert started.wait(60) == 0
        with open(os.path.join(folder, "mute.json"), encoding="utf-8") as file:
            run = json.load(file)["runs"][0]
        assert run["errors"].get("timed_out", 0) > 10, run
        assert run["sent"] == run["answered"] + errors(run), run


def test_arrivals_are_recorded(folder):
    path = os.path.join(folder, "trace")
    run = report(folder, "--noop", TINY, "--rate", 200, "--requests", 30, "--warmup", 0, "--queries", 2,
                 "--connections", 3, "--deadline-ms", 5000, "--record", path)["runs"][0]
    assert run["ok"] == 30, run
    with open(path, encoding="utf-8") as file:
        assert file.readline() == "# us client tokens deadline_ms\n"
        rows = [[int(x) for x in line.split(" ")] for line in file]
    assert len(rows) == 60 and {row[1] for row in rows} <= {0, 1, 2} and {row[3] for row in rows} == {5000}
    times = [row[0] for row in rows]
    assert times == sorted(times) and len(set(times)) == 30 and 100e3 < times[-1] - times[0]
    assert abs(sum(row[2] for row in rows) / len(rows) - run["tokens_per_s"] / run["queries_per_s"]) < 1e-6


def test_a_bench_that_is_killed_leaves_no_service(folder):
    del folder
    running = subprocess.Popen([BENCH, "--noop", TINY, "--seconds", "60", "--warmup", "0"],
                               stdout=subprocess.PIPE, text=True)
    while not running.stdout.readline().startswith("bundle"):  # the service has answered
        assert running.poll() is None
    with open(f"/proc/{running.pid}/task/{running.pid}/children", encoding="utf-8") as file:
        service, = file.read().split()
    with open(f"/proc/{service}/cmdline", encoding="utf-8") as file:
        scratch = os.path.dirname(re.search("ipc://([^\0]+)", file.read())[1])
    running.kill()
    running.wait()
    running.stdout.close()
    for _ in range(600):
        if not os.path.exists(f"/proc/{service}"):
            break
        with open(f"/proc/{service}/stat", encoding="utf-8") as stat:
            if stat.read().split()[2] == "Z":
                break
        time.sleep(0.1)
    else:
        raise AssertionError(f"{service} is still there")
    shutil.rmtree(scratch)


def test_wrong_options_are_named(folder):
    del folder
    for flags, says in (([], "expected one of --url"),
                        (["--url", "ipc:///x", "--echo", "ipc:///y"], "expected one of"),
                        (["--rate", "x", "--url", "u"], "--rate: found \"x\""),
                        (["--in-flight", "0", "--url", "u"], "--in-flight"),
                        (["--in-flight", "1.5", "--url", "u"], "whole number"),
                        (["--sweep", "up:1", "--url", "u"], "--sweep"),
                        (["--sweep", "rate:1,,2", "--url", "u"], "--sweep"), (["--bogus"], "--bogus"),
                        (["--policy", "best", "--url", "u"], "--policy"),
                        (["--record", "f", "--raw", "--url", "u"], "--record"),
                        (["--compare", "a"], "two files"),
                        (["--compare", "/nowhere", "/nowhere"], "/nowhere"),
                        (["--lengths", "9-3", "--url", "u"], "9-3"),
                        (["--prompts", "/nowhere", "--url", "u"], "/nowhere"),
                        (["--url", "ipc:///nowhere"], "ipc:///nowhere"),
                        (["--noop", "/nowhere"], "ended before it was ready"),
                        (["--engine", "/nowhere"], "/nowhere")):
        said = bench(*flags, good=False).stderr
        assert says in said, (flags, said)
        assert said.startswith("bestroute-bench: ") or "/nowhere" in str(flags), (flags, said)


def main():
    for name, test in list(globals().items()):
        if re.match("test_", name):
            with tempfile.TemporaryDirectory() as folder:
                test(folder)
            print(f"ok  {name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
