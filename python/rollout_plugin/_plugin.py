"""What a plugin's author sees: the base class, the decorator, a call and a reply."""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar, TypeVar

    from rollout_plugin._parts import Lane

    Handler = TypeVar("Handler", bound=Callable[..., Any])

_MARK = "__rollout_method__"


class BadConfig(Exception):
    """Raised by a constructor whose configuration doesn't fit. Its text is what the worker shows."""


class BadParams(Exception):
    """Raised by a handler whose parameters don't fit."""


class Cancelled(BaseException):
    """Raised where a handler sends a part that nobody waits for any more. Let it pass."""


class Plugin:
    """A plugin: made once from the manifest's ``[config]``, then called, several calls at a time."""

    name: ClassVar[str] = ""
    """As the manifest has it; a plugin without one takes whatever name the manifest gives it."""
    version: ClassVar[str]
    """As the manifest has it."""
    max_in_flight: ClassVar[int] = 64
    """How many calls it takes at the same time; the manifest may allow fewer."""
    max_frame: ClassVar[int] = 2**32 - 1
    """How many bytes it takes in a call and gives in an answer, payload included; at least 4096. The
    manifest may allow fewer."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def shutdown(self) -> None:
        """Prepares the end, when the worker asks for it."""


def method(handler: Handler | None = None, *, batch: bool = False) -> Any:
    """Makes a function of a `Plugin` a method that the worker can call, under the function's name.

    It is called with the parameters and the `Call`. With ``batch=True`` it is called with a list of
    parameters, whose bytes are `Call.payloads`, and returns or yields as many results, in their
    order; a result that is an exception is that item's error.
    """

    def mark(handler: Handler) -> Handler:
        setattr(handler, _MARK, batch)
        return handler

    return mark if handler is None else mark(handler)


def methods(plugin: type[Plugin]) -> dict[str, Callable[..., Any]]:
    """The functions of a plugin that `method` has marked, by name."""
    found = ((name, getattr(plugin, name)) for name in dir(plugin))
    return {name: handler for name, handler in found if hasattr(handler, _MARK)}


def takes_batches(handler: Callable[..., Any]) -> bool:
    """Whether a method is called with a list of parameters."""
    return bool(getattr(handler, _MARK))


class Call:
    """One call, as its handler sees it."""

    __slots__ = (
        "_answered",
        "_cancelled",
        "_deadline",
        "_event",
        "_lane",
        "_lane_of",
        "_number",
        "method",
        "payload",
        "payloads",
    )

    def __init__(
        self,
        method: str,
        payload: bytes,
        timeout: float,
        number: int,
        lane_of: Callable[[int], Lane],
    ) -> None:
        self.method = method
        self.payload = payload
        self.payloads: Sequence[bytes] = ()
        """The bytes beside each of the parameters, for a method with ``batch=True``."""
        self._deadline = time.monotonic() + timeout
        self._number = number
        self._lane_of = lane_of
        self._cancelled = False
        self._answered = False
        self._event: threading.Event | None = None
        self._lane: Lane | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more. A handler that may take long looks here now
        and then; an ``async def`` handler is cancelled by asyncio as well."""
        return self._cancelled

    @property
    def remaining(self) -> float:
        """The seconds until the caller stops waiting; never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Sleeps until the call is cancelled, at most so long; whether it is cancelled."""
        with _MAKING:
            event = self._event = self._event or threading.Event()
        # Whoever cancelled before the event was there could not set it.
        return self._cancelled or event.wait(seconds)

    def progress(self) -> None:
        """Says that the handler is not stuck. As often as you like: the worker is told ten times a
        second at most."""
        self._sending().progress()

    def part(self, result: Any, payload: bytes = b"") -> None:
        """Sends a part of the answer ahead of it; waits while the worker has enough of them.

        Raises `Cancelled` when nobody waits any more. Inside a batch, which has whole answers only,
        nothing is sent. An ``async def`` handler yields its parts instead.
        """
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            raise RuntimeError("an async def handler yields its parts")
        lane = self._sending()
        woken = threading.Event()
        while not lane.take(woken.set):
            woken.wait()
            woken.clear()
        lane.send(result, payload)

    async def _part_async(self, result: Any, payload: bytes = b"") -> None:
        """As `part`, for the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        lane = self._sending()
        woken = asyncio.Event()
        while not lane.take(lambda: loop.call_soon_threadsafe(woken.set)):
            await woken.wait()
            woken.clear()
        lane.send(result, payload)

    def _sending(self) -> Lane:
        if self._lane is None:
            with _MAKING:
                self._lane = self._lane or self._lane_of(self._number)
        # Only now that there is a lane, which a cancellation or the answer finds from here on.
        if self._cancelled:
            self._lane.cancel()
        if self._answered:
            self._lane.close()
        return self._lane

    def _cancel(self) -> None:
        self._cancelled = True
        if self._event is not None:
            self._event.set()
        if self._lane is not None:
            self._lane.cancel()

    def _end(self) -> None:
        """Nothing is sent any more: the answer is next."""
        self._answered = True
        if self._lane is not None:
            self._lane.close()


class Item(Call):
    """One item of a batch, as the handler sees it that is called for each."""

    __slots__ = ("_batch",)

    def __init__(self, batch: Call, payload: bytes) -> None:
        self.method = batch.method
        self.payload = payload
        self._deadline = batch._deadline
        self._batch = batch

    @property
    def cancelled(self) -> bool:
        return self._batch.cancelled

    def wait(self, seconds: float) -> bool:
        return self._batch.wait(seconds)

    def progress(self) -> None:
        self._batch.progress()

    def part(self, result: Any, payload: bytes = b"") -> None:
        if self.cancelled:
            raise Cancelled

    async def _part_async(self, result: Any, payload: bytes = b"") -> None:
        self.part(result, payload)


_MAKING = threading.Lock()


class Reply:
    """A result with bytes beside it."""

    __slots__ = ("payload", "result")

    def __init__(self, result: Any, payload: bytes = b"") -> None:
        self.result = result
        self.payload = payload
