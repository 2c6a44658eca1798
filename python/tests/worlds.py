"""What a user of the adapters brings along: environments, policies, datasets, responders, some of
them hostile. And a stand-in for gymnasium, as far as the adapter asks for it, where there is none."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import types
from typing import Any

try:
    import gymnasium
    from gymnasium import Env, spaces

    REAL = True
except ImportError:
    REAL = False


class Coin:
    """A space of two actions."""

    def __init__(self) -> None:
        self._rng = random.Random()

    def seed(self, seed: int) -> None:
        self._rng.seed(seed)

    def sample(self) -> int:
        return self._rng.randrange(2)

    def contains(self, action: object) -> bool:
        return type(action) is int and action in (0, 1)

    def __repr__(self) -> str:
        return "Discrete(2)"


if not REAL:

    class Env:  # type: ignore[no-redef]
        def close(self) -> None:
            pass

    class _NoRandom:
        @staticmethod
        def default_rng(seed: int) -> random.Random:
            return random.Random(seed)

    def _make(name: str, **kwargs: object) -> Any:
        raise LookupError(f"Environment `{name}` doesn't exist.")

    gymnasium = types.ModuleType("gymnasium")
    gymnasium.Env = Env  # type: ignore[attr-defined]
    gymnasium.make = _make  # type: ignore[attr-defined]
    gymnasium.spaces = types.SimpleNamespace(Box=type("Box", (), {}))  # type: ignore[attr-defined]

STAND_INS = {} if REAL else {"gymnasium": gymnasium, "numpy": types.SimpleNamespace(random=_NoRandom)}
"""For ``sys.modules``."""

LIVE: list[Walk] = []
"""Every environment that was made and not closed."""


class Walk(Env):
    """Left or right from the middle until a wall, 1 for each step to the right."""

    def __init__(self, walls: int = 3, pause: float = 0.0, fails_at: int = 0) -> None:
        self.action_space = spaces.Discrete(2) if REAL else Coin()
        self.walls, self.pause, self.fails_at = walls, pause, fails_at
        self.thread = threading.current_thread()
        self.stale = False
        LIVE.append(self)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        assert self.thread is threading.current_thread(), "an environment changed its thread"
        assert not self.stale, "a broken environment is used again"
        self.rng = random.Random(seed)
        self.at = (options or {}).get("at", self.rng.randint(-1, 1))
        self.steps = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(self.pause)
        self.steps += 1
        if self.steps == self.fails_at:
            self.stale = True
            raise RuntimeError("the floor is lava")
        self.at += 1 if action else -1
        return self._seen(), float(action), abs(self.at) >= self.walls, False, {}

    def close(self) -> None:
        LIVE.remove(self)

    def _seen(self) -> dict[str, Any]:
        return {"at": self.at, "noise": self.rng.random(), "pair": (True, None)}


def nowhere() -> None:
    """A factory that makes none."""


def broken_factory() -> None:
    raise OSError("no licence")


def bold(observation: dict, env: Any, rng: Any, right: float = 0.5) -> int:
    """A policy."""
    return int(rng.random() < right)


def nonsense(observation: object, env: object, rng: object) -> str:
    return "sideways"


def raising(observation: object, env: object, rng: object) -> int:
    raise KeyError("no model")


class Primes:
    """A dataset."""

    known = (2, 3, 5, 7)

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"question": f"prime {index}", "answer": str(self.known[index]), "metadata": {}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return float(answer == entry["answer"])


class Empty(Primes):
    known = ()


class Unasked(Primes):
    def __getitem__(self, index: int) -> Any:
        return {"answer": "42"}


class Unscored(Primes):
    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return float("nan")


def guess(question: str, entry: dict, rng: random.Random, among: int = 10) -> str:
    return str(rng.randrange(among))


async def slow_guess(question: str, entry: dict, rng: random.Random, among: int = 10) -> str:
    await asyncio.sleep(0.01)
    return guess(question, entry, rng, among)


_BARRIERS: dict[asyncio.AbstractEventLoop, asyncio.Barrier] = {}


async def together(question: str, entry: dict, rng: random.Random, parties: int) -> str:
    """Answers when so many wait for one."""
    loop = asyncio.get_running_loop()
    await _BARRIERS.setdefault(loop, asyncio.Barrier(parties)).wait()
    return "7"


def mute(question: str, entry: dict, rng: random.Random) -> None:
    return None
