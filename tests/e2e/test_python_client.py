#!/usr/bin/env python3
"""The Python client of examples/ against a running service, over tcp and over ipc.

Skipped (77) where Python has no msgpack library.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import msgpack  # noqa: F401
except ImportError:
    print("skipped: no msgpack library for", sys.executable, "(Debian: python3-msgpack)")
    sys.exit(77)

SOURCE = pathlib.Path(os.environ.get("BESTROUTE_SOURCE", pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(SOURCE / "examples"))
import client  # noqa: E402

PROMPTS = ["What is 2 + 2?", "Prove that the square root of 2 is irrational.", "", "naïve café 漢字"]


def start(ipc):
    """A service on a port of the system's choice: its process and the tcp address from its log."""
    service = subprocess.Popen(
        [os.environ["BESTROUTED"], "--bundle", str(SOURCE / "weights" / "tiny"), "--engine", "reference",
         "--workers", "1", "--max-text-bytes", "1000", "--listen", "tcp://127.0.0.1:0", "--listen", ipc],
        stderr=subprocess.PIPE, text=True)
    tcp = None
    for line in service.stderr:
        if found := re.search(r"listening url=(tcp://\S+)", line):
            tcp = found.group(1)
        if tcp and re.search(r" bundle_loaded ", line):
            return service, tcp
    raise SystemExit("the service ended: " + str(service.wait()))


def check(url):
    connection = client.Client(url)
    assert connection.call("ping", id="hello")["id"] == "hello"
    info = connection.call("info")
    models = {candidate["model"] for candidate in info["candidates"]}
    assert set(info["models"]) >= models, info

    reply = connection.call("route", queries=[{"text": text} for text in PROMPTS], id=42, explain=True)
    assert reply["id"] == 42 and len(reply["results"]) == len(PROMPTS)
    for result in reply["results"]:
        assert result["model"] in models and 0 <= result["quality"] <= 1 and result["margin"] >= 0, result
        assert len(result["candidates"]) == len(info["candidates"])
    assert reply["bundle"] == info["bundle"]

    scores = connection.call("score",
                             queries=[{"text": PROMPTS[0]}, {"text": PROMPTS[0], "tokens": []}])["results"]
    assert len(scores[0]["quality"]) == len(info["candidates"])
    assert scores[0]["quality"][info["reference"]] == 1
    assert scores[1]["error"]["code"] == "bad_request"

    for bad, words in (({"policy": {"threshold": "x"}}, "bad_request: policy.threshold"),
                       ({}, "queries: missing"),
                       ({"queries": [{"text": "x" * 1001}]}, "too_large: queries[0].text")):
        try:
            connection.call("route", **{"queries": [{"text": "a"}], **bad} if bad else {})
        except RuntimeError as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)
    assert connection.call("ping")["ok"]


def main():
    with tempfile.TemporaryDirectory() as folder:
        ipc = "ipc://" + folder + "/socket"
        service, tcp = start(ipc)
        subprocess.run([os.environ["BESTROUTE"], "ping", "--url", ipc, "--wait-ms", "60000"], check=True,
                       capture_output=True)
        try:
            for url in (tcp, ipc):
                check(url)
                print("passed:", url.split("://")[0])
            shown = subprocess.run([sys.executable, str(SOURCE / "examples" / "client.py"), tcp] + PROMPTS,
                                   capture_output=True, text=True, check=True).stdout
            assert len(shown.splitlines()) == len(PROMPTS), shown
            print("passed: the program")
        finally:
            service.terminate()
            assert service.wait(30) == 0


main()
