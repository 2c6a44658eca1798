"""Hostile sidecars: `python3 animals.py ANIMAL`. Each is what its docstring says, speaks the wire by
hand, and has a manifest of its name beside this file. Its method is `bite`; the docstring ends with
the error that calling it must end in. Whatever it is, the worker and its other plugins go on, and
no process of it is left.

With ZOO_PIDS in the environment (`env` of a manifest), every process of an animal adds its id to that file. With
ZOO_UNASKED, an animal does what it does as soon as it has answered a first call of `echo`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time

FOREVER = 3600


class Peer:
    """The wire, by hand."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ["ROLLOUT_PLUGIN_SOCKET"])
        self.read()
        token = os.environ["ROLLOUT_PLUGIN_TOKEN"]
        ready = {"t": "ready", "proto": 1, "token": token, "name": sys.argv[1], "version": "1"}
        self.send(ready | {"methods": [{"name": "bite"}, {"name": "echo"}]})

    def read(self) -> tuple[dict, bytes]:
        size, tail = struct.unpack(">II", self.exactly(8))
        return json.loads(self.exactly(size)), self.exactly(tail)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                sys.exit(0)
            data += more
        return data

    def frame(self, message: dict | bytes) -> bytes:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        return struct.pack(">II", len(data), 0) + data

    def send(self, message: dict | bytes) -> None:
        self.socket.sendall(self.frame(message))

    def bitten(self) -> int:
        """Waits for a call or a batch of `bite`; its id. Answers `echo`, leaves at `shutdown`."""
        while True:
            message, _ = self.read()
            if message["t"] == "shutdown":
                sys.exit(0)
            if message["t"] in ("call", "batch"):
                if message["method"] == "bite":
                    return message["id"]
                self.reply(message["id"], message["params"])
                if "ZOO_UNASKED" in os.environ:
                    return message["id"]

    def reply(self, number: int, result: object = None) -> None:
        self.send({"t": "reply", "id": number, "result": result})


def born() -> None:
    """Notes this process."""
    if path := os.environ.get("ZOO_PIDS"):
        with open(path, "a") as pids:
            pids.write(f"{os.getpid()}\n")


def exits_before_ready() -> None:
    """Ends with 3 before it has connected. `exited`"""
    sys.exit(3)


def exits_after_ready() -> None:
    """Ends with 4 as soon as it is ready. `crashed`"""
    Peer()
    sys.exit(4)


def hangs_at_import() -> None:
    """Never connects. `timeout`"""
    time.sleep(FOREVER)


def never_replies() -> None:
    """Reads the call, and that is all. `deadline`"""
    peer = Peer()
    while True:
        peer.bitten()


def ignores_cancel_and_sigterm() -> None:
    """Neither replies nor ends unless it is killed. `deadline`, and it is killed after
    `cancel_grace`"""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    peer = Peer()
    peer.bitten()
    time.sleep(FOREVER)


def wrong_id() -> None:
    """Answers a call that nobody made. `malformed`"""
    peer = Peer()
    peer.reply(peer.bitten() + 1000)
    time.sleep(FOREVER)


def same_id_twice() -> None:
    """Waits for a second call, then answers the first twice. The first call succeeds, the second is
    `malformed`"""
    peer = Peer()
    number = peer.bitten()
    peer.bitten()
    peer.reply(number)
    peer.reply(number)
    time.sleep(FOREVER)


def old_id() -> None:
    """Answers the first `bite`, and when it is called again, the first once more. `malformed`"""
    peer = Peer()
    number = peer.bitten()
    peer.reply(number)
    peer.bitten()
    peer.reply(number)
    time.sleep(FOREVER)


def byte_at_a_time() -> None:
    """Writes one byte a time. No error: a slow writer is served."""
    peer = Peer()
    while True:
        number = peer.bitten()
        for byte in peer.frame({"t": "reply", "id": number, "result": "bitten"}):
            peer.socket.sendall(bytes([byte]))
            time.sleep(0.001)


def truncated_frame() -> None:
    """Closes its socket in the midst of an answer. `closed`"""
    peer = Peer()
    number = peer.bitten()
    peer.socket.sendall(peer.frame({"t": "reply", "id": number, "result": 1})[:-5])
    peer.socket.close()
    time.sleep(FOREVER)


def claims_4_gib() -> None:
    """Announces a message of 0xFFFFFFFF bytes. `too_large`"""
    peer = Peer()
    peer.bitten()
    peer.socket.sendall(b"\xff\xff\xff\xff\0\0\0\0")
    time.sleep(FOREVER)


def floods_stdout() -> None:
    """Prints 10 MB, then answers. No error."""
    peer = Peer()
    while True:
        number = peer.bitten()
        for _ in range(100_000):
            print("x" * 99)
        peer.reply(number)


def endless_stderr_line() -> None:
    """Writes to standard error for ever, without a line's end. `deadline`"""
    peer = Peer()
    peer.bitten()
    while True:
        os.write(2, b"x" * 65536)


def deep_json() -> None:
    """Answers with 100,000 arrays in one another. `malformed`"""
    peer = Peer()
    number = peer.bitten()
    result = b"[" * 100_000 + b"]" * 100_000
    peer.send(b'{"t":"reply","id":%d,"result":%s}' % (number, result))
    time.sleep(FOREVER)


def floods_parts() -> None:
    """Sends parts for ever, whatever credit it has. `malformed`"""
    peer = Peer()
    number = peer.bitten()
    while True:
        peer.send({"t": "part", "id": number, "result": "x" * 1000})


def item_twice() -> None:
    """Answers the first item of a batch twice. `malformed`"""
    peer = Peer()
    while True:
        message, _ = peer.read()
        if message["t"] == "batch":
            for _ in range(2):
                peer.send({"t": "item", "id": message["id"], "n": 0, "result": 1})


def forks_children() -> None:
    """Leaves children of children, in sessions of their own and deaf to SIGTERM, and ends with 7.
    `crashed`"""
    peer = Peer()
    peer.bitten()
    ours, theirs = socket.socketpair()
    for _ in range(3):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.setsid()
            if os.fork() == 0:
                born()
            theirs.send(b"x")
            time.sleep(FOREVER)
    for _ in range(6):
        ours.recv(1)
    os._exit(7)


def closes_its_socket() -> None:
    """Closes its socket and stays. `closed`"""
    peer = Peer()
    peer.bitten()
    peer.socket.close()
    time.sleep(FOREVER)


def segfaults() -> None:
    """Reads at address 0. `crashed`"""
    import ctypes

    peer = Peer()
    peer.bitten()
    ctypes.string_at(0)


def out_of_memory() -> None:
    """Takes memory until it gets no more, at its manifest's `memory`. `crashed`"""
    peer = Peer()
    peer.bitten()
    taken = []
    while True:
        taken.append(bytearray(1 << 24))


def crash_loop() -> None:
    """Becomes ready and ends with 6 at the first call, however often it is started. `crashed`"""
    peer = Peer()
    peer.bitten()
    os._exit(6)


if __name__ == "__main__":
    born()
    globals()[sys.argv[1]]()
