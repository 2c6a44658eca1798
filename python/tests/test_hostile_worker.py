"""What a worker, or whoever holds the other end of the socket, may do to a plugin on the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from random import Random

from rollout_plugin import Call, Plugin, method
from rollout_plugin._json import MAX_DEPTH, Malformed, TooDeep, decode, encode
from rollout_plugin._serve import serve
from rollout_plugin.testing import CallError, Host
from tests.test_rollout_plugin import PYTHON

HELLO = b'{"t":"hello","proto":[1,1],"config":{},"limits":{"max_frame":65536,"max_in_flight":8,"part_window":4}}'


def frame(text: bytes, tail: bytes = b"") -> bytes:
    return struct.pack(">II", len(text), len(tail)) + text + tail


def call(params: bytes, name: bytes = b"echo") -> bytes:
    return b'{"t":"call","id":1,"method":"%s","params":%s,"timeout_ms":9000}' % (name, params)


class Target(Plugin):
    name = "target"
    version = "1"

    @method
    def echo(self, params: object, call: Call) -> object:
        return params

    @method
    def deep(self, params: int, call: Call) -> object:
        value: object = 1
        for _ in range(params):
            value = [value]
        return value

    @method
    def loop(self, params: object, call: Call) -> object:
        value: list[object] = []
        value.append(value)
        return value

    @method
    def doze(self, params: float, call: Call) -> object:
        time.sleep(params)
        return params

    @method
    async def nap(self, params: float, call: Call) -> object:
        await asyncio.sleep(params)
        return params

    @method
    def hang(self, params: object, call: Call) -> object:
        return call.wait(60)


class Messages(unittest.TestCase):
    def served(self, data: bytes) -> tuple[list[int], str]:
        """What a plugin leaves with, and prints, when it is sent these bytes after `hello`."""
        ours, theirs = socket.socketpair()
        left: list[int] = []
        with ours, theirs, contextlib.redirect_stderr(io.StringIO()) as printed:
            ours.sendall(frame(HELLO) + data)
            ours.shutdown(socket.SHUT_WR)
            with Host(Target):  # Puts `logging` back when it ends.
                self.assertFalse(serve(Target, theirs, "", left.append))
        return left, printed.getvalue()

    def test_what_is_no_message_ends_the_plugin_with_a_reason(self) -> None:
        for data, reason in (
            (frame(b"nonsense"), "Expecting value"),
            (frame(b"[]"), "JSON object"),
            (frame(call(b"NaN")), "NaN is no JSON"),
            (frame(call(b"-Infinity")), "-Infinity is no JSON"),
            (frame(call(b'"\xff"')), "utf-8"),
            (frame(call(b"[" * 50_000)), "nested deeper"),
            (frame(call(b"[" * 99 + b'{"":1}' + b"]" * 99)), "nested deeper"),
            (frame(b'{"t":"call","id":1}'), "'call' message"),
            (b"\xff" * 8, "8589934590 bytes is over max_frame (65536 bytes)"),
        ):
            left, printed = self.served(data)
            self.assertEqual(left, [1], data[:40])
            self.assertIn(reason, printed)
            self.assertNotIn("Traceback", printed)

    def test_the_end_is_quiet_wherever_it_comes(self) -> None:
        whole = frame(call(b"1"), b"tail")
        for cut in range(0, len(whole) + 1, 5):
            self.assertEqual(self.served(whole[:cut]), ([0], ""))

    def test_a_message_of_an_unknown_kind_is_passed_over(self) -> None:
        self.assertEqual(self.served(frame(b'{"t":"news"}')), ([0], ""))

    def test_single_bytes_make_a_call(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        with ours, theirs, Host(Target):
            threading.Thread(target=serve, args=(Target, theirs, ""), daemon=True).start()
            ours.sendall(frame(HELLO))
            self.assertIn(b"ready", ours.recv(65536))
            for byte in frame(call(b"[7]")):
                ours.sendall(bytes([byte]))
            answers = b""
            while b'"result":[7]' not in answers:
                answers += ours.recv(65536)
            ours.shutdown(socket.SHUT_RDWR)


class Values(unittest.TestCase):
    def test_a_result_is_as_deep_as_a_message_allows_and_no_deeper(self) -> None:
        with Host(Target) as host:
            host.call("deep", MAX_DEPTH - 1)
            for name, params in (("deep", MAX_DEPTH), ("deep", 100_000), ("loop", None)):
                with self.assertRaises(CallError) as caught:
                    host.call(name, params)
                self.assertEqual(caught.exception.code, "user")

    def test_brackets_in_texts_are_no_nesting_and_texts_hide_none(self) -> None:
        encode(['["{\\'] * 1000)
        decode(b'{"a":"' + b"[" * 1000 + b'"}')
        value: object = 1
        for _ in range(MAX_DEPTH + 1):
            value = ["]", value, "["]
        self.assertRaises(TooDeep, encode, value)
        self.assertRaises(Malformed, decode, b'{"a":' + json.dumps(value).encode() + b"}")

    def test_a_number_that_python_does_not_read_is_the_error_of_its_call(self) -> None:
        text = call(b"1" * 5000).decode()
        self.assertIn("digits", decode(text.encode())["params"].reason)
        self.assertEqual(decode(b' {"a": 1.5 }\n'), {"a": 1.5})


class Handlers(unittest.TestCase):
    def test_handlers_that_hang_hold_nobody_up(self) -> None:
        with Host(Target) as host:
            hanging = [host.start("hang") for _ in range(16)]
            self.assertEqual(host.call("echo", 1).result, 1)
            for call in hanging:
                call.cancel()
            self.assertEqual([call.reply().result for call in hanging], [True] * 16)

    def test_every_call_has_its_own_answer_whatever_it_is_mixed_with(self) -> None:
        random = Random(7)
        with Host(Target) as host:
            for _ in range(40):
                calls = []
                for _ in range(64):
                    name = random.choice(("echo", "echo", "doze", "nap", "hang"))
                    # About as long as a handler may keep the reader.
                    params = random.choice((0, 0, 0.001, 0.005, 0.006)) + random.random() / 1e6
                    calls.append((name, params, host.start(name, params, b"x" * 100)))
                for name, params, call in calls:
                    if name == "hang":
                        call.cancel()
                    self.assertEqual(call.reply().result, name == "hang" or params)

    def test_a_method_that_was_slow_is_answered_as_before(self) -> None:
        with Host(Target) as host:
            for _ in range(3):
                slow = host.start("hang")
                time.sleep(0.02)
                slow.cancel()
                slow.reply()
                for n in range(250):
                    self.assertEqual(host.call("echo", n).result, n)


class Processes(unittest.TestCase):
    PROGRAM = """
from rollout_plugin import run
from tests.test_hostile_worker import Target
run(Target)
"""

    @contextlib.contextmanager
    def hanging(self):
        """A process with handlers that hang, and the worker's end of its socket."""
        with tempfile.TemporaryDirectory() as at, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(at + "/s")
            listening.listen(1)
            listening.settimeout(20)
            env = {"ROLLOUT_PLUGIN_SOCKET": at + "/s", "PYTHONPATH": str(PYTHON)}
            args = [sys.executable, "-c", self.PROGRAM]
            child = subprocess.Popen(args, env=env, stderr=subprocess.PIPE, text=True)
            with child:
                try:
                    worker, _ = listening.accept()
                    worker.settimeout(20)
                    with worker:
                        worker.sendall(frame(HELLO))
                        worker.recv(65536)
                        worker.sendall(frame(call(b"1", b"hang")) * 3)
                        time.sleep(0.05)
                        yield child, worker
                finally:
                    child.kill()

    def test_the_end_of_the_socket_ends_it_although_handlers_hang(self) -> None:
        with self.hanging() as (child, worker):
            worker.close()
            self.assertEqual((child.wait(10), child.stderr.read()), (0, ""))

    def test_sigterm_ends_it_and_a_terminals_interrupt_does_not(self) -> None:
        with self.hanging() as (child, worker):
            os.kill(child.pid, signal.SIGINT)
            worker.sendall(frame(call(b'"still here"').replace(b'"id":1', b'"id":2')))
            self.assertIn(b"still here", worker.recv(65536))
            child.terminate()
            self.assertEqual((child.wait(10), child.stderr.read()), (-signal.SIGTERM, ""))

    def test_shutdown_ends_it_although_handlers_hang(self) -> None:
        with self.hanging() as (child, worker):
            worker.sendall(frame(b'{"t":"shutdown","grace_ms":1000}'))
            self.assertEqual((child.wait(10), child.stderr.read()), (0, ""))


if __name__ == "__main__":
    unittest.main()
