"""Answers to calls and to the items of batches: what a handler returned, or what it raised."""

from __future__ import annotations

import sys
import traceback

from rollout_plugin._json import TooDeep, encode
from rollout_plugin._log import plain
from rollout_plugin._plugin import BadParams, Cancelled, Reply
from rollout_plugin._wire import TooLarge, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Answers:
    """Queues answers; an answer that can't be sent becomes an error that can."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def call(self, number: int, done: Any, error: BaseException | None) -> None:
        """Answers a call, or ends a batch, with what was returned or raised."""
        try:
            if error is None:
                self._result('{"t":"reply","id":%d,"result":' % number, done)
            else:
                self.fail(number, **_described(error))
        except BaseException as unfit:
            self.fail(number, **_described(unfit))

    def item(self, number: int, n: int, outcome: Any) -> None:
        """Answers an item of a batch, with a result or with an exception."""
        try:
            if isinstance(outcome, BaseException):
                self._fail_item(number, n, outcome)
            else:
                self._result('{"t":"item","id":%d,"n":%d,"result":' % (number, n), outcome)
        except BaseException as unfit:
            self._fail_item(number, n, unfit)

    def fail(self, number: int, code: str, message: str, **more: Any) -> None:
        """Answers a call, or what is left of a batch, with an error."""
        self._queue({"t": "error", "id": number}, {"code": code, "message": message} | more)

    def _fail_item(self, number: int, n: int, error: BaseException) -> None:
        self._queue({"t": "item", "id": number, "n": n}, _described(error), "error")

    def _result(self, head: str, done: Any) -> None:
        payload = b""
        if isinstance(done, Reply):
            done, payload = done.result, done.payload
        self._wire.queue(f"{head}{encode(done, 1)}}}", payload)

    def _queue(self, head: dict[str, Any], error: dict[str, Any], key: str | None = None) -> None:
        def text(error: dict[str, Any]) -> str:
            return encode(head | (error if key is None else {key: error}))

        try:
            self._wire.queue(text(error))
        except (TooLarge, UnicodeEncodeError):
            short = {"code": error["code"], "message": plain(error["message"])}
            self._wire.queue(text(short))


def _described(error: BaseException) -> dict[str, Any]:
    """An exception as the worker words it."""
    if isinstance(error, BadParams):
        return {"code": "bad_params", "message": str(error)}
    if isinstance(error, TooDeep):
        return {"code": "user", "message": f"the result is {error}"}
    if isinstance(error, TooLarge):
        size, _ = error.args
        return {"code": "too_large", "message": "the answer is too large", "got": size}
    if isinstance(error, Cancelled) or _is_cancelled_task(error):
        return {"code": "cancelled", "message": "cancelled on request"}
    trace = "".join(traceback.format_exception(error))
    return {"code": "user", "message": line(error), "traceback": trace}


def _is_cancelled_task(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def line(error: BaseException) -> str:
    """An exception as its traceback's last line has it."""
    return "".join(traceback.format_exception_only(error)).strip()
