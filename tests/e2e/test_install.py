#!/usr/bin/env python3
"""cmake --install into a prefix of its own: programs run from there, a C and a C++ program find the client by
pkg-config and talk to a service, and no symbol of its library can clash with one of theirs. Programs and
paths come from ctest's environment."""
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ["BESTROUTE_SOURCE"]
BUILD = os.environ["BESTROUTE_BUILD"]
TINY = os.path.join(SOURCE, "weights/tiny")
CPP = """#include <bestroute/client.h>
int main() { br_error error = {}; br_client *client; br_client_options options = {};
options.url = "inproc://nobody"; if (br_client_connect(&client, &options, &error) != BR_OK) return 1;
br_client_close(client);
return 0; }
"""


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def check_symbols(archive):
    lines = run("nm", "--defined-only", "--extern-only", "--format=posix", archive).splitlines()
    names = [line.split()[0] for line in lines if len(line.split()) > 1]
    strange = [name for name in names if not name.startswith(("br_", "_", "."))]
    assert len(names) > 50 and not strange, strange


def main():
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "first")
        run(os.environ["CMAKE"], "--install", BUILD, "--prefix", prefix)
        moved = os.path.join(folder, "moved")  # nothing names where it was put first
        os.rename(prefix, moved)
        found = [os.path.join(base, name) for base, _, names in os.walk(moved) for name in names]
        description, = [path for path in found if path.endswith("bestroute_client.pc")]
        flags = run("pkg-config", "--cflags", "--libs", "bestroute_client",
                    env={**os.environ, "PKG_CONFIG_PATH": os.path.dirname(description)}).split()
        assert SOURCE not in " ".join(flags) and BUILD not in " ".join(flags), flags
        check_symbols(*[path for path in found if path.endswith("libbestroute_client.a")])
        sanitize = os.environ["SANITIZE"].split()
        client = os.path.join(folder, "client")
        run(os.environ["CC"], "-std=c17", "-Wall", "-Wextra", "-Werror", *sanitize,
            os.path.join(SOURCE, "examples/client.c"), *flags, "-o", client)
        with open(os.path.join(folder, "plus.cc"), "w", encoding="utf-8") as file:
            file.write(CPP)
        run(os.environ["CXX"], "-std=c++17", "-Wall", "-Wextra", "-Werror", *sanitize, file.name, *flags,
            "-o", os.path.join(folder, "plus"))
        run(os.path.join(folder, "plus"))

        url = f"ipc://{folder}/s"
        service = subprocess.Popen([os.path.join(moved, "bin/bestrouted"), "--bundle", TINY, "--listen", url,
                                    "--engine", "reference"],
                                   stderr=subprocess.DEVNULL)
        try:
            run(os.path.join(moved, "bin/bestroute"), "ping", "--url", url, "--wait-ms", "60000")
            lines = run(client, url, "hello", "good evening").splitlines()
            assert len(lines) == 2 and all(" x " in line and ", quality 0." in line for line in lines), lines
            out = run(os.path.join(moved, "bin/bestroute-bench"), "--noop", TINY, "--requests", "3",
                      "--warmup", "0")
            assert "engine noop" in out, out
        finally:
            service.kill()
            service.wait()
        assert any(path.endswith("share/bestroute/bestroute.service") for path in found), found
    return 0


if __name__ == "__main__":
    sys.exit(main())
