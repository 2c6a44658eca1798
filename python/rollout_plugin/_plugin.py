"""What a plugin's author sees: the base class, the decorator, a call and a reply."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    Handler = TypeVar("Handler", bound=Callable[..., Any])

_MARK = "__rollout_method__"


class BadParams(Exception):
    """Raised by a handler whose parameters don't fit."""


class Plugin:
    """A plugin: made once from the manifest's ``[config]``, then called, several calls at a time."""

    name: ClassVar[str]
    """As the manifest has it."""
    version: ClassVar[str]
    """As the manifest has it."""
    max_in_flight: ClassVar[int] = 64
    """How many calls it takes at the same time; the manifest may allow fewer."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def shutdown(self) -> None:
        """Prepares the end, when the worker asks for it."""


def method(handler: Handler) -> Handler:
    """Makes a function of a `Plugin` a method that the worker can call, under the function's name.

    It is called with the parameters and the `Call`.
    """
    setattr(handler, _MARK, True)
    return handler


def methods(plugin: type[Plugin]) -> dict[str, Callable[..., Any]]:
    """The functions of a plugin that `method` has marked, by name."""
    found = ((name, getattr(plugin, name)) for name in dir(plugin))
    return {name: handler for name, handler in found if hasattr(handler, _MARK)}


class Call:
    """One call, as its handler sees it."""

    __slots__ = ("_cancelled", "_deadline", "_event", "method", "payload")

    def __init__(self, method: str, payload: bytes, timeout: float) -> None:
        self.method = method
        self.payload = payload
        self._deadline = time.monotonic() + timeout
        self._cancelled = False
        self._event: threading.Event | None = None

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

    def _cancel(self) -> None:
        self._cancelled = True
        if self._event is not None:
            self._event.set()


_MAKING = threading.Lock()


class Reply:
    """A result with bytes beside it."""

    __slots__ = ("payload", "result")

    def __init__(self, result: Any, payload: bytes = b"") -> None:
        self.result = result
        self.payload = payload
