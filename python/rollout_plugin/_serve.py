"""The sidecar itself: connects to the worker, answers calls, ends when it is asked to or when the
worker is gone."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import traceback
from _queue import SimpleQueue

from rollout_plugin._plugin import BadParams, Call, Plugin, Reply, methods
from rollout_plugin._wire import TooLarge, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PROTO = 1
_SDK = "python 0.1.0"
_SHORT = 256
_COROUTINE = 0x80
"""inspect.CO_COROUTINE, without the import of inspect."""


def run(plugin: type[Plugin]) -> None:
    """Serves a plugin to the worker that started this process; returns when it is shut down."""
    address = os.environ.get("ROLLOUT_PLUGIN_SOCKET")
    # Not for the processes that the plugin may start.
    token = os.environ.pop("ROLLOUT_PLUGIN_TOKEN", "")
    if address is None:
        sys.exit(f"{plugin.name} is a rollout plugin: a worker starts it, from its manifest")
    # A line that was printed is out, even into a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(address)
    if not serve(plugin, connected, token):
        # The worker is gone; nothing that still runs here is of use to anyone.
        os._exit(0)


def serve(plugin: type[Plugin], connected: socket.socket, token: str) -> bool:
    """Serves a plugin on a connected socket; whether the end was asked for."""
    wire = Wire(connected)
    hello = wire.read()
    if hello is None:
        return False
    message, _ = hello
    oldest, newest = message["proto"]
    if not oldest <= _PROTO <= newest:
        wire.write({"t": "refuse", "message": f"this SDK speaks version {_PROTO} of the wire"})
        return True
    wire.max_frame = message["limits"]["max_frame"]
    _to_worker(wire)
    try:
        instance = plugin(message["config"])
    except Exception as error:
        traceback.print_exc()
        wire.write({"t": "refuse", "message": _line(error)[:_SHORT]})
        return True
    in_flight = min(plugin.max_in_flight, message["limits"]["max_in_flight"])
    server = _Server(wire, instance, in_flight)
    wire.write(
        {
            "t": "ready",
            "proto": _PROTO,
            "token": token,
            "name": plugin.name,
            "version": plugin.version,
            "sdk": _SDK,
            "methods": [
                {"name": name, "doc": (handler.__doc__ or "").strip()}
                for name, handler in methods(plugin).items()
            ],
            "max_in_flight": in_flight,
        }
    )
    return server.serve()


class _Server:
    """Reads calls on its own thread, runs them on others."""

    def __init__(self, wire: Wire, plugin: Plugin, in_flight: int) -> None:
        self._wire = wire
        self._plugin = plugin
        self._handlers = {name: getattr(plugin, name) for name in methods(type(plugin))}
        self._calls: dict[int, Callable[[], object]] = {}
        self._threads = _Threads(in_flight)
        self._loop: Any = None

    def serve(self) -> bool:
        while (frame := self._wire.read()) is not None:
            message, tail = frame
            match message["t"]:
                case "call":
                    self._start(message, tail)
                case "cancel":
                    self._cancel(message["id"])
                case "shutdown":
                    for number in list(self._calls):
                        self._cancel(number)
                    self._plugin.shutdown()
                    return True
        return False

    def _cancel(self, number: int) -> None:
        cancel = self._calls.get(number)
        if cancel is not None:
            cancel()

    def _start(self, message: dict[str, Any], tail: bytes) -> None:
        number, name = message["id"], message["method"]
        handler = self._handlers.get(name)
        if handler is None:
            self._fail(number, "unknown_method", f"no method {name!r}")
            return
        call = Call(name, tail, message["timeout_ms"] / 1000)
        if _is_async(handler):
            self._start_task(number, handler, message["params"], call)
            return
        self._calls[number] = call._cancel
        self._threads.run(lambda: self._answer(number, lambda: handler(message["params"], call)))

    def _start_task(
        self, number: int, handler: Callable[..., Any], params: Any, call: Call
    ) -> None:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()

        # All but `cancel` run on the loop, `start` before any cancellation.
        tasks: list[asyncio.Task[Any]] = []

        async def work() -> Any:
            return await handler(params, call)

        def start() -> None:
            tasks.append(self._loop.create_task(work()))
            tasks[0].add_done_callback(finish)

        def finish(task: asyncio.Task[Any]) -> None:
            # A task that is cancelled early never runs a line of its handler.
            if task.cancelled():
                self._calls.pop(number, None)
                self._fail(number, "cancelled", "cancelled on request")
            else:
                self._answer(number, task.result)

        def cancel() -> None:
            call._cancel()
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())

        self._calls[number] = cancel
        self._loop.call_soon_threadsafe(start)

    def _answer(self, number: int, work: Callable[[], Any]) -> None:
        """Sends what the work returns or raises."""
        try:
            self._reply(number, work())
        except BaseException as error:
            self._report(number, error)
        finally:
            self._calls.pop(number, None)

    def _reply(self, number: int, done: Any) -> None:
        result, payload = (done.result, done.payload) if isinstance(done, Reply) else (done, b"")
        try:
            self._wire.write({"t": "reply", "id": number, "result": result}, payload)
        except TooLarge as large:
            size, _ = large.args
            self._fail(number, "too_large", "the answer is too large", got=size)

    def _report(self, number: int, error: BaseException) -> None:
        if isinstance(error, BadParams):
            self._fail(number, "bad_params", str(error))
        else:
            trace = "".join(traceback.format_exception(error))
            self._fail(number, "user", _line(error), traceback=trace)

    def _fail(self, number: int, code: str, text: str, **more: Any) -> None:
        message = {"t": "error", "id": number, "code": code, "message": text}
        try:
            self._wire.write(message | more)
        except (TooLarge, UnicodeEncodeError):
            self._wire.write(message | {"message": _plain(text)})


class _Threads:
    """Threads that are started when all others are busy, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def run(self, work: Callable[[], object]) -> None:
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and self._count < self._limit:
            self._count += 1
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()


class _Records(logging.Handler):
    """Sends log records to the worker."""

    _LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = next((word for at, word in self._LEVELS if record.levelno >= at), "debug")
            message = {"t": "log", "level": level, "target": record.name}
            text = self.format(record)
            try:
                self._wire.write(message | {"message": text})
            except (TooLarge, UnicodeEncodeError):
                self._wire.write(message | {"target": "", "message": _plain(text)})
        except Exception:
            self.handleError(record)


def _to_worker(wire: Wire) -> None:
    root = logging.getLogger()
    root.addHandler(_Records(wire))
    root.setLevel(logging.INFO)


def _is_async(handler: Callable[..., Any]) -> bool:
    code = getattr(handler, "__code__", None)
    return code is not None and bool(code.co_flags & _COROUTINE)


def _line(error: BaseException) -> str:
    """An exception as its traceback's last line has it."""
    return "".join(traceback.format_exception_only(error)).strip()


def _plain(text: str) -> str:
    """A text that fits any frame."""
    return text[:_SHORT].encode("ascii", "backslashreplace").decode()[: 4 * _SHORT]
