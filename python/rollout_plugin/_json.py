"""JSON as the wire has it: bounded nesting, no NaN, no Infinity, UTF-8 and nothing else."""

from __future__ import annotations

import json
import json.encoder
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 100
"""The deepest nesting of a message; the worker stops a plugin that sends a deeper one."""

_NO_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[^\[\]{}"]++')
_DEFAULT = json.JSONEncoder().default


class Malformed(Exception):
    """What the worker sent is no message."""


class TooDeep(ValueError):
    """A value that is nested deeper than a message may be."""

    def __init__(self) -> None:
        super().__init__(f"nested deeper than {MAX_DEPTH} levels")


class Unreadable:
    """Stands for parameters that are JSON, but nothing that Python reads."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _no_number(text: str) -> Any:
    raise Malformed(f"{text} is no JSON")


def _int(text: str) -> int | Unreadable:
    try:
        return int(text)
    except ValueError as error:
        return Unreadable(str(error))


_DECODER = json.JSONDecoder(parse_constant=_no_number)
_LENIENT = json.JSONDecoder(parse_constant=_no_number, parse_int=_int)
_scan = _DECODER.scan_once  # type: ignore[attr-defined]


def decode(data: bytes) -> dict[str, Any]:
    """A message. Raises `Malformed`."""
    try:
        text = data.decode()
        if _deeper(text, MAX_DEPTH):
            raise TooDeep
        message = _value(text)
    except ValueError as error:
        raise Malformed(str(error)) from None
    if type(message) is not dict:
        raise Malformed("a message is a JSON object")
    return message


def _value(text: str) -> Any:
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, json.JSONDecodeError):
        pass
    except ValueError:
        # Python's bound on the digits of an int.
        value = _LENIENT.decode(text)
        items = value.get("items") if type(value) is dict else None
        for call in [value, *(items if type(items) is list else ())]:
            if type(call) is dict and (found := _unreadable(call.get("params"))):
                call["params"] = found
        return value
    # White space around it, or an error that this words better.
    return _DECODER.decode(text)


def _unreadable(value: Any) -> Unreadable | None:
    """What in it Python does not read, if there is such a thing."""
    if type(value) is Unreadable:
        return value
    inside = value.values() if type(value) is dict else value if type(value) is list else ()
    return next(filter(None, map(_unreadable, inside)), None)


def _make_encoder() -> Any:
    make = getattr(json.encoder, "c_make_encoder", None)
    encode_text = getattr(json.encoder, "c_encode_basestring", None)
    if make is None or encode_text is None:
        plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return lambda value, _: plain.encode(value)
    # What JSONEncoder.encode makes anew for every value. A value that holds itself ends in a
    # RecursionError.
    return make(None, _DEFAULT, encode_text, None, ":", ",", False, False, False)


_chunks = _make_encoder()


def encode(value: Any, levels: int = 0) -> str:
    """A value that will be inside `levels` of other JSON. Raises what JSON can't express."""
    text = "".join(_chunks(value, 0))
    if _deeper(text, MAX_DEPTH - levels):
        raise TooDeep
    return text


def _deeper(text: str, limit: int) -> bool:
    """Whether JSON is nested deeper than the limit, without recursion."""
    if text.count("[") + text.count("{") <= limit:
        return False
    left = _NO_BRACKET.sub("", text).replace("{", "[").replace("}", "]")
    # Each round takes the innermost level away.
    for _ in range(limit):
        before = len(left)
        left = left.replace("[]", "")
        if len(left) == before:
            break
    return bool(left)
