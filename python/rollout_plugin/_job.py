"""An item of a job, as ``rollout run`` asks for it."""

from __future__ import annotations

from rollout_plugin._plugin import BadParams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random
    from typing import Any

SEEDS = 2**53
"""Seeds are below; every JSON reader has such numbers exactly."""


class JobItem:
    """The parameters of a call of ``rollout run``. Raises `BadParams` for others.

    An item may be run more than once, here or elsewhere, and alone or among others. Its result has
    to be a function of what is in here, so that it does not matter which run is kept.
    """

    __slots__ = ("number", "params", "seed")

    number: int
    """Which item of the job it is, from 0."""
    seed: int
    """From the job's seed and the number alone; at least 0, below 2**53."""
    params: Any
    """The item's own JSON; None if the job has none for it."""

    def __init__(self, params: Any) -> None:
        if type(params) is not dict:
            raise BadParams('{"item": ..., "seed": ..., "params": ...} is needed')
        number, seed = params.get("item"), params.get("seed")
        if type(number) is not int or number < 0:
            raise BadParams("item is a number from 0")
        if type(seed) is not int or not 0 <= seed < SEEDS:
            raise BadParams("seed is a number from 0 and below 2**53")
        self.number, self.seed, self.params = number, seed, params.get("params")

    def rng(self) -> Random:
        """Python's generator, seeded for this item; a new one each time."""
        from random import Random

        return Random(self.seed)
