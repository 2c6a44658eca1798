"""The event loop for ``async def`` handlers, on a thread that is started with the first call."""

from __future__ import annotations

import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    Answer = Callable[[int, Any, "BaseException | None"], None]
    Begin = Callable[[], Coroutine[Any, Any, Any]]


class Loop:
    """Runs each call as a task; calls that come together cost one hand-over, and so do answers."""

    def __init__(self, places: int, answer: Answer, flush: Callable[[], object]) -> None:
        self._places = places
        self._answer = answer
        self._flush = flush
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: deque[tuple[int, Begin]] = deque()
        self._waking = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._flushing = False

    def start(self, number: int, begin: Begin) -> None:
        """Takes a call, which begins with the next `wake`. From one thread at a time."""
        if self._loop is None:
            import asyncio

            self.places = asyncio.Semaphore(self._places)
            """As many items of batches as there are places run at the same time."""
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._new.append((number, begin))

    def wake(self) -> None:
        """Begins the calls that were taken."""
        if self._new and not self._waking and self._loop is not None:
            self._waking = True
            self._loop.call_soon_threadsafe(self._start_new)

    def cancel(self, number: int) -> None:
        """Cancels a call if it is one of these, once its handler has begun."""
        if self._loop is not None:
            self.wake()
            self._loop.call_soon_threadsafe(self._cancel, number)

    def _start_new(self) -> None:
        assert self._loop is not None
        # First: what is added from here on wakes the loop again.
        self._waking = False
        while self._new:
            number, begin = self._new.popleft()
            self._tasks[number] = self._loop.create_task(self._run(number, begin))

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None and self._loop is not None:
            # A turn later: a task that is cancelled before its first never runs a line.
            self._loop.call_soon(task.cancel)

    async def _run(self, number: int, begin: Begin) -> None:
        done, error = None, None
        try:
            done = await begin()
        except BaseException as raised:
            error = raised
        self._tasks.pop(number, None)
        self._answer(number, done, error)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Writes what is queued once the tasks that can go on have done so. On the loop's thread."""
        if not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush_all)

    def _flush_all(self) -> None:
        self._flushing = False
        self._flush()
