"""``logging`` to the worker."""

from __future__ import annotations

import logging

from rollout_plugin._wire import TooLarge, Wire

_SHORT = 256


class Records(logging.Handler):
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
                self._wire.write(message | {"target": "", "message": plain(text)})
        except Exception:
            self.handleError(record)


def to_worker(wire: Wire) -> None:
    root = logging.getLogger()
    root.addHandler(Records(wire))
    root.setLevel(logging.INFO)


def plain(text: str) -> str:
    """A text that fits any frame."""
    return text[:_SHORT].encode("ascii", "backslashreplace").decode()[: 4 * _SHORT]
