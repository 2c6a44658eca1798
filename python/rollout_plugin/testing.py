"""Tests a plugin without a worker: the plugin in this process, on the real wire.

    from rollout_plugin.testing import CallError, Host

    with Host(Shout, {"loud": True}) as host:
        assert host.call("shout", {"text": "hi"}).result == "HI"

`Host.stream` gives the parts of an answer as they come, `Host.batch` the answers to several items.
A call that fails raises `CallError`. What the plugin logs is in `Host.logs`. As it does in a worker,
`logging` goes to the host while there is one.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from rollout_plugin._plugin import Plugin, Reply
from rollout_plugin._serve import serve
from rollout_plugin._wire import TooLarge, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import TypeVar

    Started = TypeVar("Started", bound="Pending")


class CallError(Exception):
    """A call that failed."""

    def __init__(self, code: str, message: str, traceback: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        """As a worker words it: ``user``, ``bad_params``, ``unknown_method``, ``cancelled``,
        ``too_large``; or ``closed`` if the plugin ended first."""
        self.message = message
        self.traceback = traceback


class Refused(Exception):
    """A plugin that did not start."""


_WINDOW = 16
"""How many parts a call may send before they are taken, as in a worker."""


class Log(NamedTuple):
    """A log record, as a worker gets it."""

    level: str
    target: str
    message: str


class Pending:
    """A call under way."""

    def __init__(self, host: Host, number: int) -> None:
        self.progress = 0
        """How often the plugin has said that it is not stuck."""
        self._host = host
        self._number = number
        self._answer: Future[Reply] = Future()

    def cancel(self) -> None:
        """Tells the plugin that nobody waits any more. The call ends as its handler ends."""
        self._host._wire.write({"t": "cancel", "id": self._number})

    def reply(self, wait: float = 10.0) -> Reply:
        """The reply, waited for at most so many seconds. Raises `CallError`, or `TimeoutError`."""
        return self._answer.result(wait)

    def _part(self, part: Reply) -> None:
        """Drops a part, as a worker does where the caller asked for none."""
        self._credit(1)

    def _credit(self, count: int) -> None:
        self._host._wire.write({"t": "credit", "id": self._number, "n": count})

    def _item(self, n: int, outcome: Reply | CallError) -> None:
        raise AssertionError(f"call {self._number} is no batch")

    def _end(self, outcome: Reply | CallError) -> None:
        if isinstance(outcome, CallError):
            self._answer.set_exception(outcome)
        else:
            self._answer.set_result(outcome)


class Stream(Pending):
    """A call whose parts are taken: iterate over it, then take its `reply`."""

    def __init__(self, host: Host, number: int, wait: float) -> None:
        super().__init__(host, number)
        self._wait = wait
        self._parts: SimpleQueue[Reply | None] = SimpleQueue()

    def __iter__(self) -> Iterator[Reply]:
        taken = 0
        while (part := self._next()) is not None:
            taken += 1
            if taken == _WINDOW // 2:
                self._credit(taken)
                taken = 0
            yield part

    def _next(self) -> Reply | None:
        try:
            return self._parts.get(timeout=self._wait)
        except Empty:
            raise TimeoutError(f"no part within {self._wait} s") from None

    def _part(self, part: Reply) -> None:
        self._parts.put(part)

    def _end(self, outcome: Reply | CallError) -> None:
        super()._end(outcome)
        self._parts.put(None)


class _Batch(Pending):
    """A batch under way."""

    def __init__(self, host: Host, number: int, count: int) -> None:
        super().__init__(host, number)
        self.outcomes: list[Reply | CallError | None] = [None] * count

    def _item(self, n: int, outcome: Reply | CallError) -> None:
        assert self.outcomes[n] is None, f"item {n} is answered twice"
        self.outcomes[n] = outcome


class Host:
    """Serves a plugin until it is closed; a context manager."""

    def __init__(
        self,
        plugin: type[Plugin],
        config: dict[str, Any] | None = None,
        *,
        max_frame: int = 16 * 1024 * 1024,
        max_in_flight: int = 64,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.logs: list[Log] = []
        """What the plugin has logged so far."""
        self._root = (logging.root.level, list(logging.root.handlers))
        self._sockets = (ours, theirs)
        self._wire = Wire(ours)
        self._next = 0
        self._pending: dict[int, Pending] = {}
        self._over = False
        self._lock = threading.Lock()
        self._serving = threading.Thread(target=self._serve, args=(plugin,), daemon=True)
        self._serving.start()
        limits = {"max_frame": max_frame, "max_in_flight": max_in_flight, "part_window": _WINDOW}
        name = plugin.name or plugin.__name__
        hello = {"t": "hello", "proto": [1, 1], "plugin": name, "limits": limits}
        self._wire.write(hello | {"config": json.loads(json.dumps(config or {}))})
        self._wire.max_frame = max_frame
        self._reading: threading.Thread | None = None
        self.ready = self._greeting()
        """What the plugin said of itself."""
        self._wire.max_frame = self.ready.get("max_frame", max_frame)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def call(
        self, method: str, params: Any = None, payload: bytes = b"", *, timeout: float = 10.0
    ) -> Reply:
        """Calls a method and waits for its reply. Raises `CallError`, or `TimeoutError`."""
        call = self.start(method, params, payload, timeout=timeout)
        try:
            return call.reply(timeout)
        except TimeoutError:
            call.cancel()
            raise

    def start(
        self, method: str, params: Any = None, payload: bytes = b"", *, timeout: float = 10.0
    ) -> Pending:
        """Starts a call, whose handler is told that it has so many seconds."""
        message = {"t": "call", "method": method, "params": params}
        return self._send(Pending, message, payload, timeout)

    def stream(
        self, method: str, params: Any = None, payload: bytes = b"", *, timeout: float = 10.0
    ) -> Stream:
        """Starts a call whose parts are taken; each is waited for at most so long."""
        message = {"t": "call", "method": method, "params": params}
        return self._send(lambda *at: Stream(*at, timeout), message, payload, timeout)

    def batch(
        self,
        method: str,
        params: Sequence[Any],
        payloads: Sequence[bytes] | None = None,
        *,
        timeout: float = 10.0,
    ) -> list[Reply | CallError]:
        """Calls a method for each of the items at once, and waits for all their answers. An item
        that fails has its error among them."""
        payloads = [b""] * len(params) if payloads is None else payloads
        items = [
            {"n": n, "params": one, "tail": len(payload)}
            for n, (one, payload) in enumerate(zip(params, payloads, strict=True))
        ]
        message = {"t": "batch", "method": method, "items": items}
        tail = b"".join(payloads)
        batch = self._send(lambda *at: _Batch(*at, len(items)), message, tail, timeout)
        left: CallError | None = None
        try:
            batch.reply(timeout)
        except CallError as error:
            left = error
        except TimeoutError:
            batch.cancel()
            raise
        outcomes = [left if outcome is None else outcome for outcome in batch.outcomes]
        assert None not in outcomes, "an item has no answer"
        return outcomes  # type: ignore[return-value]

    def _send(
        self,
        make: Callable[[Host, int], Started],
        message: dict[str, Any],
        payload: bytes,
        timeout: float,
    ) -> Started:
        with self._lock:
            if self._over:
                raise CallError("closed", "the plugin has ended")
            self._next += 1
            number = self._next
            call = self._pending[number] = make(self, number)
        try:
            self._wire.write(message | {"id": number, "timeout_ms": int(timeout * 1000)}, payload)
        except TooLarge as large:
            del self._pending[number]
            size, limit = large.args
            error = f"the call ({size} bytes) is over max_frame ({limit} bytes)"
            raise CallError("too_large", error) from None
        return call

    def close(self, grace: float = 10.0) -> None:
        """Shuts the plugin down. Raises `TimeoutError` if that takes longer."""
        self._wire.write({"t": "shutdown", "grace_ms": int(grace * 1000)})
        self._serving.join(grace)
        late = self._serving.is_alive()
        if not late and self._reading is not None:
            # To the end of what it wrote.
            self._reading.join(grace)
        self._end()
        if late:
            raise TimeoutError(f"the plugin's shutdown takes longer than {grace} s")

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _greeting(self) -> dict[str, Any]:
        refused = "it ended before it was ready"
        while (frame := self._wire.read()) is not None:
            message, _ = frame
            if message["t"] == "ready":
                return message
            if message["t"] == "refuse":
                refused = message["message"]
                break
            self._log(message)
        self._serving.join()
        self._end()
        raise Refused(refused)

    def _serve(self, plugin: type[Plugin]) -> None:
        try:
            serve(plugin, self._sockets[1], "token")
        finally:
            # What it has written can still be read.
            self._sockets[1].shutdown(socket.SHUT_RDWR)

    def _log(self, message: dict[str, Any]) -> None:
        self.logs.append(Log(message["level"], message["target"], message["message"]))

    def _read(self) -> None:
        while (frame := self._wire.read()) is not None:
            message, tail = frame
            self._take(message, tail)
        with self._lock:
            self._over = True
        for call in self._pending.values():
            call._end(CallError("closed", "the plugin has ended"))

    def _take(self, message: dict[str, Any], tail: bytes) -> None:
        kind = message["t"]
        if kind == "log":
            return self._log(message)
        call = self._pending[message["id"]]
        if kind == "part":
            call._part(Reply(message["result"], tail))
        elif kind == "progress":
            call.progress += 1
        elif kind == "item":
            call._item(message["n"], _outcome(message, tail))
        else:
            del self._pending[message["id"]]
            call._end(_outcome(message, tail))

    def _end(self) -> None:
        """Puts everything back, whatever the plugin still does."""
        self._sockets[0].shutdown(socket.SHUT_RD)
        if self._reading is not None:
            self._reading.join()
        self._sockets[0].close()
        if not self._serving.is_alive():
            self._sockets[1].close()
        logging.root.setLevel(self._root[0])
        logging.root.handlers[:] = self._root[1]


def _outcome(message: dict[str, Any], tail: bytes) -> Reply | CallError:
    """What an answer says."""
    if "result" in message:
        return Reply(message["result"], tail)
    error = message.get("error", message)
    return CallError(error["code"], error["message"], error.get("traceback"))
