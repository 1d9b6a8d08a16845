#!/usr/bin/env python3
"""Two processes that load as one: the same bundle on both or the old one on both, whoever dies or stays away.

Each process has a device of its own. Skipped (77) where there are fewer than two CUDA devices or no NCCL. Programs and
paths come from ctest's environment.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DAEMON = os.environ["BESTROUTED"]
CLIENT = os.environ["BESTROUTE"]
SOURCE = os.environ["BESTROUTE_SOURCE"]
TINY = os.path.join(SOURCE, "weights/tiny")
TIMEOUT_MS = 4000
# How long a virtual device's library itself waits; a real one is governed by ranks_timeout_ms alone.
ENVIRONMENT = dict(os.environ, VGPU_NCCL_TIMEOUT_MS=str(TIMEOUT_MS))


def no_devices():
    done = subprocess.run([DAEMON, "--bundle", TINY, "--engine", "cuda", "--devices", "0,1", "--check"],
                          capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


class Rank:
    def __init__(self, folder, rank, bundle):
        self.rank = rank
        self.url = f"ipc://{folder}/rank{rank}.ipc"
        self.log_path = os.path.join(folder, f"rank{rank}.log")
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [DAEMON, "--bundle", bundle, "--listen", self.url, "--engine", "cuda", "--precision", "f32",
                 "--devices", str(rank), "--workers", "1", "--ranks", "2", "--rank", str(rank),
                 "--ranks-id", os.path.join(folder, "id"), "--ranks-timeout-ms", str(TIMEOUT_MS)],
                stderr=log, env=ENVIRONMENT)

    def log(self):
        with open(self.log_path, encoding="utf-8") as log:
            return log.read()

    def events(self, name):
        return [line for line in self.log().splitlines() if name in line]

    def wait_ready(self):
        for _ in range(600):
            if subprocess.run([CLIENT, "ping", "--url", self.url], capture_output=True, check=False).returncode == 0:
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        raise SystemExit(f"rank {self.rank} did not start: {self.log()}")

    def score(self):
        done = subprocess.run([CLIENT, "score", "--url", self.url, "--json", "hello"], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[0])["quality"]

    def hash(self):
        done = subprocess.run([CLIENT, "info", "--url", self.url, "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["bundle"]["hash"]

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def wait_event(self, name, count):
        for _ in range(600):
            if len(self.events(name)) >= count:
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        raise SystemExit(f"rank {self.rank} never logged {name} {count} times: {self.log()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log()


def change(bundle):
    """Another bundle by its hash, which scores the same."""
    with open(os.path.join(bundle, "router.json"), "a", encoding="utf-8") as file:
        file.write("\n")


def main():
    reason = no_devices()
    if reason is not None:
        print(f"SKIPPED: {reason}")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        bundles = [shutil.copytree(TINY, os.path.join(folder, f"bundle{rank}")) for rank in range(2)]
        ranks = [Rank(folder, rank, bundles[rank]) for rank in range(2)]
        try:
            for rank in ranks:
                rank.wait_ready()
            alone = [event for rank in ranks for event in rank.events("loading_alone")]
            if any("NCCL: libnccl" in event or "without NCCL" in event for event in alone):
                print(f"SKIPPED: {alone[0]}")
                return 77
            assert not alone, alone
            assert ranks[0].score() == ranks[1].score(), "weights that came from rank 0 score otherwise"
            print("both started as one")

            first = ranks[0].hash()
            for bundle in bundles:
                change(bundle)
            for rank in ranks:
                rank.reload()
            for rank in ranks:
                rank.wait_event("bundle_loaded", 2)
            second = ranks[0].hash()
            assert second != first and ranks[1].hash() == second
            assert ranks[0].score() == ranks[1].score()
            print("both reloaded as one")

            change(bundles[0])
            for rank in ranks:
                rank.reload()
            for rank in ranks:
                rank.wait_event("bundle_refused", 1)
                assert rank.hash() == second, "a bundle the other rank does not have was taken"
                assert "another rank has another bundle" in rank.events("bundle_refused")[-1], rank.log()
            print("different bundles were refused by both")

            change(bundles[1])
            os.rename(os.path.join(bundles[1], "spm.model"), os.path.join(bundles[1], "away"))
            for rank in ranks:
                rank.reload()
            for rank in ranks:
                rank.wait_event("bundle_refused", 2)
                assert rank.hash() == second
            os.rename(os.path.join(bundles[1], "away"), os.path.join(bundles[1], "spm.model"))
            print("a bundle that one cannot load was taken by none")

            began = time.monotonic()
            ranks[0].reload()
            ranks[0].wait_event("bundle_refused", 3)
            assert time.monotonic() - began < 3 * TIMEOUT_MS / 1000, "it waited too long for a rank that stayed away"
            assert ranks[0].hash() == second and len(ranks[0].score()) > 0
            print("a rank that stayed away was given up")

            # Killed at moments that fall before, in and after the meeting.
            for number, delay in enumerate((0.0, 0.02, 0.1, 0.3)):
                refused = len(ranks[0].events("bundle_refused"))
                loaded = len(ranks[0].events("bundle_loaded"))
                for rank in ranks:
                    rank.reload()
                time.sleep(delay)
                ranks[1].process.kill()
                ranks[1].process.wait()
                for _ in range(600):
                    if len(ranks[0].events("bundle_refused")) + len(ranks[0].events("bundle_loaded")) > refused + loaded:
                        break
                    assert len(ranks[0].score()) > 0
                    time.sleep(0.1)
                else:
                    raise SystemExit(f"rank 0 hangs: {ranks[0].log()}")
                assert len(ranks[0].score()) > 0
                ranks[1] = Rank(folder, 1, bundles[1])
                ranks[1].wait_ready()
                print(f"killed {delay} s into the reload: rank 0 serves on, and rank 1 came back alone")

            loaded = [len(rank.events("bundle_loaded")) for rank in ranks]
            for rank in ranks:
                rank.reload()
            for rank, before in zip(ranks, loaded):
                rank.wait_event("bundle_loaded", before + 1)
            assert ranks[0].hash() == ranks[1].hash()
            print("and the next reload finds both")
            for rank in ranks:
                rank.stop()
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
