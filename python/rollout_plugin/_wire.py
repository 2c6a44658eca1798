"""Frames of the sidecar wire: two lengths, a JSON object, a raw tail."""

from __future__ import annotations

import socket
import struct
import threading

from rollout_plugin._json import Malformed, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_HEADER = struct.Struct(">II")
_LARGE = 64 * 1024


class TooLarge(Exception):
    """A frame over the limit; ``args`` are its size and the limit."""


class Wire:
    """A socket that carries frames; one thread at a time reads, any thread writes.

    What is queued goes out with `flush`, many frames at once; `before_wait` is called before the
    reader waits.
    Writing never fails when the other end is gone: the reader sees that, and is the one to act.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self._at = 0
        self._writing = threading.Lock()
        self._queued: list[bytes] = []
        self.flushed = 0
        """How often something was written."""
        self.max_frame = 2**32 - 1
        self.before_wait: Callable[[], object] = self.flush

    def read(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message and its tail; None at the end, also in the midst of a frame. Raises
        `Malformed`."""
        header = self._take(8)
        if header is None:
            return None
        message_length, tail_length = _HEADER.unpack(header)
        if message_length + tail_length > self.max_frame:
            size = message_length + tail_length
            raise Malformed(f"a frame of {size} bytes is over max_frame ({self.max_frame} bytes)")
        message = self._take(message_length)
        tail = self._take(tail_length) if tail_length else b""
        if message is None or tail is None:
            return None
        return decode(message), tail

    def write(self, message: dict[str, Any], tail: bytes = b"") -> None:
        """Writes a message. Raises what JSON can't express, and `TooLarge`, before a byte is out."""
        self.queue(encode(message), tail)
        self.flush()

    def queue(self, text: str, tail: bytes = b"") -> None:
        """Queues a message that is JSON already; a large tail is written at once."""
        encoded = text.encode()
        size = len(encoded) + len(tail)
        if size > self.max_frame:
            raise TooLarge(size, self.max_frame)
        head = _HEADER.pack(len(encoded), len(tail)) + encoded
        if len(tail) < _LARGE:
            self._queued.append(head + tail if tail else head)
            return
        with self._writing:
            self._send()
            self._all(head, tail)

    def flush(self) -> bool:
        """Writes what is queued; whether there was something."""
        if not self._queued:
            return False
        with self._writing:
            self._send()
        return True

    def _send(self) -> None:
        # Others may queue more meanwhile, at the end.
        count = len(self._queued)
        if not count:
            return
        data = self._queued[0] if count == 1 else b"".join(self._queued[:count])
        del self._queued[:count]
        self.flushed += 1
        try:
            self._socket.sendall(data)
        except OSError:
            pass

    def _all(self, head: bytes, tail: bytes) -> None:
        try:
            sent = self._socket.sendmsg((head, tail)) - len(head)
            if sent < 0:
                self._socket.sendall(head[sent:])
                sent = 0
            if sent < len(tail):
                self._socket.sendall(memoryview(tail)[sent:])
        except OSError:
            pass

    def _take(self, size: int) -> bytes | None:
        """The next bytes, as many as asked for; None at the end."""
        at = self._at
        end = at + size
        if end <= len(self._buffer):
            self._at = end
            return self._buffer[at:end]
        return self._receive(size)

    def _receive(self, size: int) -> bytes | None:
        self.before_wait()
        parts = [self._buffer[self._at :]]
        missing = size - len(parts[0])
        while missing > 0:
            try:
                if missing < _LARGE:
                    more = self._socket.recv(_LARGE)
                else:
                    more = self._socket.recv(missing, socket.MSG_WAITALL)
            except OSError:
                return None
            if not more:
                return None
            parts.append(more)
            missing -= len(more)
        data = b"".join(parts)
        self._buffer, self._at = (data, size) if missing else (b"", 0)
        return data[:size]
