"""How fast CartPole-v1 is under the adapter for gymnasium, next to `multiprocessing.Pool`.

    python3 python/bench_gymnasium.py [--episodes N] [--processes P] [--rounds R]

Episodes of the random policy, seeded alike, in batches of 64, one or two at a time in each process;
the pool has chunks of 64, and an environment in each process as well. They take turns in one run. The
other end of the sidecars is a few lines of Python in this process. All give return and length, and
the same ones, or this fails.
Prints figures, judges none. Needs gymnasium.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path

from bench import HEADER, exactly, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Ends = list[tuple[float, int]]

BATCH = 64
ENV = "CartPole-v1"
SEEDS = 2**53


def seed(item: int) -> int:
    """Some seed or other."""
    return item * 0x9E3779B97F4A7C15 % SEEDS


def prepare() -> None:
    global env
    import gymnasium

    env = gymnasium.make(ENV)  # type: ignore[name-defined]


def episode(item: int) -> tuple[int, float, int]:
    """What one would write for the pool."""
    env.action_space.seed(SEEDS + seed(item))  # type: ignore[name-defined]
    env.reset(seed=seed(item))  # type: ignore[name-defined]
    total, length, over = 0.0, 0, False
    while not over:
        action = env.action_space.sample()  # type: ignore[name-defined]
        _, reward, terminated, truncated, _ = env.step(action)  # type: ignore[name-defined]
        total += float(reward)
        length += 1
        over = terminated or truncated
    return item, total, length


def pool(processes: int, episodes: int) -> tuple[float, Ends]:
    with get_context("spawn").Pool(processes, prepare) as workers:
        # Every process is up, and warm.
        list(workers.imap_unordered(episode, range(8 * BATCH), BATCH // 4))
        begin = time.perf_counter()
        ends: Ends = [(0.0, 0)] * episodes
        for item, total, length in workers.imap_unordered(episode, range(episodes), BATCH):
            ends[item] = total, length
        return time.perf_counter() - begin, ends


@contextmanager
def sidecar() -> Iterator[Sidecar]:
    with tempfile.TemporaryDirectory() as at, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(at + "/s")
        listening.listen(1)
        env = os.environ | {"ROLLOUT_PLUGIN_SOCKET": at + "/s", "ROLLOUT_PLUGIN_TOKEN": "token"}
        command = [sys.executable, "-m", "rollout_plugin.gymnasium"]
        child = subprocess.Popen(command, env=env, cwd=Path(__file__).parent)
        connected, _ = listening.accept()
        with connected:
            yield Sidecar(connected)
        child.wait(10)


class Sidecar:
    """The worker's end of one sidecar."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        limits = {"max_frame": 1 << 24, "max_in_flight": 2, "part_window": 16}
        hello = {"t": "hello", "proto": [1, 1], "plugin": "bench", "limits": limits}
        connected.sendall(frame(hello | {"config": {"env": ENV}}))
        size, _ = HEADER.unpack(exactly(connected, 8))
        assert json.loads(exactly(connected, size))["t"] == "ready"
        self._rest = b""
        self._first: dict[int, int] = {}
        self._number = 0

    def start(self, first: int, count: int) -> None:
        self._number += 1
        self._first[self._number] = first
        items = [
            {"n": n, "params": {"item": item, "seed": seed(item), "params": None}}
            for n, item in enumerate(range(first, first + count))
        ]
        batch = {"t": "batch", "id": self._number, "method": "run", "timeout_ms": 60000}
        self.socket.sendall(frame(batch | {"items": items}))

    def take(self, ends: Ends) -> int:
        """Notes the ends of episodes that have come; how many batches are over."""
        data, at, over = self._rest + self.socket.recv(1 << 16), 0, 0
        while len(data) - at >= 8:
            size, _ = HEADER.unpack_from(data, at)
            if len(data) - at < 8 + size:
                break
            message = json.loads(data[at + 8 : at + 8 + size])
            at += 8 + size
            if message["t"] == "item":
                result = message["result"]
                item = self._first[message["id"]] + message["n"]
                ends[item] = result["return"], result["length"]
            elif message["t"] != "progress":
                assert message["t"] == "reply", message
                over += 1
        self._rest = data[at:]
        return over


def sidecars(processes: int, episodes: int, deep: int) -> tuple[float, Ends]:
    with ExitStack() as stack:
        peers = [stack.enter_context(sidecar()) for _ in range(processes)]
        play(peers, 8 * BATCH, deep)
        begin = time.perf_counter()
        ends = play(peers, episodes, deep)
        return time.perf_counter() - begin, ends


def play(peers: list[Sidecar], episodes: int, deep: int) -> Ends:
    ends: Ends = [(0.0, 0)] * episodes
    firsts = iter(range(0, episodes, BATCH))
    under_way = 0

    def start(peer: Sidecar) -> int:
        first = next(firsts, None)
        if first is None:
            return 0
        peer.start(first, min(BATCH, episodes - first))
        return 1

    with selectors.DefaultSelector() as ready:
        for peer in peers:
            ready.register(peer.socket, selectors.EVENT_READ, peer)
            under_way += sum(start(peer) for _ in range(deep))
        while under_way:
            for key, _ in ready.select():
                for _ in range(key.data.take(ends)):
                    under_way += start(key.data) - 1
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of each, in turns")
    args = parser.parse_args()
    rates: dict[str, list[float]] = {"pool": [], "sidecars, 1 batch": [], "sidecars, 2 batches": []}
    for _ in range(args.rounds):
        # In turns, so that a busy machine is busy for all.
        runs = [pool(args.processes, args.episodes)]
        runs += [sidecars(args.processes, args.episodes, deep) for deep in (1, 2)]
        for name, (seconds, ends) in zip(rates, runs, strict=True):
            assert ends == runs[0][1], f"{name} and the pool disagree"
            rates[name].append(args.episodes / seconds)
    base = statistics.median(rates["pool"])
    for name, each in rates.items():
        middle = statistics.median(each)
        figures = f"{middle:8,.0f} episodes/s ({min(each):,.0f} to {max(each):,.0f})"
        print(f"{name:20} {figures}: {middle / base:.2f} times the pool")


if __name__ == "__main__":
    main()
