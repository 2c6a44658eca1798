"""The SDK on one end of a socket pair, a host of a few lines on the other."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import unittest
from pathlib import Path

from rollout_plugin import BadParams, Call, Plugin, Reply, method
from rollout_plugin._json import Malformed
from rollout_plugin._serve import serve
from rollout_plugin._wire import Wire

PYTHON = Path(__file__).parents[1]


class Sample(Plugin):
    name = "sample"
    version = "1"
    max_in_flight = 4

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        self.ended = False
        self.together = threading.Barrier(4)
        Sample.made = self

    def shutdown(self) -> None:
        self.ended = True

    @method
    def echo(self, params: object, call: Call) -> Reply:
        """Says it again."""
        return Reply(params, call.payload)

    @method
    def meet(self, params: object, call: Call) -> object:
        self.together.wait(10)
        return params

    @method
    def fail(self, params: str, call: Call) -> object:
        raise {"bad": BadParams("no seed"), "user": ValueError("on purpose")}[params]

    @method
    def wait(self, params: object, call: Call) -> object:
        while not call.cancelled:
            pass
        return call.remaining

    @method
    async def sleep(self, params: object, call: Call) -> object:
        await asyncio.sleep(60)

    @method
    async def misdeclared(self) -> None:
        pass

    @method
    def answer(self, params: str, call: Call) -> object:
        return {"nan": float("nan"), "none": None, "set": {1}, "surrogate": "\ud800"}[params]

    @method
    def large(self, params: int, call: Call) -> Reply:
        return Reply("", bytes(params))

    @method
    def log(self, params: int, call: Call) -> None:
        logging.getLogger("a.b").warning("say %s", "x" * params)

    def helper(self) -> None:
        """Not a method of the plugin."""


class Host:
    """The worker's end of the socket."""

    def __init__(self, test: unittest.TestCase, plugin: type[Plugin] = Sample, **hello: object):
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self.socket = ours
        self.wire = Wire(ours)
        self.asked: bool | None = None
        root = logging.getLogger()
        before = (root.level, list(root.handlers))

        def end() -> None:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()
            self.thread.join(20)
            theirs.close()
            root.setLevel(before[0])
            root.handlers[:] = before[1]

        def run() -> None:
            self.asked = serve(plugin, theirs, "token")

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        test.addCleanup(end)
        limits = {"max_frame": 65536, "max_in_flight": 64, "part_window": 4}
        message = {"t": "hello", "proto": [1, 1], "plugin": "sample", "config": {}}
        self.wire.write(message | {"limits": limits} | hello)
        self.first = self.read()[0]

    def read(self) -> tuple[dict, bytes]:
        frame = self.wire.read()
        assert frame is not None
        return frame

    def send(self, number: int, name: str, params: object = None, tail: bytes = b"") -> None:
        call = {"t": "call", "id": number, "method": name, "params": params, "timeout_ms": 9000}
        self.wire.write(call, tail)

    def call(self, name: str, params: object = None, tail: bytes = b"") -> tuple[dict, bytes]:
        self.send(7, name, params, tail)
        return self.read()


class Serving(unittest.TestCase):
    def test_ready_says_what_the_plugin_is_and_hides_what_is_no_method(self) -> None:
        ready = Host(self).first
        self.assertEqual((ready["t"], ready["proto"], ready["token"]), ("ready", 1, "token"))
        self.assertEqual((ready["name"], ready["version"]), ("sample", "1"))
        self.assertEqual(ready["max_in_flight"], 4)
        self.assertIn({"name": "echo", "doc": "Says it again."}, ready["methods"])
        self.assertNotIn("helper", [entry["name"] for entry in ready["methods"]])

    def test_the_smaller_max_in_flight_holds(self) -> None:
        host = Host(self, limits={"max_frame": 65536, "max_in_flight": 2, "part_window": 4})
        self.assertEqual(host.first["max_in_flight"], 2)

    def test_params_and_payload_come_back_unchanged(self) -> None:
        host = Host(self)
        for payload in (b"", b"\0\xff\n", bytes(60_000)):
            reply, tail = host.call("echo", {"ü": [1.5, None]}, payload)
            self.assertEqual(reply, {"t": "reply", "id": 7, "result": {"ü": [1.5, None]}})
            self.assertEqual(tail, payload)

    def test_sync_handlers_run_side_by_side(self) -> None:
        host = Host(self)
        for round in range(3):
            for number in range(4):
                host.send(number, "meet", number)
            answers = [host.read()[0] for _ in range(4)]
            self.assertEqual({a["id"]: a["result"] for a in answers}, {n: n for n in range(4)})

    def test_errors_have_a_code_and_a_traceback(self) -> None:
        host = Host(self)
        error, _ = host.call("fail", "user")
        self.assertEqual((error["code"], error["message"]), ("user", "ValueError: on purpose"))
        self.assertIn("in fail", error["traceback"])
        self.assertEqual(host.call("fail", "bad")[0]["code"], "bad_params")
        error, _ = host.call("misdeclared")
        self.assertIn("takes 1 positional argument", error["message"])
        self.assertEqual(host.call("nope")[0]["code"], "unknown_method")
        self.assertEqual(host.call("helper")[0]["code"], "unknown_method")

    def test_what_is_no_json_is_an_error_of_its_own_call_alone(self) -> None:
        host = Host(self)
        for params in ("nan", "set", "surrogate"):
            self.assertEqual(host.call("answer", params)[0]["code"], "user")
        self.assertIsNone(host.call("answer", "none")[0]["result"])

    def test_an_answer_over_the_limit_is_not_sent(self) -> None:
        host = Host(self)
        error, tail = host.call("large", 65536)
        self.assertEqual((error["code"], tail), ("too_large", b""))
        self.assertGreater(error["got"], 65536)
        self.assertEqual(len(host.call("large", 65000)[1]), 65000)

    def test_cancel_reaches_both_kinds_of_handler(self) -> None:
        host = Host(self)
        host.send(1, "wait")
        host.wire.write({"t": "cancel", "id": 1})
        self.assertGreater(host.read()[0]["result"], 0)
        host.send(2, "sleep")
        # A cancellation that overtakes the task's start is heard as well.
        host.wire.write({"t": "cancel", "id": 2})
        self.assertEqual(host.read()[0]["code"], "cancelled")
        host.wire.write({"t": "cancel", "id": 99})
        self.assertEqual(host.call("echo", 1)[0]["result"], 1)

    def test_log_records_are_sent_and_large_ones_cut(self) -> None:
        host = Host(self)
        host.send(1, "log", 3)
        record, _ = host.read()
        want = {"t": "log", "level": "warn", "target": "a.b", "message": "say xxx"}
        self.assertEqual(record, want)
        self.assertEqual(host.read()[0]["t"], "reply")
        host.send(1, "log", 100_000)
        self.assertTrue(host.read()[0]["message"].startswith("say xxx"))

    def test_shutdown_calls_the_plugin_and_end_of_file_does_not(self) -> None:
        host = Host(self)
        host.wire.write({"t": "shutdown", "grace_ms": 1000})
        host.thread.join(20)
        self.assertEqual((host.asked, Sample.made.ended), (True, True))
        host = Host(self)
        host.socket.shutdown(socket.SHUT_RDWR)
        host.thread.join(20)
        self.assertEqual((host.asked, Sample.made.ended), (False, False))

    def test_a_constructor_that_fails_refuses(self) -> None:
        class Bad(Sample):
            def __init__(self, config: dict) -> None:
                raise KeyError("seed")

        with contextlib.redirect_stderr(io.StringIO()) as printed:
            first = Host(self, Bad).first
        self.assertIn("Traceback", printed.getvalue())
        self.assertEqual(first, {"t": "refuse", "message": "KeyError: 'seed'"})

    def test_another_version_of_the_wire_is_refused(self) -> None:
        self.assertEqual(Host(self, proto=[2, 3]).first["t"], "refuse")


class Framing(unittest.TestCase):
    def wires(self) -> tuple[socket.socket, Wire]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, Wire(theirs)

    def test_a_frame_is_two_lengths_json_and_tail(self) -> None:
        ours, wire = self.wires()
        wire.write({"t": "ü"}, b"tail")
        text = '{"t":"ü"}'.encode()
        self.assertEqual(ours.recv(100), struct.pack(">II", len(text), 4) + text + b"tail")

    def test_a_frame_cut_short_is_the_end(self) -> None:
        frame = struct.pack(">II", 2, 3) + b"{}abc"
        for cut in range(len(frame)):
            ours, wire = self.wires()
            ours.sendall(frame[:cut])
            ours.shutdown(socket.SHUT_WR)
            self.assertIsNone(wire.read(), cut)

    def test_a_length_over_the_limit_is_refused_before_the_bytes_come(self) -> None:
        ours, wire = self.wires()
        wire.max_frame = 100
        ours.sendall(b"\xff" * 8)
        with self.assertRaises(Malformed):
            wire.read()


class Startup(unittest.TestCase):
    def run_python(self, *args: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(PYTHON), str(PYTHON / "examples")])
        env = {"PYTHONPATH": path, "PATH": os.environ["PATH"]}
        return subprocess.run(
            [sys.executable, *args], env=env, capture_output=True, text=True, timeout=60
        )

    def test_without_a_worker_it_says_how_it_is_started(self) -> None:
        done = self.run_python("-m", "sample_sidecar")
        self.assertEqual(done.returncode, 1)
        self.assertIn("a worker starts it", done.stderr)

    def test_it_does_not_import_what_makes_a_worker_wait(self) -> None:
        code = "import sys, json, sample_sidecar; print(json.dumps(list(sys.modules)))"
        modules = json.loads(self.run_python("-S", "-c", code).stdout)
        slow = {"asyncio", "typing", "inspect", "dataclasses", "concurrent", "subprocess"}
        self.assertEqual(slow.intersection(modules), set())


if __name__ == "__main__":
    unittest.main()
