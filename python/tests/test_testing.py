"""The test host, on a plugin as its author would test it, and on the sample."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import unittest
from pathlib import Path

from rollout_plugin import BadParams, Call, Plugin, method
from rollout_plugin.testing import CallError, Host, Log, Refused

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from sample_sidecar import Sample


class Shout(Plugin):
    name = "shout"
    version = "1"

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        logging.info("made")
        self.end = config["end"]

    def shutdown(self) -> None:
        logging.info("ended with %s", self.end)

    @method
    def shout(self, params: dict, call: Call) -> str:
        if "text" not in params:
            raise BadParams("text is missing")
        return params["text"].upper()

    @method
    async def later(self, params: float, call: Call) -> float:
        await asyncio.sleep(params)
        return call.remaining

    @method
    def hold(self, params: object, call: Call) -> bool:
        return call.wait(60)


class TestHost(unittest.TestCase):
    def test_the_sample_gives_back_params_and_payload(self) -> None:
        with Host(Sample) as host:
            self.assertEqual(host.ready["name"], "sample_sidecar")
            reply = host.call("echo", {"a": [1]}, b"\0\xff")
            self.assertEqual((reply.result, reply.payload), ({"a": [1]}, b"\0\xff"))

    def test_plain_and_async_methods_answer_and_see_their_deadline(self) -> None:
        with Host(Shout, {"end": "!"}) as host:
            self.assertEqual(host.call("shout", {"text": "hi"}).result, "HI")
            self.assertLess(host.call("later", 0, timeout=5).result, 5)

    def test_errors_have_the_code_that_a_worker_would_see(self) -> None:
        with Host(Shout, {"end": "!"}, max_frame=4096) as host:
            for name, params, code in (
                ("shout", {}, "bad_params"),
                ("shout", {"text": 1}, "user"),
                ("shut", {}, "unknown_method"),
                ("shout", {"text": "x" * 5000}, "too_large"),
                # Longer in capitals.
                ("shout", {"text": "\u0149" * 1360}, "too_large"),
            ):
                with self.assertRaises(CallError) as caught:
                    host.call(name, params)
                self.assertEqual(caught.exception.code, code)
            with self.assertRaises(CallError) as caught:
                host.call("shout", {"text": 1})
            self.assertIn("in shout", caught.exception.traceback)

    def test_cancelling_wakes_a_waiting_handler_and_ends_a_task(self) -> None:
        with Host(Shout, {"end": "!"}) as host:
            call = host.start("hold")
            call.cancel()
            self.assertIs(call.reply().result, True)
            call = host.start("later", 60)
            call.cancel()
            with self.assertRaises(CallError) as caught:
                call.reply()
            self.assertEqual(caught.exception.code, "cancelled")

    def test_a_call_that_takes_too_long_is_cancelled(self) -> None:
        with Host(Shout, {"end": "!"}) as host:
            with self.assertRaises(TimeoutError):
                host.call("hold", timeout=0.05)

    def test_logs_are_kept_and_logging_is_as_before_afterwards(self) -> None:
        before = (logging.root.level, list(logging.root.handlers))
        with Host(Shout, {"end": "a bang"}) as host:
            self.assertEqual(host.logs, [Log("info", "root", "made")])
        self.assertEqual(host.logs[1:], [Log("info", "root", "ended with a bang")])
        self.assertEqual((logging.root.level, logging.root.handlers), before)

    def test_a_constructor_that_fails_is_a_refusal(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            with self.assertRaises(Refused) as caught:
                Host(Shout, {})
        self.assertEqual(str(caught.exception), "KeyError: 'end'")
        self.assertIn("Traceback", printed.getvalue())


if __name__ == "__main__":
    unittest.main()
