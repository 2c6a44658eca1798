"""How fast a sidecar on the SDK answers, next to a bare socket in the same run.

    python3 python/bench.py [--seconds S]

Round trips of 64 bytes one at a time, calls with 64 in flight and items in batches of 64 on plain and
on ``async def`` handlers, streamed parts, and round trips of 1 MiB. The other end is a few lines of Python in this process; the bare socket is
a process that sends back what it receives, with no frames and no JSON. Prints figures, judges none.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = struct.Struct(">II")
TEXT = "x" * 64
WINDOW = 16
LARGE = bytes(1 << 20)

SIDECAR = f"""
TEXT = {TEXT!r}
from rollout_plugin import Plugin, Reply, method, run

class Bench(Plugin):
    name, version = "bench", "1"

    @method
    def echo(self, params, call):
        return Reply(params, call.payload)

    @method
    async def aecho(self, params, call):
        return params

    @method
    def parts(self, params, call):
        for _ in range(params):
            yield TEXT

run(Bench)
"""

BARE = """
import os, socket
connected = socket.socket(socket.AF_UNIX)
connected.connect(os.environ["ROLLOUT_PLUGIN_SOCKET"])
while data := connected.recv({size}, socket.MSG_WAITALL):
    connected.sendall(data)
"""


@contextmanager
def peer(program: str) -> Iterator[socket.socket]:
    """A process that has connected to a socket of ours."""
    with tempfile.TemporaryDirectory() as at, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(at + "/s")
        listening.listen(1)
        env = {"ROLLOUT_PLUGIN_SOCKET": at + "/s", "ROLLOUT_PLUGIN_TOKEN": "token"}
        env |= {"PYTHONPATH": str(Path(__file__).parent), "PATH": os.environ["PATH"]}
        child = subprocess.Popen([sys.executable, "-S", "-c", program], env=env)
        connected, _ = listening.accept()
        with connected:
            yield connected
        child.wait(10)


def exactly(connected: socket.socket, size: int) -> bytes:
    data = connected.recv(size)
    if len(data) == size:
        return data
    parts, missing = [data], size - len(data)
    while missing:
        parts.append(connected.recv(missing, socket.MSG_WAITALL))
        missing -= len(parts[-1])
    return b"".join(parts)


def read(connected: socket.socket) -> tuple[bytes, bytes]:
    size, tail = HEADER.unpack(exactly(connected, 8))
    return exactly(connected, size), exactly(connected, tail) if tail else b""


def frame(message: dict[str, object], tail: bytes = b"") -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(data), len(tail)) + data + tail


def call(number: int, name: str, params: object = None, tail: bytes = b"") -> bytes:
    message = {"t": "call", "id": number, "method": name, "params": params, "timeout_ms": 60000}
    return frame(message, tail)


def greet(connected: socket.socket) -> None:
    limits = {"max_frame": 1 << 24, "max_in_flight": 64, "part_window": WINDOW}
    hello: dict[str, object]
    hello = {"t": "hello", "proto": [1, 1], "plugin": "bench", "config": {}, "limits": limits}
    connected.sendall(frame(hello))
    read(connected)


def repeat(once: Callable[[], object], seconds: float) -> list[float]:
    """The times that it takes, in seconds, sorted, without those of a start."""
    for _ in range(200):
        once()
    times, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        once()
        times.append(time.perf_counter() - begin)
    return sorted(times)


def bare(connected: socket.socket, data: bytes) -> Callable[[], object]:
    def once() -> None:
        connected.sendall(data)
        exactly(connected, len(data))

    return once


def framed(connected: socket.socket, data: bytes) -> Callable[[], object]:
    """One round trip; an answer of a few bytes is there in one piece."""

    def once() -> None:
        connected.sendall(data)
        answer = connected.recv(65536)
        assert b'"t":"reply"' in answer

    return once


def large(connected: socket.socket) -> Callable[[], object]:
    data = call(1, "echo", None, LARGE)

    def once() -> None:
        connected.sendall(data)
        assert len(read(connected)[1]) == len(LARGE)

    return once


def many(connected: socket.socket, name: str, seconds: float, places: int = 64) -> float:
    """Calls a second, with a new call for every answer."""
    # Ids come round long after their calls are answered.
    ring = [call(number, name, TEXT) for number in range(8 * places)]
    sent = places
    connected.sendall(b"".join(ring[:sent]))
    rest, done, begin = b"", 0, time.perf_counter()
    end = begin + seconds
    while time.perf_counter() < end:
        rest, answers = answers_in(rest + connected.recv(65536))
        done += answers
        connected.sendall(b"".join(ring[(sent + n) % len(ring)] for n in range(answers)))
        sent += answers
    rate = done / (time.perf_counter() - begin)
    while places:
        rest, answers = answers_in(rest + connected.recv(65536))
        places -= answers
    return rate


def batches(connected: socket.socket, name: str, seconds: float, items: int = 64) -> float:
    """Items a second, one batch after the other."""
    each = [{"n": n, "params": TEXT} for n in range(items)]
    batch = frame({"t": "batch", "id": 1, "method": name, "items": each, "timeout_ms": 60000})
    return answered(connected, batch, items + 1, items, seconds)


def streamed(connected: socket.socket, seconds: float) -> float:
    """Parts a second, as many to a call as need no credit."""
    return answered(connected, call(1, "parts", WINDOW), WINDOW + 1, WINDOW, seconds)


def answered(connected: socket.socket, data: bytes, frames: int, units: int, seconds: float) -> float:
    done, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        connected.sendall(data)
        rest, left = b"", frames
        while left:
            rest, answers = answers_in(rest + connected.recv(65536))
            left -= answers
        done += units
    return done / (time.perf_counter() - begin)


def answers_in(data: bytes) -> tuple[bytes, int]:
    """What is left behind the last whole frame, and how many there are before it."""
    at, count = 0, 0
    while len(data) - at >= 8:
        size, tail = HEADER.unpack_from(data, at)
        if len(data) - at < 8 + size + tail:
            break
        at += 8 + size + tail
        count += 1
    return data[at:], count


def at(times: list[float], share: float) -> float:
    return times[int(len(times) * share)] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    seconds = parser.parse_args().seconds
    small, big = (BARE.format(size=size) for size in (len(TEXT), len(LARGE)))
    with peer(small) as raw, peer(big) as raw_large, peer(SIDECAR) as sdk:
        greet(sdk)
        once = call(1, "echo", TEXT)
        # In turns, so that a busy machine is busy for both.
        base, ours = [], []
        for _ in range(5):
            base += repeat(bare(raw, TEXT.encode()), seconds / 5)
            ours += repeat(framed(sdk, once), seconds / 5)
        base.sort()
        ours.sort()
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            a, b = at(base, share), at(ours, share)
            print(f"64 B round trip {name}: {b:8.1f} us, bare {a:8.1f} us: {b / a:.2f} times")
        for name in ("echo", "aecho"):
            print(f"{name}, 64 in flight: {many(sdk, name, seconds):10,.0f} calls/s")
            print(f"{name}, batches of 64: {batches(sdk, name, seconds):9,.0f} items/s")
        print(f"parts, 16 to a call: {streamed(sdk, seconds):12,.0f} parts/s")
        a, b = (at(repeat(f, seconds), 0.5) for f in (bare(raw_large, LARGE), large(sdk)))
        print(f"1 MiB round trip p50: {b:10.0f} us, bare {a:8.0f} us")


if __name__ == "__main__":
    main()
