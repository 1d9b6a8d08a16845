#!/usr/bin/env python3
"""How the service leaves: with 0 when told to, also when the transport hangs while it is closed; at once when
told again; and not when its log goes nowhere."""
import os
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.environ["BESTROUTE_SOURCE"]
PATIENCE_S = 60


def start(folder, log=subprocess.DEVNULL, **more):
    """A service that is ready. `more`: environment."""
    url = f"ipc://{folder}/service"
    environment = dict(os.environ, **more)
    # A preloaded library stands before a sanitizer's.
    environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    service = subprocess.Popen([os.environ["BESTROUTED"], "--bundle", f"{ROOT}/weights/tiny",
                                "--engine", "noop", "--listen", url], env=environment, stderr=log)
    until = time.monotonic() + PATIENCE_S
    while subprocess.run([os.environ["BESTROUTE"], "ping", "--url", url],
                         capture_output=True).returncode != 0:
        assert service.poll() is None and time.monotonic() < until, "the service did not become ready"
        time.sleep(0.05)
    return service


def leave(service, *signals):
    """Seconds from the last signal to the end, which has to be an orderly one."""
    for number in signals:
        service.send_signal(number)
        time.sleep(0.5)
    began = time.monotonic()
    try:
        assert service.wait(PATIENCE_S) == 0, service.returncode
    finally:
        service.kill()
    return time.monotonic() - began


def test_told_once_it_leaves(folder):
    leave(start(folder), signal.SIGTERM)


def test_a_transport_that_hangs_does_not_keep_it(folder):
    leave(start(folder, LD_PRELOAD=os.environ["HANG_CLOSE"]), signal.SIGTERM)


def test_told_again_it_does_not_wait_for_the_transport(folder):
    assert leave(start(folder, LD_PRELOAD=os.environ["HANG_CLOSE"]), signal.SIGTERM, signal.SIGINT) < 3


def serves_after_a_reload(service, folder):
    """A reload is logged."""
    service.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    return subprocess.run([os.environ["BESTROUTE"], "ping",
                           "--url", f"ipc://{folder}/service"]).returncode == 0


def test_a_log_that_nobody_reads_does_not_end_it(folder):
    service = start(folder, subprocess.PIPE)
    service.stderr.close()
    try:
        assert serves_after_a_reload(service, folder)
    finally:
        leave(service, signal.SIGTERM)


def test_a_full_disk_under_the_log_does_not_end_it(folder):
    with open("/dev/full", "w") as full:
        service = start(folder, full)
        try:
            assert serves_after_a_reload(service, folder)
        finally:
            leave(service, signal.SIGTERM)


def main():
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            test(folder)
        print(f"{name}: passed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
