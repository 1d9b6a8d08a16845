#!/usr/bin/env python3
"""How the service leaves: with 0 when told to, also when the transport hangs while it is closed; at once when
told again; and not when its log goes nowhere."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.environ["BESTROUTE_SOURCE"]
PATIENCE_S = 60


def begin(folder, bundle=f"{ROOT}/weights/tiny", log=subprocess.DEVNULL, **more):
    """A service that may not be ready yet. `more`: environment."""
    url = f"ipc://{folder}/service"
    environment = dict(os.environ, **more)
    # A preloaded library stands before a sanitizer's.
    environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return subprocess.Popen([os.environ["BESTROUTED"], "--bundle", bundle, "--engine", "noop",
                             "--listen", url], env=environment, stderr=log)


def start(folder, log=subprocess.DEVNULL, bundle=f"{ROOT}/weights/tiny", **more):
    """A service that is ready."""
    url = f"ipc://{folder}/service"
    service = begin(folder, bundle, log, **more)
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


def wait_until_signals_are_blocked(service):
    """main has begun; before that the system decides what a signal does."""
    wanted = 1 << signal.SIGTERM - 1
    until = time.monotonic() + PATIENCE_S
    while True:
        with open(f"/proc/{service.pid}/status", encoding="ascii") as status:
            blocked = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk")]
        if blocked and blocked[0] & wanted:
            return
        assert service.poll() is None and time.monotonic() < until, "signals were never blocked"


def test_a_stop_in_the_first_moments_is_obeyed(folder):
    for delay in (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3):
        service = begin(folder)
        wait_until_signals_are_blocked(service)
        time.sleep(delay)
        leave(service, signal.SIGTERM)


def test_a_reload_in_the_first_moments_is_not_lost(folder):
    path = f"{folder}/log"
    with open(path, "w", encoding="utf-8") as log:
        service = begin(folder, log=log)
    try:
        wait_until_signals_are_blocked(service)
        service.send_signal(signal.SIGHUP)
        until = time.monotonic() + PATIENCE_S
        while True:
            with open(path, encoding="utf-8") as log:
                if log.read().count(" bundle_loaded ") == 2:
                    break
            assert service.poll() is None and time.monotonic() < until, "the bundle was not loaded twice"
            time.sleep(0.05)
    finally:
        leave(service, signal.SIGTERM)


def copy_bundle(to):
    os.makedirs(to)
    for name in os.listdir(f"{ROOT}/weights/tiny"):
        shutil.copy(f"{ROOT}/weights/tiny/{name}", to)


def make_huge(bundle, more=20 << 30):
    """Adds a tensor to the weights that is a hole in the file: minutes to hash, no room on the disk."""
    path = f"{bundle}/model.safetensors"
    with open(path, "rb") as weights:
        size = int.from_bytes(weights.read(8), "little")
        header = json.loads(weights.read(size))
        data = weights.read()
    header["spare"] = {"dtype": "U8", "shape": [more], "data_offsets": [len(data), len(data) + more]}
    text = json.dumps(header).encode()
    with open(f"{path}.new", "wb") as weights:
        weights.write(len(text).to_bytes(8, "little") + text + data)
        weights.truncate(weights.tell() + more)
    os.rename(f"{path}.new", path)


def test_the_first_bundle_is_given_up_when_told_to_stop(folder):
    copy_bundle(f"{folder}/bundle")
    make_huge(f"{folder}/bundle")
    service = begin(folder, f"{folder}/bundle")
    time.sleep(1)
    assert service.poll() is None, "the bundle was loaded too fast for this test, or refused"
    assert leave(service, signal.SIGTERM) < 3


def test_a_reload_is_given_up_when_told_again(folder):
    copy_bundle(f"{folder}/bundle")
    service = start(folder, bundle=f"{folder}/bundle")
    make_huge(f"{folder}/bundle")
    service.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert leave(service, signal.SIGTERM, signal.SIGTERM) < 3


def test_a_disk_that_hangs_does_not_keep_it(folder):
    service = begin(folder, LD_PRELOAD=os.environ["HANG_READ"])
    time.sleep(1)
    assert leave(service, signal.SIGTERM, signal.SIGTERM) < 5


def test_threads_that_cannot_be_started_are_an_error_with_a_name(folder):
    """With every number of threads, until there are enough to serve."""
    with open(os.environ["BESTROUTED"], "rb") as program:
        if b"san_init" in program.read():
            print("passed over: a sanitizer has its own way to start threads")
            return
    for most in range(200):
        path = f"{folder}/log"
        with open(path, "w", encoding="utf-8") as log:
            service = begin(folder, log=log, LD_PRELOAD=os.environ["FEW_THREADS"], THREADS_MAX=str(most))
        until = time.monotonic() + PATIENCE_S
        ready = False
        while service.poll() is None and not ready:
            with open(path, encoding="utf-8") as log:
                ready = " bundle_loaded " in log.read()
            assert time.monotonic() < until, f"neither an error nor a service with {most} threads"
            time.sleep(0.005)
        if ready:
            leave(service, signal.SIGTERM)
            assert most > 10
            return
        with open(path, encoding="utf-8") as log:
            last = log.read().splitlines()[-1]
        assert service.returncode == 1 and "cannot start" in last, (most, service.returncode, last)
    raise AssertionError("200 threads do not suffice")


def test_check_tries_urls_and_tls_files(folder):
    """Without opening anything: an address that is in use is no error."""
    pem = f"{folder}/no.pem"
    with open(pem, "w", encoding="ascii") as file:
        file.write("not PEM")
    tls = "tls+tcp://127.0.0.1:5"
    for arguments, says in (
            (["--listen", "tcp://127.0.0.1:1"], None),
            (["--listen", "tcp://127.0.0.1:no-port"], "tcp://127.0.0.1:no-port"),
            (["--listen", tls, "--tls-cert", f"{folder}/x", "--tls-key", pem], f"tls_cert: {folder}/x"),
            (["--listen", tls, "--tls-cert", pem, "--tls-key", pem], "was refused"),
            (["--listen", tls, "--tls-cert", folder, "--tls-key", pem], "a folder")):
        done = subprocess.run([os.environ["BESTROUTED"], "--check", "--engine", "noop",
                               "--bundle", f"{ROOT}/weights/tiny", *arguments],
                              capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == (0 if says is None else 1), (arguments, done)
        assert says is None or says in done.stderr, (arguments, done.stderr)


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
