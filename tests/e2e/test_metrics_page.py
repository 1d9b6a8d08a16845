#!/usr/bin/env python3
"""/metrics, /healthz and /readyz of a running service. Programs and paths come from ctest's environment."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import exposition

sys.path.insert(0, os.path.join(os.environ["BESTROUTE_SOURCE"], "examples"))
try:
    import client  # noqa: E402
except ImportError as error:
    print("SKIPPED:", error)
    sys.exit(77)

DAEMON = os.environ["BESTROUTED"]
CLIENT = os.environ["BESTROUTE"]
PROMTOOL = shutil.which("promtool")
TINY = os.path.join(os.environ["BESTROUTE_SOURCE"], "weights/tiny")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def parse(text):
    """Every sample that has no labels by its name, and all of them by name and labels."""
    samples, _ = exposition.parse(text)
    if PROMTOOL is not None:
        subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, check=True)
    return {name: value for (name, labels), value in samples.items() if not labels}, samples


def refuses(text):
    try:
        exposition.parse(text)
    except AssertionError:
        return True
    return False


def test_the_reader_is_strict():
    good = ("# HELP a_seconds x\n# TYPE a_seconds histogram\n"
            'a_seconds_bucket{le="0.1"} 1\na_seconds_bucket{le="+Inf"} 2\na_seconds_sum 3\na_seconds_count '
            '2\n')
    exposition.parse(good)
    for what, instead in (("# HELP a_seconds x\n", ""),
                          ("# HELP a_seconds x", "# HELP a_seconds x\n# HELP a_seconds y"),
                          ("# TYPE a_seconds histogram\n", ""), ('"0.1"', '"x"'), ('"+Inf"', '"0.05"'),
                          ("} 1", "} 3"),
                          ("count 2", "count 3"), ("sum 3", "sum -3"),
                          ("a_seconds_sum 3\n", "a_seconds_sum 3\na_seconds_sum 3\n"),
                          ("a_seconds_count", "b_seconds_count"), ('{le="0.1"}', '{le="0.1",}'),
                          ("} 1", "}  1"),
                          ("count 2\n", "count 2")):
        assert what in good and refuses(good.replace(what, instead)), (what, instead)
    assert refuses("# HELP a x\n# TYPE a counter\na 1\n") and not refuses("# HELP a_total x\n# TYPE a_total "
                                                                          "counter\na_total 1\n")


def check_histograms(values, samples, requests, passes):
    """Histograms against the counters beside them."""
    for name in ("request", "request_tokenize", "request_queue", "request_compute"):
        assert values[f"bestroute_{name}_seconds_count"] == requests, name
    for name in ("tokenize", "queue", "compute"):
        part = values[f"bestroute_request_{name}_seconds_sum"]
        assert part <= values["bestroute_request_seconds_sum"], name
    device = frozenset({("device", "0"), ("engine", "reference")})
    assert samples[("bestroute_pass_seconds_count", device)] == values["bestroute_batches_total"] == passes
    assert samples[("bestroute_pass_queries_sum", device)] == values["bestroute_queries_scored_total"]
    assert samples[("bestroute_pass_tokens_sum", device)] == values["bestroute_tokens_total"]
    took = values["bestroute_compute_seconds_total"]
    assert 0 < samples[("bestroute_pass_seconds_sum", device)] <= took
    assert values["bestroute_request_compute_seconds_sum"] > 0


def test_every_device_has_passes_of_its_own(folder):
    url, data = f"http://127.0.0.1:{free_port()}", f"ipc://{folder}/two"
    service = subprocess.Popen([DAEMON, "--bundle", TINY, "--listen", data, "--devices", "cpu,cpu",
                                "--metrics", url],
                               stderr=subprocess.DEVNULL)
    try:
        subprocess.run([CLIENT, "ping", "--url", data, "--wait-ms", "60000"], check=True, capture_output=True)
        subprocess.run([CLIENT, "route", "--url", data, *map(str, range(40))], check=True,
                       capture_output=True)
        values, samples = parse(get(url + "/metrics")[2])
        passes = [samples[("bestroute_pass_seconds_count",
                           frozenset({("device", str(d)), ("engine", "cpu")}))] for d in (0, 1)]
        assert sum(passes) == values["bestroute_batches_total"] > 0, passes
        assert values["bestroute_devices"] == 2
    finally:
        service.kill()
        service.wait()


def test_slow_readers_keep_nobody_out(folder):
    """With few descriptors to spare, ten times as many connections that never finish a request: prompts are
    routed, and probes answered, as before."""
    url, data = f"http://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    service = subprocess.Popen(["prlimit", "--nofile=128", DAEMON, "--bundle", TINY, "--listen", data,
                                "--engine", "reference", "--metrics", url], stderr=subprocess.DEVNULL)
    slow = []
    try:
        subprocess.run([CLIENT, "ping", "--url", data, "--wait-ms", "60000"], check=True, capture_output=True)
        before = len(os.listdir(f"/proc/{service.pid}/fd"))
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        for _ in range(400):
            one = socket.create_connection(address, timeout=20)
            one.send(b"GET /metrics HTTP/1.1\r\nHost: ")
            slow.append(one)
        assert len(os.listdir(f"/proc/{service.pid}/fd")) <= before + 33
        for _ in range(3):
            subprocess.run([CLIENT, "route", "--url", data, "hello"], check=True, capture_output=True)
            assert get(url + "/healthz")[0] == 200
            parse(get(url + "/metrics")[2])
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    finally:
        for one in slow:
            one.close()
        service.kill()
        service.wait()


def main():
    test_the_reader_is_strict()
    if PROMTOOL is None:
        print("SKIPPED: promtool's own check of the page, it is not installed")
    with tempfile.TemporaryDirectory() as folder:
        test_every_device_has_passes_of_its_own(folder)
        test_slow_readers_keep_nobody_out(folder)
        url = f"http://127.0.0.1:{free_port()}"
        data = f"ipc://{folder}/data"
        service = subprocess.Popen([DAEMON, "--bundle", TINY, "--listen", data, "--engine", "reference",
                                    "--metrics", url, "--score-cache-mb", "1"], stderr=subprocess.DEVNULL)
        try:
            subprocess.run([CLIENT, "ping", "--url", data, "--wait-ms", "60000"], check=True,
                           capture_output=True)
            assert get(url + "/healthz")[0] == 200
            assert get(url + "/readyz")[0] == 200
            assert get(url + "/other")[0] == 404
            status, kind, text = get(url + "/metrics")
            assert status == 200 and kind.startswith("text/plain; version=0.0.4"), kind
            before, _ = parse(text)
            assert before["bestroute_ready"] == 1 and before["bestroute_devices"] == 1
            assert before["bestroute_queries_total"] == 0
            for _ in range(2):
                done = subprocess.run([CLIENT, "route", "--url", data, "--json", "hello", "good evening"],
                                      check=True, capture_output=True, text=True)
                assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2
            after, samples = parse(get(url + "/metrics")[2])
            check_histograms(after, samples, requests=2, passes=after["bestroute_batches_total"])
            assert after["bestroute_queries_total"] == 4, after
            assert after["bestroute_queries_scored_total"] == after["bestroute_cache_hits_total"] == 2, after
            assert after["bestroute_compute_seconds_total"] > 0
            assert after["bestroute_queue_seconds_total"] >= 0
            assert after["bestroute_queries_waiting"] == 0
            assert before.keys() == after.keys()

            taken = subprocess.run([DAEMON, "--bundle", TINY, "--listen", f"ipc://{folder}/b",
                                    "--engine", "noop", "--metrics", url], capture_output=True, text=True,
                                   timeout=60, check=False)
            assert taken.returncode == 1, taken.stderr
            assert "metrics: cannot serve" in taken.stderr and url in taken.stderr, taken.stderr
            wrong = subprocess.run([DAEMON, "--bundle", TINY, "--engine", "noop", "--metrics", "ftp://x"],
                                   capture_output=True, text=True, timeout=60, check=False)
            assert wrong.returncode == 1 and "expected http://" in wrong.stderr, wrong.stderr
            service.send_signal(signal.SIGTERM)
            assert service.wait(60) == 0
        finally:
            service.kill()
            service.wait()

        # Draining: alive, not ready. Nobody stops a service that was only told to drain.
        admin = f"ipc://{folder}/admin"
        draining = subprocess.Popen([DAEMON, "--bundle", TINY, "--listen", f"ipc://{folder}/c",
                                     "--engine", "noop", "--admin", admin, "--metrics", url],
                                    stderr=subprocess.DEVNULL)
        try:
            subprocess.run([CLIENT, "ping", "--url", f"ipc://{folder}/c", "--wait-ms", "60000"], check=True,
                           capture_output=True)
            assert get(url + "/readyz")[0] == 200
            connection = client.Client(admin)
            connection.call("drain")
            for _ in range(200):
                if get(url + "/readyz")[0] == 503:
                    break
                time.sleep(0.05)
            assert get(url + "/readyz")[0] == 503
            assert get(url + "/healthz")[0] == 200
            assert parse(get(url + "/metrics")[2])[0]["bestroute_ready"] == 0
        finally:
            draining.kill()
            draining.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
