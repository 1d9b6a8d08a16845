#!/usr/bin/env python3
"""Processes that load as one: the same bundle on all or the old one on all, whoever dies,
hangs or stays away.

Each process has a device of its own: two of them, and four where there are as many devices. Skipped (77)
where there are fewer than two CUDA devices or no NCCL. Programs and paths come from ctest's environment.
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


def no_devices(count):
    devices = ",".join(str(device) for device in range(count))
    done = subprocess.run([DAEMON, "--bundle", TINY, "--engine", "cuda", "--devices", devices, "--check"],
                          capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def until(true, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(what())
        time.sleep(0.05)


class Rank:
    def __init__(self, folder, rank, count, bundle):
        self.rank = rank
        self.bundle = bundle
        self.url = f"ipc://{folder}/rank{rank}.ipc"
        self.admin = f"ipc://{folder}/admin{rank}.ipc"
        self.log_path = os.path.join(folder, f"rank{rank}.log")
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [DAEMON, "--bundle", bundle, "--listen", self.url, "--admin", self.admin, "--engine", "cuda",
                 "--precision", "f32", "--devices", str(rank), "--workers", "1", "--ranks", str(count),
                 "--rank", str(rank), "--ranks-id", os.path.join(folder, "id"),
                 "--ranks-timeout-ms", str(TIMEOUT_MS)],
                stderr=log, env=ENVIRONMENT)

    def log(self):
        with open(self.log_path, encoding="utf-8") as log:
            return log.read()

    def events(self, name):
        return [line for line in self.log().splitlines() if name in line]

    def ended(self):
        """Loads that came to an end, one way or the other."""
        return len(self.events("bundle_loaded")) + len(self.events("bundle_refused"))

    def wait_ended(self, count):
        def done():
            assert self.process.poll() is None, self.log()
            return self.ended() >= count
        until(done, lambda: f"rank {self.rank} hangs: {self.log()}")

    def wait_event(self, name, count):
        def done():
            assert self.process.poll() is None, self.log()
            return len(self.events(name)) >= count
        until(done, lambda: f"rank {self.rank} never logged {name} {count} times: {self.log()}")

    def ask(self, command, *arguments):
        done = subprocess.run([CLIENT, command, "--url", self.url, "--json", *arguments], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr + self.log()
        return json.loads(done.stdout.splitlines()[0])

    def score(self):
        return self.ask("score", "hello")["quality"]

    def hash(self):
        return self.ask("info")["bundle"]["hash"]

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log()

    def kill(self):
        self.process.kill()
        self.process.wait()


def change(bundle):
    """Another bundle by its hash, which scores the same."""
    with open(os.path.join(bundle, "router.json"), "a", encoding="utf-8") as file:
        file.write("\n")


class Fleet:
    def __init__(self, folder, count):
        self.folder = folder
        bundles = [shutil.copytree(TINY, os.path.join(folder, f"bundle{rank}")) for rank in range(count)]
        self.ranks = [Rank(folder, rank, count, bundles[rank]) for rank in range(count)]
        for rank in self.ranks:
            rank.wait_event("bundle_loaded", 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.kill()

    def no_nccl(self):
        alone = [event for rank in self.ranks for event in rank.events("loading_alone")]
        if any("NCCL: libnccl" in event or "without NCCL" in event for event in alone):
            return alone[0]
        assert not alone, alone
        return None

    def change_all(self):
        for rank in self.ranks:
            change(rank.bundle)

    def check_one(self):
        """All have one bundle and score alike; its hash."""
        hashes = {rank.hash() for rank in self.ranks}
        assert len(hashes) == 1, hashes
        assert len({str(rank.score()) for rank in self.ranks}) == 1
        return hashes.pop()

    def load(self, command):
        """Has rank 0 load, and waits until all are through with it, whatever came of it."""
        ended = [rank.ended() for rank in self.ranks]
        command(self.ranks[0])
        for number, before in enumerate(ended):
            self.ranks[number].wait_ended(before + 1)

    def start_again(self, number):
        self.ranks[number] = Rank(self.folder, number, len(self.ranks), self.ranks[number].bundle)


def by_signal(rank):
    rank.reload()


def by_name(folder):
    def command(rank):
        done = subprocess.run([CLIENT, "reload", "--admin", rank.admin, folder], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr + rank.log()
    return command


def check_one_command(fleet):
    first = fleet.check_one()
    fleet.change_all()
    fleet.load(by_signal)
    second = fleet.check_one()
    assert second != first
    print("rank 0 was told to reload, and all did")

    fleet.change_all()
    loaded = [len(rank.events("bundle_loaded")) for rank in fleet.ranks]
    for rank in reversed(fleet.ranks):
        rank.reload()
    for rank, before in zip(fleet.ranks, loaded):
        rank.wait_event("bundle_loaded", before + 1)
    assert fleet.check_one() not in (first, second)
    time.sleep(1)  # a call that was answered is not answered again
    assert [rank.ended() for rank in fleet.ranks] == [before + 1 for before in loaded]
    print("all were told to reload, and did so once")


def check_folder(fleet):
    """Leaves the fleet with a folder in common."""
    before = fleet.check_one()
    other = shutil.copytree(TINY, os.path.join(fleet.folder, "other"))
    fleet.load(by_name(other))
    assert fleet.check_one() != before
    assert all(f"folder={other}" in rank.events("bundle_loaded")[-1] for rank in fleet.ranks)
    print("rank 0 was told of another folder, and all loaded that")


def check_refusals(fleet):
    ranks = fleet.ranks
    present = fleet.check_one()

    def refused(says):
        before = [len(rank.events("bundle_refused")) for rank in ranks]
        fleet.load(by_signal)
        for rank, count in zip(ranks, before):
            assert len(rank.events("bundle_refused")) == count + 1, rank.log()
            assert says in rank.events("bundle_refused")[-1], rank.log()
        assert fleet.check_one() == present

    change(ranks[0].bundle)
    refused("another rank has another bundle")
    print("different bundles were refused by all")

    for rank in ranks[1:]:
        change(rank.bundle)
    vocabulary = os.path.join(ranks[-1].bundle, "spm.model")
    os.rename(vocabulary, vocabulary + ".away")
    refused("")  # the others only know that it left
    os.rename(vocabulary + ".away", vocabulary)
    print("a bundle that one cannot load was taken by none")


def serves_on(rank, ended, moment):
    """The rank answers while it waits for the others, and gives them up in time."""
    began = time.monotonic()
    while rank.ended() == ended:
        assert len(rank.score()) > 0
        assert time.monotonic() - began < 60, f"rank {rank.rank} hangs: {rank.log()}"
    assert len(rank.score()) > 0
    print(f"{moment}: rank {rank.rank} serves on")


def wait_until_all_came(fleet, ended):
    """The file of the call is there until they have; it may be gone before it is seen."""
    call = os.path.join(fleet.folder, "id")
    while not os.path.exists(call) and fleet.ranks[0].ended() == ended[0]:
        time.sleep(0.002)
    while os.path.exists(call):
        time.sleep(0.002)


def check_hang(fleet):
    """A rank that is stopped: before the meeting, and after it has come to it."""
    *others, last = fleet.ranks
    for moment in ("before", "during"):
        present = fleet.check_one()
        fleet.change_all()
        ended = [rank.ended() for rank in fleet.ranks]
        if moment == "before":
            last.process.send_signal(signal.SIGSTOP)
            fleet.ranks[0].reload()
        else:
            fleet.ranks[0].reload()
            wait_until_all_came(fleet, ended)
            last.process.send_signal(signal.SIGSTOP)
        for rank, before in zip(others, ended):
            serves_on(rank, before, f"a rank hung {moment} the meeting")
        last.process.send_signal(signal.SIGCONT)
        if moment == "during":  # else it never heard of it
            last.wait_ended(ended[-1] + 1)
        kept = fleet.ranks[0].hash() == present
        assert kept or moment == "during"  # it may hang when all had agreed already
        fleet.load(by_signal)
        assert fleet.check_one() != present
        print("and the next reload finds all, with the new bundle")


def check_caller_comes_back(fleet):
    fleet.ranks[0].kill()
    fleet.change_all()
    fleet.load(lambda _: fleet.start_again(0))
    fleet.check_one()
    assert not fleet.ranks[0].events("loading_alone")
    print("rank 0 was started again, and all loaded its bundle")


def check_deaths(fleet):
    """A rank that is killed, at moments that fall before, in and after the meeting."""
    for delay in (0.0, 0.25, 0.3, 0.5):
        fleet.change_all()
        ended = [rank.ended() for rank in fleet.ranks]
        fleet.ranks[0].reload()
        time.sleep(delay)
        fleet.ranks[-1].kill()
        for rank, before in zip(fleet.ranks[:-1], ended):
            serves_on(rank, before, f"killed {delay} s into the reload")
        fleet.start_again(len(fleet.ranks) - 1)
        fleet.load(by_signal)
        fleet.check_one()
        print("and the next reload finds all")


def check_stays_away(fleet):
    """A rank that is not there."""
    present = fleet.check_one()
    fleet.ranks[-1].kill()
    began = time.monotonic()
    ended = [rank.ended() for rank in fleet.ranks]
    fleet.ranks[0].reload()
    for rank, before in zip(fleet.ranks[:-1], ended):
        serves_on(rank, before, "a rank stayed away")
        assert rank.hash() == present
    assert time.monotonic() - began < 3 * TIMEOUT_MS / 1000, "they waited too long"
    loaded = len(fleet.ranks[-1].events("bundle_loaded"))
    fleet.start_again(len(fleet.ranks) - 1)
    fleet.ranks[-1].wait_event("bundle_loaded", loaded + 1)
    assert fleet.ranks[-1].events("loading_alone")
    print("and loads alone when it comes late")


def main():
    reason = no_devices(2)
    if reason is not None:
        print(f"SKIPPED: {reason}")
        return 77
    for count in (2, 4):
        if no_devices(count) is not None:
            print(f"there are fewer than {count} devices: not tried with {count} ranks")
            break
        with tempfile.TemporaryDirectory() as folder, Fleet(folder, count) as fleet:
            reason = fleet.no_nccl()
            if reason is not None:
                print(f"SKIPPED: {reason}")
                return 77
            fleet.check_one()
            print(f"{count} started as one")
            check_one_command(fleet)
            if count == 2:
                check_refusals(fleet)
                check_stays_away(fleet)
                check_caller_comes_back(fleet)
                check_deaths(fleet)
            check_hang(fleet)
            check_folder(fleet)
            for rank in fleet.ranks:
                rank.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
