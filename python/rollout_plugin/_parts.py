"""What a call sends before its answer: parts, as far as the worker gives credit, and signs of life."""

from __future__ import annotations

import threading
from time import monotonic

from rollout_plugin._json import encode
from rollout_plugin._plugin import Cancelled
from rollout_plugin._wire import TooLarge, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OFTEN = 0.1
"""A sign of life sooner after the last, in seconds, is worth no frame."""


class Lane:
    """What one call sends before its answer, from any thread; nothing once it is closed."""

    def __init__(self, wire: Wire, number: int, window: int) -> None:
        self._wire = wire
        self._number = number
        self._credit = window
        self._waiting: list[Callable[[], object]] = []
        self._changing = threading.Lock()
        # Apart from the other, because who sends may have to wait for the worker to read.
        self._sending = threading.Lock()
        self._cancelled = False
        self._closed = False
        self._progressed = 0.0

    def take(self, wake: Callable[[], object]) -> bool:
        """Takes the credit for a part. If there is none, `wake` will be called when that may have
        changed. Raises `Cancelled`."""
        with self._changing:
            if self._cancelled:
                raise Cancelled
            if self._credit:
                self._credit -= 1
                return True
            self._waiting.append(wake)
            return False

    def give(self, count: int) -> None:
        """Adds credit, and wakes everyone who waits for some."""
        with self._changing:
            self._credit += count
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def cancel(self) -> None:
        """Lets nobody wait for credit any more."""
        self._cancelled = True
        self.give(0)

    def send(self, result: Any, payload: bytes) -> None:
        """Sends a part whose credit was taken. Raises what JSON can't express, and `TooLarge`."""
        try:
            text = '{"t":"part","id":%d,"result":%s}' % (self._number, encode(result, 1))
            self._queue(text, payload)
        except (TooLarge, TypeError, ValueError, RecursionError):
            self.give(1)
            raise

    def progress(self) -> None:
        """Says that the call is not stuck, unless it has just been said."""
        now = monotonic()
        if now - self._progressed < _OFTEN:
            return
        self._progressed = now
        self._queue('{"t":"progress","id":%d}' % self._number)

    def close(self) -> None:
        """Waits for what is being sent; the answer may follow."""
        with self._sending:
            self._closed = True

    def _queue(self, text: str, payload: bytes = b"") -> None:
        with self._sending:
            if self._closed:
                raise RuntimeError("the call has been answered")
            self._wire.queue(text, payload)
            self._wire.flush()
