#!/usr/bin/env python3
"""Ten daemons in ten network namespaces, and a client over all of them while they are killed,
drained and cut off.

    hub: the client, a bridge 10.77.0.254 ---veth--- each daemon's namespace, 10.77.0.1 .. 10.77.0.10

Every call has to be answered once, with the oracle's decision, and traffic has to return to every daemon. The
namespaces are the test's own and reach nothing else. Skipped (77) without the right to make them.
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
FLEET_CLIENT = os.environ["FLEET_CLIENT"]
TINY = os.path.join(os.environ["BESTROUTE_SOURCE"], "weights/tiny")
DAEMONS = 10
PATIENCE_S = 200  # for what must happen; it takes a second or two
LINK_DOWN_S = 3
MORE = 10  # answers of an endpoint that show that it takes part


def skip(why):
    print("SKIPPED:", why)
    sys.exit(77)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """Namespaces named after this process, so that two tests at a time do not meet."""

    def __init__(self):
        self.made = []
        self.hub = f"br{os.getpid()}hub"

    def space(self, index):
        return f"br{os.getpid()}n{index}"

    def add_space(self, name):
        ip("netns", "add", name)
        self.made.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    def try_hub(self):
        """What the kernel or the rights may not allow."""
        self.add_space(self.hub)
        ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.hub, "link", "add", "try0", "type", "veth", "peer", "name", "try1")
        ip("-n", self.hub, "link", "delete", "try0")

    def build(self):
        ip("-n", self.hub, "addr", "add", "10.77.0.254/24", "dev", "bridge")
        ip("-n", self.hub, "link", "set", "bridge", "up")
        for i in range(DAEMONS):
            space = self.space(i)
            self.add_space(space)
            ip("-n", self.hub, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth", "netns",
               space)
            ip("-n", self.hub, "link", "set", f"port{i}", "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth")
            ip("-n", space, "link", "set", "eth", "up")

    def set_link(self, index, state):
        ip("-n", self.hub, "link", "set", f"port{index}", state)

    def destroy(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def inside(space, *command):
    return ["nsenter", f"--net=/run/netns/{space}", *command]


class Fleet:
    def __init__(self, network, folder):
        self.network = network
        self.urls = [f"tcp://10.77.0.{i + 1}:5555" for i in range(DAEMONS)]
        self.daemons = [None] * DAEMONS
        self.oracle_url = f"ipc://{folder}/oracle"
        self.oracle = self.launch(network.hub, self.oracle_url)
        self.client = None

    @staticmethod
    def launch(space, url):
        return subprocess.Popen(
            inside(space, DAEMON, "--bundle", TINY, "--engine", "reference", "--workers", "1",
                   "--tokenizer-threads", "1", "--listen", url, "--log-level", "error"))

    def start(self, index):
        self.daemons[index] = self.launch(self.network.space(index), self.urls[index])

    def await_ready(self, *urls):
        flags = [word for url in urls for word in ("--url", url)]
        subprocess.run(inside(self.network.hub, CLIENT, "ping", *flags, "--wait-ms", str(PATIENCE_S * 1000)),
                       check=True, stdout=subprocess.DEVNULL)

    def begin(self):
        for i in range(DAEMONS):
            self.start(i)
        self.await_ready(self.oracle_url, *self.urls)
        self.client = subprocess.Popen(inside(self.network.hub, FLEET_CLIENT, self.oracle_url, *self.urls),
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stand(self):
        self.client.stdin.write("?\n")
        self.client.stdin.flush()
        return self.check(json.loads(self.client.stdout.readline()))

    @staticmethod
    def check(now):
        assert now["failed"] == 0 and now["wrong"] == 0, now
        for e in now["endpoints"]:
            done = e["answered"] + e["refused"] + e["failed"] + e["abandoned"]
            assert e["sent"] == e["outstanding"] + done, e
        return now

    def await_traffic(self, what, indices, before=None):
        """Until each of the endpoints has answered MORE than now, or than `before`."""
        had = [e["answered"] for e in (before or self.stand())["endpoints"]]
        end = time.monotonic() + PATIENCE_S
        while True:
            now = self.stand()
            missing = [i for i in indices if now["endpoints"][i]["answered"] < had[i] + MORE]
            if not missing:
                print(f"{what}: {now['right']} calls answered, {now['retries']} retries, {now['hedges']} "
                      f"hedges, longest call {now['longest_ms']} ms", flush=True)
                return now
            assert time.monotonic() < end, (what, missing, now)
            time.sleep(0.1)

    def await_ejected(self, indices):
        end = time.monotonic() + PATIENCE_S
        while not all(self.stand()["endpoints"][i]["ejected"] for i in indices):
            assert time.monotonic() < end, indices
            time.sleep(0.05)

    def others(self, indices):
        return [i for i in range(DAEMONS) if i not in indices]

    def kill(self, indices, number):
        for i in indices:
            self.daemons[i].send_signal(number)
        for i in indices:
            code = self.daemons[i].wait(PATIENCE_S)
            assert code == (0 if number == signal.SIGTERM else -number), code

    def stop_and_restart(self, what, indices, number):
        self.kill(indices, number)
        self.await_ejected(indices)
        self.await_traffic(f"{what} {indices}", self.others(indices))
        for i in indices:
            self.start(i)
        self.await_traffic(f"  restarted {indices}", indices)

    def cut_off(self, index):
        self.network.set_link(index, "down")
        began = time.monotonic()
        self.await_ejected([index])
        took = time.monotonic() - began
        self.await_traffic(f"link down [{index}], noticed after {took:.1f} s", self.others([index]))
        time.sleep(max(0, LINK_DOWN_S - (time.monotonic() - began)))
        self.network.set_link(index, "up")
        self.await_traffic(f"  link up [{index}]", [index])

    def end(self):
        text, _ = self.client.communicate(timeout=PATIENCE_S)
        assert self.client.returncode == 0, self.client.returncode
        return self.check(json.loads(text))

    def destroy(self):
        for process in [self.client, self.oracle, *self.daemons]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def run(network):
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(network, folder)
        try:
            fleet.begin()
            fleet.await_traffic("all up", range(DAEMONS))
            fleet.stop_and_restart("killed", [0, 1, 2], signal.SIGKILL)
            fleet.stop_and_restart("drained", [3, 4], signal.SIGTERM)
            fleet.cut_off(5)
            fleet.stop_and_restart("killed", [1, 2, 3, 4, 5, 6, 7, 8], signal.SIGKILL)
            last = fleet.end()
        finally:
            fleet.destroy()
    assert last["calls"] == last["right"] == last["counted"] > 100, last
    # Each call has one answer; a second one can only be a hedge's, and was not wanted any more.
    assert sum(e["answered"] for e in last["endpoints"]) == last["calls"], last
    assert sum(e["abandoned"] for e in last["endpoints"]) <= last["hedges"], last
    assert all(e["outstanding"] == 0 for e in last["endpoints"]), last
    assert last["retries"] > 0, last
    print(f"{last['calls']} calls, each answered once and right")


def main():
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            skip(f"no {program} (Debian: iproute2, util-linux)")
    if os.geteuid() != 0:
        skip("making network namespaces needs root")
    network = Network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ctest's timeout: the namespaces go all the same
    try:
        try:
            network.try_hub()
        except subprocess.CalledProcessError as error:
            skip(f"{' '.join(error.cmd)}: {error.stderr.strip()}")
        network.build()
        run(network)
    finally:
        network.destroy()


main()
