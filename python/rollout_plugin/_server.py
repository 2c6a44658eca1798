"""Answers calls.

The thread that reads runs a plain handler itself: nothing is handed over, and the answers of calls
that came together leave together. The main thread watches. When a handler keeps the reader for
longer than a moment, another thread reads on in its place, so that no call waits for another; a
method that was slow once runs on a thread of its own until it has been quick for a while. Handlers
that yield, and batches, have a thread of their own from the start.
"""

from __future__ import annotations

import sys
import traceback
from _queue import Empty, SimpleQueue
from time import monotonic

from rollout_plugin._answers import Answers, line
from rollout_plugin._batch import Batch
from rollout_plugin._handlers import Handler
from rollout_plugin._json import Malformed, Unreadable
from rollout_plugin._loop import Loop
from rollout_plugin._parts import Lane
from rollout_plugin._plugin import BadParams, Call, Plugin, methods
from rollout_plugin._threads import Threads
from rollout_plugin._wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MOMENT = 0.005
"""How long a handler may keep the reader, in seconds, and how often the main thread looks."""
_SLOW = 0.001
"""A handler that takes longer, in seconds, costs less on a thread of its own than it delays."""
_QUICK_AGAIN = 100
"""After so many quick calls on other threads, a method is run by the reader again."""


class Server:
    """Reads and answers from the start; knows the plugin as soon as there is one."""

    def __init__(
        self, wire: Wire, in_flight: int, window: int, ended: Callable[[int], object]
    ) -> None:
        self.in_flight = in_flight
        self._wire = wire
        self._window = window
        self._ended = ended
        self._answers = Answers(wire)
        self._handlers: dict[str, Handler] = {}
        self._calls: dict[int, Call] = {}
        self._loop = Loop(in_flight, self._answer, wire.flush)
        wire.before_wait = self._pass_on
        self._slow: dict[str, int] = {}
        # Holds one item while the reader is in a handler; who takes it out, reads on. The list's
        # own operations are atomic.
        self._turn: list[str] = []
        self._turns = 0
        self._watched = True
        # What the main thread is told: True to look at the reader, False at the end, else a
        # shutdown.
        self._told: SimpleQueue[bool | None] = SimpleQueue()
        # One more, because the reader is one of them.
        self._threads = Threads(in_flight + 1)
        self._threads.run(self._read)

    def take(self, plugin: Plugin) -> None:
        """Says whose methods are called."""
        for name in methods(type(plugin)):
            self._handlers[name] = Handler(getattr(plugin, name))

    def _lane(self, number: int) -> Lane:
        return Lane(self._wire, number, self._window)

    def serve(self, plugin: Plugin) -> bool:
        """Watches the reader until the end; whether it was asked for."""
        while (told := self._watch()) is True:
            pass
        if told is None:
            plugin.shutdown()
        return told is None

    def _watch(self) -> bool | None:
        """Looks once a moment while handlers are run or answers lie about, then waits until it has to
        again or the end comes."""
        while True:
            turns, flushed = self._turns, self._wire.flushed
            try:
                told = self._told.get(timeout=_MOMENT)
            except Empty:
                pass
            else:
                if told is not True:
                    return told
                # The moment begins now.
                continue
            if self._turns != turns:
                continue
            if self._turn:
                self._take_over()
                continue
            # Whoever writes takes all there is: then nothing has lain about for a moment.
            if self._wire.flushed != flushed or self._wire.flush():
                continue
            self._watched = False
            if self._turns == turns and not self._wire.flush():
                return self._told.get()
            self._watched = True

    def _watch_on(self) -> None:
        if not self._watched:
            self._watched = True
            self._told.put(True)

    def _take_over(self) -> None:
        """Lets another thread read, if the reader is still in a handler."""
        try:
            name = self._turn.pop()
        except IndexError:
            return
        self._slow[name] = _QUICK_AGAIN
        self._pass_on()
        self._threads.run(self._read)

    def _pass_on(self) -> None:
        """Lets nothing wait for a reader that is about to wait itself."""
        self._wire.flush()
        self._loop.wake()

    def _read(self) -> None:
        """The life of the reader."""
        status = 0
        try:
            while (frame := self._wire.read()) is not None:
                if not self._take(*frame):
                    return
        except Malformed as error:
            print("the worker sent what is no message:", error, file=sys.stderr, flush=True)
            status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        self._ended(status)
        self._told.put(False)

    def _take(self, message: dict[str, Any], tail: bytes) -> bool:
        """Does what the worker wants; whether this thread is still the reader."""
        kind = message.get("t")
        try:
            if kind == "call":
                return self._start(message, tail)
            if kind == "batch":
                self._start_batch(message, tail)
            elif kind == "credit":
                self._credit(message["id"], message["n"])
            elif kind == "ping":
                self._wire.queue('{"t":"pong"}')
            elif kind == "cancel":
                self._cancel(message["id"])
            elif kind == "shutdown":
                for number in list(self._calls):
                    self._cancel(number)
                self._told.put(None)
        except (KeyError, TypeError) as error:
            raise Malformed(f"a {kind!r} message: {line(error)}") from error
        return True

    def _cancel(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None:
            call._cancel()
            self._loop.cancel(number)

    def _credit(self, number: int, count: int) -> None:
        call = self._calls.get(number)
        if call is not None and call._lane is not None:
            call._lane.give(count)

    def _start(self, message: dict[str, Any], tail: bytes) -> bool:
        number, name, params = message["id"], message["method"], message["params"]
        call = Call(name, tail, message["timeout_ms"] / 1000, number, self._lane)
        handler = self._handlers.get(name)
        if handler is None:
            self._answers.fail(number, "unknown_method", f"no method {name!r}")
            return True
        if type(params) is Unreadable:
            self._answers.fail(number, "bad_params", params.reason)
            return True
        self._calls[number] = call
        if handler.is_async:
            self._loop.start(number, lambda: handler.run(params, call))
        elif handler.streams or name in self._slow:
            self._threads.run(lambda: self._elsewhere(number, handler, params, call))
        else:
            return self._here(number, handler, params, call)
        return True

    def _start_batch(self, message: dict[str, Any], tail: bytes) -> None:
        number, name = message["id"], message["method"]
        call = Call(name, b"", message["timeout_ms"] / 1000, number, self._lane)
        batch = Batch(call, message["items"], tail)
        handler = self._handlers.get(name)
        if handler is None:
            self._answers.fail(number, "unknown_method", f"no method {name!r}")
            return
        for n, reason in batch.unreadable:
            self._answers.item(number, n, BadParams(reason))
        self._calls[number] = call
        if handler.is_async:
            self._loop.start(number, lambda: self._batch_on_loop(handler, batch))
        else:
            self._threads.run(lambda: self._batch(handler, batch))

    def _here(self, number: int, handler: Handler, params: Any, call: Call) -> bool:
        """Runs a handler on the reader; whether it is still the reader afterwards."""
        begin = monotonic()
        self._turns += 1
        self._turn.append(call.method)
        self._watch_on()
        self._run(number, handler, params, call)
        slow = monotonic() - begin > _SLOW
        if slow:
            self._slow[call.method] = _QUICK_AGAIN
        try:
            self._turn.pop()
        except IndexError:
            self._wire.flush()
            return False
        if slow:
            self._pass_on()
        return True

    def _elsewhere(self, number: int, handler: Handler, params: Any, call: Call) -> None:
        """Runs a handler on a thread of its own."""
        begin = monotonic()
        self._run(number, handler, params, call)
        self._wire.flush()
        if monotonic() - begin > _SLOW:
            self._slow[call.method] = _QUICK_AGAIN
            return
        left = self._slow.get(call.method, 0) - 1
        if left > 0:
            self._slow[call.method] = left
        else:
            self._slow.pop(call.method, None)

    def _run(self, number: int, handler: Handler, params: Any, call: Call) -> None:
        try:
            done = handler.run(params, call)
        except BaseException as error:
            self._answer(number, None, error)
        else:
            self._answer(number, done, None)

    def _batch(self, handler: Handler, batch: Batch) -> None:
        """Answers a batch on a thread of its own."""
        number = batch.call._number
        flushed = monotonic()

        def answer(n: int, outcome: Any) -> None:
            nonlocal flushed
            self._answers.item(number, batch.numbers[n], outcome)
            now = monotonic()
            if now - flushed > _MOMENT:
                self._wire.flush()
                flushed = now
            else:
                # The next item may be slow; this answer shall not wait for it.
                self._watch_on()

        error = None
        try:
            handler.run_batch(batch.params, batch.call, answer)
        except BaseException as raised:
            error = raised
        self._answer(number, None, error)
        self._wire.flush()

    async def _batch_on_loop(self, handler: Handler, batch: Batch) -> None:
        def answer(n: int, outcome: Any) -> None:
            self._answers.item(batch.call._number, batch.numbers[n], outcome)
            self._loop.flush_soon()

        await handler.run_batch(batch.params, batch.call, answer, self._loop.places)

    def _answer(self, number: int, done: Any, error: BaseException | None) -> None:
        """Queues the answer to a call or the end of a batch: what was returned or raised."""
        call = self._calls.pop(number)
        call._end()
        self._answers.call(number, done, error)
