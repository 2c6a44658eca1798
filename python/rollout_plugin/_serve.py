"""The sidecar itself: connects to the worker, answers calls, ends when it is asked to or when the
worker is gone."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback

from rollout_plugin._answers import line
from rollout_plugin._json import Malformed
from rollout_plugin._log import to_worker
from rollout_plugin._plugin import BadConfig, Plugin, methods
from rollout_plugin._server import Server
from rollout_plugin._wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PROTO = 1
_SDK = "python 0.1.0"
_SHORT = 256


def run(plugin: type[Plugin]) -> None:
    """Serves a plugin to the worker that started this process; returns when it is shut down."""
    address = os.environ.get("ROLLOUT_PLUGIN_SOCKET")
    # Not for the processes that the plugin may start.
    token = os.environ.pop("ROLLOUT_PLUGIN_TOKEN", "")
    if address is None:
        name = plugin.name or plugin.__name__
        sys.exit(f"{name} is a rollout plugin: a worker starts it, from its manifest")
    # A terminal's Ctrl-C is the worker's business. Not SIG_IGN: processes that the plugin starts
    # would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    # A line that was printed is out, even into a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(address)
    # When the worker is gone, nothing that still runs here is of use to anyone.
    if not serve(plugin, connected, token, os._exit):
        os._exit(0)


def serve(
    plugin: type[Plugin],
    connected: socket.socket,
    token: str,
    ended: Callable[[int], object] = lambda status: None,
) -> bool:
    """Serves a plugin on a connected socket; whether the end was asked for.

    `ended` is called as soon as the socket ends, whatever the plugin is doing at that moment, with
    the status to leave with.
    """
    wire = Wire(connected)
    try:
        hello = wire.read()
        if hello is None:
            return False
        message, _ = hello
        config, limits = message["config"], message["limits"]
        name = plugin.name or message["plugin"]
        oldest, newest = message["proto"]
        frame, in_flight = limits["max_frame"], limits["max_in_flight"]
        window = limits["part_window"]
    except (Malformed, KeyError, TypeError, ValueError) as error:
        sys.exit(f"the worker's first message is none: {line(error)}")
    if not oldest <= _PROTO <= newest:
        wire.write({"t": "refuse", "message": f"this SDK speaks version {_PROTO} of the wire"})
        return True
    wire.max_frame = min(plugin.max_frame, frame)
    to_worker(wire)
    server = Server(wire, min(plugin.max_in_flight, in_flight), window, ended)
    try:
        instance = plugin(config)
    except Exception as error:
        wire.write({"t": "refuse", "message": _refusal(error)[:_SHORT]})
        return True
    server.take(instance)
    wire.write(_ready(plugin, name, token, server.in_flight, wire.max_frame))
    return server.serve(instance)


def _refusal(error: Exception) -> str:
    """What the worker is told of a constructor that failed; the traceback of what is no matter of
    configuration, or caused such a one, is printed."""
    told = isinstance(error, BadConfig)
    shown = error.__cause__ if told else error
    if shown is not None:
        traceback.print_exception(shown)
    return str(error) if told else line(error)


def _ready(
    plugin: type[Plugin], name: str, token: str, in_flight: int, frame: int
) -> dict[str, Any]:
    return {
        "t": "ready",
        "proto": _PROTO,
        "token": token,
        "name": name,
        "version": plugin.version,
        "sdk": _SDK,
        "methods": [
            {"name": name, "doc": (handler.__doc__ or "").strip()}
            for name, handler in methods(plugin).items()
        ],
        "max_in_flight": in_flight,
        "max_frame": frame,
    }
