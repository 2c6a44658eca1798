"""Parts, batches, progress and signs of life, on both kinds of handlers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import threading
import time
import unittest
from typing import TYPE_CHECKING
from unittest import mock

from rollout_plugin import BadParams, Call, Cancelled, Plugin, Reply, method
from rollout_plugin._parts import Lane
from rollout_plugin._wire import Wire
from rollout_plugin.testing import CallError, Host
from tests import test_rollout_plugin as raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WINDOW = 16


class Talker(Plugin):
    name = "talker"
    version = "1"
    max_in_flight = 4

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        self.ended: list[str] = []
        self.gate = threading.Semaphore(0)
        self.over = threading.Event()
        self.busy = self.most = 0
        Talker.made = self

    @method
    def echo(self, params: object, call: Call) -> object:
        return params

    @method
    def parts(self, params: int, call: Call) -> str:
        for n in range(params):
            call.part(n, bytes([n % 256]))
        return "done"

    @method
    def count(self, params: int, call: Call) -> Iterator[object]:
        try:
            for n in range(params):
                yield Reply(n, b"x") if n % 2 else n
            return "done"
        finally:
            self.ended.append("count")

    @method
    async def acount(self, params: int, call: Call) -> AsyncIterator[int]:
        try:
            for n in range(params):
                yield n
                await asyncio.sleep(0)
        finally:
            self.ended.append("acount")

    @method
    async def blocks(self, params: object, call: Call) -> None:
        call.part(1)

    @method
    def unfit(self, params: object, call: Call) -> Iterator[object]:
        yield 1
        yield {1}

    @method
    def late(self, params: object, call: Call) -> None:
        def send() -> None:
            self.gate.acquire(timeout=10)
            try:
                call.part("late")
            except RuntimeError as error:
                self.ended.append(str(error))

        self.thread = threading.Thread(target=send)
        self.thread.start()

    @method
    def signs(self, params: float, call: Call) -> None:
        end = time.monotonic() + params
        while time.monotonic() < end:
            call.progress()

    @method
    def each(self, params: object, call: Call) -> object:
        if params == "bad":
            raise BadParams("no good")
        if params == "wait":
            call.wait(60)
            raise Cancelled
        if params == "gate":
            self.gate.acquire(timeout=10)
        call.part("dropped")
        return Reply([params, call.remaining > 0], call.payload)

    @method
    def quick(self, params: object, call: Call) -> None:
        end = time.thread_time() + 2e-4
        while time.thread_time() < end:
            # Whoever waits for Python has it.
            time.sleep(0)

    @method
    def chat(self, params: object, call: Call) -> None:
        while not self.over.is_set():
            logging.warning("still here")

    @method
    def until_over(self, params: float, call: Call) -> bool:
        return self.over.wait(params)

    @method
    def end(self, params: object, call: Call) -> None:
        self.over.set()

    @method
    async def aeach(self, params: object, call: Call) -> object:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(60 if params == "wait" else 0.01)
        finally:
            self.busy -= 1
        if params == "bad":
            raise BadParams("no good")
        return Reply(params, call.payload)

    @method(batch=True)
    def whole(self, params: list[int], call: Call) -> list[object]:
        if params == ["few"]:
            return []
        sizes = [len(payload) for payload in call.payloads]
        results = [n + size for n, size in zip(params, sizes, strict=True)]
        return [ValueError("a one") if result == 1 else result for result in results]

    @method(batch=True)
    def wholes(self, params: list[int], call: Call) -> Iterator[int]:
        for n in params:
            if n < 0:
                return
            if n == 99:
                call.wait(60)
            self.ended.append(str(n))
            yield n
        if len(params) == 5:
            yield 6

    @method(batch=True)
    async def awhole(self, params: list[int], call: Call) -> list[int]:
        await asyncio.sleep(0)
        return params

    @method(batch=True)
    async def awholes(self, params: list[int], call: Call) -> AsyncIterator[int]:
        for n in params:
            await asyncio.sleep(0)
            yield n


def outcomes(answers: list[object]) -> list[object]:
    """The results of a batch, an error as its code."""
    return [a.code if isinstance(a, CallError) else a.result for a in answers]


class Parts(unittest.TestCase):
    def test_every_way_to_send_parts_sends_all_of_them_in_order(self) -> None:
        count = 5 * WINDOW + 3
        with Host(Talker) as host:
            for name, result in (("parts", "done"), ("count", "done"), ("acount", None)):
                call = host.stream(name, count)
                self.assertEqual([part.result for part in call], list(range(count)), name)
                self.assertEqual(call.reply().result, result)
            payloads = [part.payload for part in host.stream("count", 3)]
            self.assertEqual(payloads, [b"", b"x", b""])

    def test_who_wants_no_parts_waits_for_none(self) -> None:
        with Host(Talker) as host:
            self.assertEqual(host.call("parts", 100).result, "done")
            self.assertEqual(host.call("acount", 100).result, None)

    def test_without_credit_a_handler_waits_and_the_others_do_not(self) -> None:
        host = raw.Host(self, Talker)
        for number, name in enumerate(("parts", "count", "acount")):
            host.send(number, name, 100)
            # The window of that host is four.
            sent = [host.read()[0] for _ in range(4)]
            self.assertEqual([(m["t"], m["id"], m["result"]) for m in sent], parts(number, 0, 4))
        self.assertEqual(host.call("echo", 7)[0]["result"], 7)
        self.assertEqual(host.call("blocks")[0]["code"], "user")
        for number in range(3):
            host.wire.write({"t": "credit", "id": number, "n": 2})
            sent = [host.read()[0] for _ in range(2)]
            self.assertEqual([(m["t"], m["id"], m["result"]) for m in sent], parts(number, 4, 6))
        host.wire.write({"t": "credit", "id": 99, "n": 2})
        for number in range(3):
            host.wire.write({"t": "cancel", "id": number})
            self.assertEqual(host.read()[0]["code"], "cancelled")
        self.assertEqual(Talker.made.ended, ["count", "acount"])

    def test_a_cancelled_call_sends_no_parts_although_there_is_credit(self) -> None:
        with Host(Talker) as host:
            for name in ("count", "acount"):
                call = host.stream(name, 1_000_000)
                next(iter(call))
                call.cancel()
                for _ in call:
                    pass
                with self.assertRaises(CallError) as caught:
                    call.reply()
                self.assertEqual(caught.exception.code, "cancelled")

    def test_an_async_handler_is_told_to_yield(self) -> None:
        with Host(Talker) as host, self.assertRaises(CallError) as caught:
            host.call("blocks")
        self.assertIn("yields its parts", caught.exception.message)

    def test_a_part_that_is_no_json_is_the_error_of_its_call(self) -> None:
        with Host(Talker, max_frame=4096) as host:
            call = host.stream("unfit")
            self.assertEqual([part.result for part in call], [1])
            with self.assertRaises(CallError) as caught:
                call.reply()
            self.assertIn("set is not JSON", caught.exception.message)

    def test_nothing_is_sent_after_the_answer(self) -> None:
        with Host(Talker) as host:
            host.call("late")
            Talker.made.gate.release()
            Talker.made.thread.join(10)
            self.assertEqual(Talker.made.ended, ["the call has been answered"])
            self.assertEqual(host.call("echo", 1).result, 1)

    def test_what_is_about_to_be_sent_is_not_when_the_answer_was_quicker(self) -> None:
        host = raw.Host(self, Talker)
        lane = Lane(host.wire, 1, 1)
        self.assertTrue(lane.take(lambda: None))
        lane.close()
        self.assertRaises(RuntimeError, lane.send, 1, b"")

    def test_progress_is_told_now_and_then(self) -> None:
        with Host(Talker) as host:
            call = host.start("signs", 0.25)
            call.reply()
            self.assertIn(call.progress, (1, 2, 3))

    def test_a_ping_is_answered(self) -> None:
        host = raw.Host(self, Talker)
        host.wire.write({"t": "ping"})
        self.assertEqual(host.read()[0], {"t": "pong"})


class Batches(unittest.TestCase):
    def test_each_item_has_its_own_answer_and_its_own_bytes(self) -> None:
        with Host(Talker) as host:
            for name in ("each", "aeach"):
                answers = host.batch(name, [1, "bad", 3], [b"a", b"bc", b""])
                codes = [getattr(answer, "code", None) for answer in answers]
                self.assertEqual(codes, [None, "bad_params", None])
                self.assertEqual((answers[0].payload, answers[2].payload), (b"a", b""))
            self.assertEqual(outcomes(answers), [1, "bad_params", 3])
            self.assertEqual(outcomes(host.batch("nope", [1, 2])), ["unknown_method"] * 2)
            self.assertEqual(host.batch("each", []), [])

    def test_an_answer_does_not_wait_for_the_item_behind_it(self) -> None:
        host = raw.Host(self, Talker)
        items = [{"n": n, "params": "gate" if n % 2 else 1} for n in range(6)]
        batch = {"t": "batch", "id": 7, "method": "each", "items": items, "timeout_ms": 9000}
        host.wire.write(batch)
        for n in range(0, 6, 2):
            self.assertEqual(host.read()[0], {"t": "item", "id": 7, "n": n, "result": [1, True]})
            # Long enough for whoever watches to find nothing to do.
            time.sleep(0.02)
            Talker.made.gate.release()
            self.assertEqual(host.read()[0]["n"], n + 1)
        self.assertEqual(host.read()[0], {"t": "reply", "id": 7, "result": None})

    def test_answers_of_quick_items_go_out_many_at_a_time(self) -> None:
        host = raw.Host(self, Talker)
        items = [{"n": n, "params": None} for n in range(1000)]
        batch = {"t": "batch", "id": 7, "method": "quick", "items": items, "timeout_ms": 9000}
        begin = time.monotonic()
        with mock.patch.object(Wire, "_send", autospec=True, side_effect=Wire._send) as sent:
            host.wire.write(batch)
            while host.read()[0]["t"] == "item":
                pass
        # One each 5 ms, and whoever watches may add one each 5 ms.
        moments = (time.monotonic() - begin) / 0.005
        self.assertLess(sent.call_count, 2 * moments + 10)

    def test_a_call_that_waits_keeps_no_other_although_a_third_one_writes(self) -> None:
        host = raw.Host(self, Talker)
        items = [{"n": 0, "params": None}]
        batch = {"t": "batch", "id": 7, "method": "chat", "items": items, "timeout_ms": 9000}
        host.wire.write(batch)
        self.assertEqual(host.read()[0]["t"], "log")
        host.send(8, "until_over", 5)
        host.send(9, "end")
        answers: dict[int, object] = {}
        while len(answers) < 3:
            message = host.read()[0]
            if message["t"] == "reply":
                answers[message["id"]] = message["result"]
        self.assertIs(answers[8], True)

    def test_items_of_async_handlers_run_side_by_side_up_to_the_limit(self) -> None:
        with Host(Talker) as host:
            self.assertEqual(outcomes(host.batch("aeach", range(20))), list(range(20)))
            self.assertEqual(Talker.made.most, 4)

    def test_a_method_that_takes_batches_has_them_whole(self) -> None:
        with Host(Talker) as host:
            answers = host.batch("whole", [2, 0, 3], [b"", b"a", b"bb"])
            self.assertEqual(outcomes(answers), [2, "user", 5])
            self.assertEqual(host.call("whole", 2, b"abc").result, 5)
            with self.assertRaises(CallError):
                host.call("whole", 1)
            for name in ("wholes", "awhole", "awholes"):
                self.assertEqual(outcomes(host.batch(name, [1, 2, 3])), [1, 2, 3], name)
                self.assertEqual(host.call(name, 4).result, 4, name)

    def test_results_that_are_too_few_or_too_many_are_errors(self) -> None:
        with Host(Talker) as host:
            (answer,) = host.batch("whole", ["few"])
            self.assertIn("0 results for 1 items", answer.message)
            self.assertEqual(outcomes(host.batch("wholes", [1, -1, 3])), [1, "user", "user"])
            self.assertEqual(outcomes(host.batch("wholes", [1] * 5)), [1] * 5)
            with self.assertRaises(CallError):
                host.call("wholes", -1)

    def test_cancelling_ends_all_that_is_left(self) -> None:
        host = raw.Host(self, Talker)
        for name in ("each", "aeach"):
            items = [{"n": n, "params": "wait" if n else 1} for n in range(3)]
            batch = {"t": "batch", "id": 7, "method": name, "items": items, "timeout_ms": 9000}
            host.wire.write(batch)
            self.assertEqual(host.read()[0]["n"], 0)
            host.wire.write({"t": "cancel", "id": 7})
            last = host.read()[0]
            while last["t"] == "item":
                self.assertEqual(last["error"]["code"], "cancelled")
                last = host.read()[0]
            self.assertEqual((last["t"], last["code"]), ("error", "cancelled"))

    def test_cancelling_ends_a_method_that_yields_the_results_of_a_batch(self) -> None:
        host = raw.Host(self, Talker)
        items = [{"n": n, "params": params} for n, params in enumerate((1, 99, 3))]
        batch = {"t": "batch", "id": 7, "method": "wholes", "items": items, "timeout_ms": 9000}
        host.wire.write(batch)
        self.assertEqual(host.read()[0]["n"], 0)
        host.wire.write({"t": "cancel", "id": 7})
        while (last := host.read()[0])["t"] == "item":
            pass
        self.assertEqual(last["code"], "cancelled")
        self.assertEqual(Talker.made.ended, ["1", "99"])

    def test_a_number_that_python_does_not_read_is_the_error_of_its_item(self) -> None:
        host = raw.Host(self, Talker)
        text = '{"t":"batch","id":7,"method":"echo","timeout_ms":9000,"items":[%s]}'
        params = ("1", '{"a":[%s]}' % ("9" * 5000), "3")
        items = ",".join('{"n":%d,"params":%s}' % item for item in enumerate(params))
        host.wire.queue(text % items)
        host.wire.flush()
        answers = {answer.get("n"): answer for answer in (host.read()[0] for _ in range(4))}
        self.assertEqual((answers[0]["result"], answers[2]["result"]), (1, 3))
        self.assertEqual(answers[1]["error"]["code"], "bad_params")
        self.assertEqual(answers[None]["t"], "reply")

    def test_bytes_that_belong_to_no_item_end_the_plugin(self) -> None:
        host = raw.Host(self, Talker)
        items = [{"n": 0, "params": 1, "tail": 3}]
        batch = {"t": "batch", "id": 7, "method": "echo", "items": items, "timeout_ms": 9000}
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            host.wire.write(batch, b"abcd")
            host.thread.join(10)
        self.assertIs(host.asked, False)
        self.assertIn("claim 3 of 4 bytes", printed.getvalue())


def parts(number: int, begin: int, end: int) -> list[tuple[str, int, int]]:
    return [("part", number, n) for n in range(begin, end)]


if __name__ == "__main__":
    unittest.main()
