"""Threads that are started when all others are busy, up to a limit."""

from __future__ import annotations

import threading
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Threads:
    """Runs work, each at once on a thread that is idle or new, as long as the limit allows."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._starting = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def run(self, work: Callable[[], object]) -> None:
        self._work.put(work)
        if self._idle.acquire(blocking=False):
            return
        with self._starting:
            if self._count == self._limit:
                return
            self._count += 1
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()
