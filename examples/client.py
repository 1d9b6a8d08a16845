#!/usr/bin/python3
"""Route prompts: client.py tcp://HOST:PORT|ipc://PATH PROMPT...   (docs/PROTOCOL.md explains every byte)

Needs a msgpack library (Debian: python3-msgpack) and nothing of nng: REQ/REP over a stream is this little.
"""
import itertools
import socket
import struct
import sys

import msgpack


class Client:
    def __init__(self, url, timeout=30.0):
        scheme, address = url.split("://", 1)
        self.type_byte = b"\x01" if scheme == "ipc" else b""  # ipc marks every message, tcp does not
        if scheme == "ipc":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request_ids = itertools.count(1)
        self.socket.sendall(b"\0SP\0" + struct.pack(">HH", 0x30, 0))  # we speak REQ
        if self.receive(8) != b"\0SP\0" + struct.pack(">HH", 0x31, 0):  # the peer speaks REP
            raise ConnectionError("the peer is no REP socket")

    def receive(self, size):
        data = b""
        while len(data) < size:
            data += (more := self.socket.recv(size - len(data)))
            if not more:
                raise ConnectionError("the service closed the connection")
        return data

    def call(self, op, **keys):
        """One request, one reply: the reply's map. Raises on `ok` false."""
        header = struct.pack(">I", 0x80000000 | next(self.request_ids))
        body = header + msgpack.packb({"v": 1, "op": op, **keys})
        self.socket.sendall(self.type_byte + struct.pack(">Q", len(body)) + body)
        while True:
            head = self.receive(len(self.type_byte) + 8)
            body = self.receive(struct.unpack(">Q", head[-8:])[0])
            if body[:4] == header:  # else the reply to a request that we gave up on
                break
        reply = msgpack.unpackb(body[4:])
        if not reply["ok"]:
            raise RuntimeError("{code}: {message}".format(**reply["error"]))
        return reply


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    answers = Client(sys.argv[1]).call("route", queries=[{"text": text} for text in sys.argv[2:]])["results"]
    for prompt, answer in zip(sys.argv[2:], answers):
        print(answer.get("error") or "{model} n={n} quality={quality:.3f}".format(**answer), "<-", prompt)
