"""Datasets of questions with a score for answers, as reasoning-gym has them: an item of a job is one
question, answered and scored.

    [entry.sidecar]
    command = ["python3", "-m", "rollout_plugin.dataset"]

    [config]
    dataset = "reasoning_gym:create_dataset"                # module:factory
    dataset_kwargs = { name = "leg_counting", size = 100 }  # of the factory
    responder = "my_model:respond"                          # module:function
    responder_kwargs = {}                                   # of the function

A dataset has ``len(dataset)``; ``dataset[i]``, a dict with the text ``question`` and whatever else its
score needs; and ``dataset.score_answer(answer, entry)``, a number.

A responder is called as ``respond(question, entry, rng)`` and returns text; ``rng`` is a
``random.Random`` of the item's own. It may be ``async def``: then as many answers are under way as
``max_in_flight`` allows.
"""

from __future__ import annotations

import inspect
import math
from functools import partial

from rollout_plugin import BadConfig, BadParams, Call, JobItem, Plugin, method, run
from rollout_plugin._config import Config, made, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Dataset(Plugin):
    """Asks, answers and scores."""

    version = "0.1.0"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        given = Config(config)
        make, kwargs = named("dataset", given.text("dataset")), given.table("dataset_kwargs")
        respond = named("responder", given.text("responder"))
        self._respond = partial(respond, **given.table("responder_kwargs"))
        given.end()
        self._dataset = made("dataset", make, kwargs)
        self._length = _length(self._dataset)
        if _is_async(respond):
            setattr(self, "run", self._on_loop())

    @method
    def run(self, params: object, call: Call) -> dict[str, Any]:
        """One question of the dataset, what is answered to it, and the score of that."""
        item = JobItem(params)
        entry = self._entry(item)
        return self._scored(entry, self._respond(entry["question"], entry, item.rng()))

    def _on_loop(self) -> Any:
        """The method for a responder that is ``async def``."""
        import asyncio

        @method
        async def run(params: object, call: Call) -> dict[str, Any]:
            item = JobItem(params)
            # What takes long there holds nothing up here.
            entry = await asyncio.to_thread(self._entry, item)
            response = await self._respond(entry["question"], entry, item.rng())
            return await asyncio.to_thread(self._scored, entry, response)

        return run

    def _entry(self, item: JobItem) -> dict[str, Any]:
        entry = self._dataset[self._index(item)]
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            raise TypeError(f"the dataset's entry {entry!r:.80} has no text `question`")
        return entry

    def _index(self, item: JobItem) -> int:
        """Which question an item is about: the one it names, or that of its number, modulo."""
        match item.params:
            case None:
                return item.number % self._length
            case {"index": index} if type(index) is int and 0 <= index < self._length:
                return index
        raise BadParams(f'params are null or {{"index": 0 to {self._length - 1}}}')

    def _scored(self, entry: dict[str, Any], response: Any) -> dict[str, Any]:
        if not isinstance(response, str):
            raise TypeError(f"the responder's answer {response!r:.80} is no text")
        score = float(self._dataset.score_answer(answer=response, entry=entry))
        if not math.isfinite(score):
            raise ValueError(f"the score of {response!r:.80} is {score}")
        return {"question": entry["question"], "response": response, "score": score}


def _length(dataset: Any) -> int:
    for needed in ("__len__", "__getitem__", "score_answer"):
        if not hasattr(dataset, needed):
            raise BadConfig(f"dataset gives a {type(dataset).__name__}, which has no {needed}")
    length: int = len(dataset)
    if not length:
        raise BadConfig("dataset gives one without a question")
    return length


def _is_async(respond: Any) -> bool:
    called = getattr(type(respond), "__call__", None)
    return inspect.iscoroutinefunction(respond) or inspect.iscoroutinefunction(called)


if __name__ == "__main__":
    run(Dataset)
