"""The kinds of handlers: plain functions and generators, ``async def`` ones, and those that take
batches. Each is made into one that answers a call, and one that answers the items of a batch."""

from __future__ import annotations

from rollout_plugin._plugin import Call, Cancelled, Item, Reply, takes_batches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Semaphore
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from typing import Any

    Answer = Callable[[int, Any], None]

# Of inspect, without its import.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


class Handler:
    """A method of a plugin, whatever kind of function it is."""

    __slots__ = ("is_async", "run", "run_batch", "streams")

    run: Callable[..., Any]
    """Answers a call: called with the parameters and the `Call`; a coroutine if `is_async`."""
    run_batch: Callable[..., Any]
    """Answers a batch: called with the list of parameters, the batch's `Call`, and a function for
    each item's number and its result or exception; if `is_async`, also with a semaphore of as many
    places as items may run at the same time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = getattr(function, "__code__", None)
        flags = code.co_flags if code is not None else 0
        self.is_async = bool(flags & (_COROUTINE | _ASYNC_GENERATOR))
        self.streams = bool(flags & (_GENERATOR | _ASYNC_GENERATOR))
        """Whether it yields."""
        kind = _Async if self.is_async else _Plain
        if takes_batches(function):
            self.run = kind.one_of_batch(function, self.streams)
            self.run_batch = kind.whole(function, self.streams)
        else:
            self.run = kind.streamed(function) if self.streams else function
            self.run_batch = kind.each(self.run)


class _Plain:
    """Of functions that run on a thread."""

    @staticmethod
    def streamed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(params: Any, call: Call) -> Any:
            made = function(params, call)
            try:
                while True:
                    call.part(*_split(next(made)))
            except StopIteration as end:
                return end.value
            finally:
                made.close()

        return run

    @staticmethod
    def each(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_batch(params: list[Any], batch: Call, answer: Answer) -> None:
            for n, (one, payload) in enumerate(zip(params, batch.payloads)):
                if batch.cancelled:
                    raise Cancelled
                try:
                    outcome = run(one, Item(batch, payload))
                except BaseException as error:
                    outcome = error
                answer(n, outcome)

        return run_batch

    @staticmethod
    def whole(function: Callable[..., Any], streams: bool) -> Callable[..., Any]:
        def run_batch(params: list[Any], batch: Call, answer: Answer) -> None:
            results = _Results(len(params), answer)
            made = function(params, batch)
            if not streams:
                return results.all(made)
            try:
                for outcome in made:
                    results.add(outcome)
                    if batch.cancelled:
                        raise Cancelled
                results.end()
            finally:
                made.close()

        return run_batch

    @classmethod
    def one_of_batch(cls, function: Callable[..., Any], streams: bool) -> Callable[..., Any]:
        run_batch = cls.whole(function, streams)

        def run(params: Any, call: Call) -> Any:
            call.payloads = (call.payload,)
            outcome: list[Any] = []
            run_batch([params], call, lambda _, done: outcome.append(done))
            return _only(outcome)

        return run


class _Async:
    """Of functions that run on the event loop."""

    @staticmethod
    def streamed(function: Callable[..., Any]) -> Callable[..., Any]:
        async def run(params: Any, call: Call) -> None:
            made = function(params, call)
            try:
                async for part in made:
                    await call._part_async(*_split(part))
            finally:
                await made.aclose()

        return run

    @staticmethod
    def each(run: Callable[..., Any]) -> Callable[..., Any]:
        async def run_batch(
            params: list[Any], batch: Call, answer: Answer, places: Semaphore
        ) -> None:
            import asyncio

            async def work(n: int, one: Any, payload: bytes) -> None:
                async with places:
                    try:
                        outcome = await run(one, Item(batch, payload))
                    except BaseException as error:
                        outcome = error
                answer(n, outcome)

            async with asyncio.TaskGroup() as group:
                for n, (one, payload) in enumerate(zip(params, batch.payloads)):
                    group.create_task(work(n, one, payload))

        return run_batch

    @staticmethod
    def whole(function: Callable[..., Any], streams: bool) -> Callable[..., Any]:
        async def run_batch(
            params: list[Any], batch: Call, answer: Answer, places: Semaphore | None
        ) -> None:
            results = _Results(len(params), answer)
            made = function(params, batch)
            if not streams:
                return results.all(await made)
            try:
                async for outcome in made:
                    results.add(outcome)
                results.end()
            finally:
                await made.aclose()

        return run_batch

    @classmethod
    def one_of_batch(cls, function: Callable[..., Any], streams: bool) -> Callable[..., Any]:
        run_batch = cls.whole(function, streams)

        async def run(params: Any, call: Call) -> Any:
            call.payloads = (call.payload,)
            outcome: list[Any] = []
            await run_batch([params], call, lambda _, done: outcome.append(done), None)
            return _only(outcome)

        return run


def _split(part: Any) -> tuple[Any, bytes]:
    return (part.result, part.payload) if isinstance(part, Reply) else (part, b"")


def _only(outcome: list[Any]) -> Any:
    (done,) = outcome
    if isinstance(done, BaseException):
        raise done
    return done


class _Results:
    """Counts the results of a method that takes batches: one for each item, in their order."""

    def __init__(self, wanted: int, answer: Answer) -> None:
        self._wanted = wanted
        self._answer = answer
        self._count = 0

    def all(self, outcomes: Any) -> None:
        """Answers with nothing if they are too few or too many: who knows whose they are."""
        outcomes = list(outcomes)
        if len(outcomes) != self._wanted:
            raise self._miscounted(len(outcomes))
        for outcome in outcomes:
            self.add(outcome)

    def add(self, outcome: Any) -> None:
        if self._count == self._wanted:
            raise self._miscounted("more")
        self._answer(self._count, outcome)
        self._count += 1

    def end(self) -> None:
        if self._count < self._wanted:
            raise self._miscounted(self._count)

    def _miscounted(self, count: int | str) -> ValueError:
        return ValueError(f"the method has {count} results for {self._wanted} items")
