"""Work for `cargo xtask work`: an item waits for a while and returns a digest of itself.

Result and wait are functions of the item and its seed. Each execution is noted in a file beside, one
line, so that it can be told from outside how often an item was run, when and by which process.
"""

import asyncio
import os
import time

from rollout_plugin import BadConfig, Call, JobItem, Plugin, method, run

OFFSET, PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1


def digest(text: str) -> str:
    """FNV-1a, 64 bits, in hex."""
    value = OFFSET
    for byte in text.encode():
        value = (value ^ byte) * PRIME & MASK
    return f"{value:016x}"


class Digests(Plugin):
    name = "digests"
    version = "0.1.0"

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        match config:
            case {"executions": str(path), "least_ms": int(least), "most_ms": int(most)}:
                self.least, self.span = least * 1000, (most - least) * 1000 + 1
            case _:
                raise BadConfig("executions, least_ms and most_ms are needed")
        # A line is appended in one write, so that those of several processes never mix.
        self.notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @method
    async def run(self, params: object, call: Call) -> dict:
        item = JobItem(params)
        note = f"{item.number} {os.getpid()} {time.monotonic_ns()}\n"
        os.write(self.notes, note.encode())
        await asyncio.sleep((self.least + item.seed % self.span) / 1e6)
        return {"digest": digest(f"{item.number}:{item.seed}")}

    @method
    async def probe(self, params: object, call: Call) -> None:
        """Answers, and is no execution."""


run(Digests)
