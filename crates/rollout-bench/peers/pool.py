"""What one would write without rollout: `multiprocessing.Pool.imap_unordered`, a line for each result.

    python3 pool.py WORK ITEMS PROCESSES CHUNK SEED OUT

WORK is `noop`, `cartpole` (the example of this tree) or `gymnasium` (CartPole-v1, random policy). Writes
`{"item":…,"result":…}` lines to OUT as they come, and syncs once, at the end.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from multiprocessing import Pool
from typing import Any

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
SEEDS = 2**53


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def item_seed(seed: int, item: int) -> int:
    """The seed that the same item has in a job."""
    return mix(mix(seed + GOLDEN & MASK) + item * GOLDEN & MASK) >> 11


def noop(_seed: int, item: int) -> tuple[int, None]:
    return item, None


def prepare_cartpole() -> None:
    global plugin
    from cartpole import CartPole

    plugin = CartPole({"max_steps": 500})


def cartpole(seed: int, item: int) -> tuple[int, Any]:
    result = plugin.run({"item": item, "seed": item_seed(seed, item)}, None)  # type: ignore[name-defined]
    return item, result


def prepare_gymnasium() -> None:
    global env
    import gymnasium

    env = gymnasium.make("CartPole-v1")


def gymnasium(seed: int, item: int) -> tuple[int, Any]:
    seed = item_seed(seed, item)
    env.action_space.seed(SEEDS + seed)  # type: ignore[name-defined]
    env.reset(seed=seed)  # type: ignore[name-defined]
    total, length, over = 0.0, 0, False
    while not over:
        action = env.action_space.sample()  # type: ignore[name-defined]
        _, reward, terminated, truncated, _ = env.step(action)  # type: ignore[name-defined]
        total += float(reward)
        length += 1
        over = terminated or truncated
    return item, {"return": total, "length": length}


WORKS = {
    "noop": (noop, None),
    "cartpole": (cartpole, prepare_cartpole),
    "gymnasium": (gymnasium, prepare_gymnasium),
}


def main(work: str, items: int, processes: int, chunk: int, seed: int, out: str) -> None:
    play, prepare = WORKS[work]
    with open(out, "w") as lines, Pool(processes, prepare) as pool:
        for item, result in pool.imap_unordered(partial(play, seed), range(items), chunk):
            line = json.dumps({"item": item, "result": result}, separators=(",", ":"))
            lines.write(line + "\n")
        lines.flush()
        os.fsync(lines.fileno())


if __name__ == "__main__":
    work, items, processes, chunk, seed, out = sys.argv[1:]
    main(work, int(items), int(processes), int(chunk), int(seed), out)
