#!/usr/bin/env python3
"""/metrics, /healthz and /readyz of a running service. Programs and paths come from ctest's environment."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.environ["BESTROUTE_SOURCE"], "examples"))
try:
    import client  # noqa: E402
except ImportError as error:
    print("SKIPPED:", error)
    sys.exit(77)

DAEMON = os.environ["BESTROUTED"]
CLIENT = os.environ["BESTROUTE"]
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
    """Every sample's value by name; fails on a line that Prometheus would not take."""
    values, kinds = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds and kind in ("counter", "gauge"), line
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = re.fullmatch(r'([a-zA-Z_][a-zA-Z0-9_]*)(?:\{[a-z]+="[^"\\]*"\})? ([0-9.]+)', line)
            assert found, line
            assert found[1] in kinds and found[1] not in values, line
            assert (kinds[found[1]] == "counter") == found[1].endswith("_total"), line
            values[found[1]] = float(found[2])
    return values


def main():
    with tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{free_port()}"
        data = f"ipc://{folder}/data"
        service = subprocess.Popen([DAEMON, "--bundle", TINY, "--listen", data, "--engine", "reference", "--metrics", url,
                                    "--score-cache-mb", "1"], stderr=subprocess.DEVNULL)
        try:
            subprocess.run([CLIENT, "ping", "--url", data, "--wait-ms", "60000"], check=True, capture_output=True)
            assert get(url + "/healthz")[0] == 200
            assert get(url + "/readyz")[0] == 200
            assert get(url + "/other")[0] == 404
            status, kind, text = get(url + "/metrics")
            assert status == 200 and kind.startswith("text/plain; version=0.0.4"), kind
            before = parse(text)
            assert before["bestroute_ready"] == 1 and before["bestroute_devices"] == 1
            assert before["bestroute_queries_total"] == 0
            for _ in range(2):
                done = subprocess.run([CLIENT, "route", "--url", data, "--json", "hello", "good evening"], check=True,
                                      capture_output=True, text=True)
                assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2
            after = parse(get(url + "/metrics")[2])
            assert after["bestroute_queries_total"] == 4, after
            assert after["bestroute_queries_scored_total"] == after["bestroute_cache_hits_total"] == 2, after
            assert after["bestroute_compute_seconds_total"] > 0
            assert after["bestroute_queue_seconds_total"] >= 0
            assert after["bestroute_queries_waiting"] == 0
            assert before.keys() == after.keys()

            taken = subprocess.run([DAEMON, "--bundle", TINY, "--listen", f"ipc://{folder}/b", "--engine", "noop",
                                    "--metrics", url], capture_output=True, text=True, timeout=60, check=False)
            assert taken.returncode == 1 and "metrics: cannot serve" in taken.stderr and url in taken.stderr, taken.stderr
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
        draining = subprocess.Popen([DAEMON, "--bundle", TINY, "--listen", f"ipc://{folder}/c", "--engine", "noop",
                                     "--admin", admin, "--metrics", url], stderr=subprocess.DEVNULL)
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
            assert parse(get(url + "/metrics")[2])["bestroute_ready"] == 0
        finally:
            draining.kill()
            draining.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
