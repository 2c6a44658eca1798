"""Frames of the sidecar wire: two lengths, a JSON object, a raw tail."""

from __future__ import annotations

import json
import struct
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

_HEADER = struct.Struct(">II")
_LARGE = 64 * 1024

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class TooLarge(Exception):
    """A frame over the limit; ``args`` are its size and the limit."""


class Wire:
    """A socket that carries frames; one thread reads, any thread writes."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._from = connected.makefile("rb", buffering=_LARGE)
        self._writing = threading.Lock()
        self.max_frame = 2**32 - 1

    def read(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message and its tail; None at the end."""
        header = self._exactly(_HEADER.size)
        if header is None:
            return None
        message_length, tail_length = _HEADER.unpack(header)
        if message_length + tail_length > self.max_frame:
            raise TooLarge(message_length + tail_length, self.max_frame)
        message = self._exactly(message_length)
        tail = self._exactly(tail_length)
        if message is None or tail is None:
            return None
        return json.loads(message), tail

    def write(self, message: dict[str, Any], tail: bytes = b"") -> None:
        """Writes a message. Raises what JSON can't express, and `TooLarge`, before a byte is out."""
        encoded = _encode(message).encode()
        size = len(encoded) + len(tail)
        if size > self.max_frame:
            raise TooLarge(size, self.max_frame)
        head = _HEADER.pack(len(encoded), len(tail)) + encoded
        with self._writing:
            if len(tail) < _LARGE:
                self._socket.sendall(head + tail)
            else:
                self._socket.sendall(head)
                self._socket.sendall(tail)

    def _exactly(self, length: int) -> bytes | None:
        data = self._from.read(length)
        return data if len(data) == length else None
