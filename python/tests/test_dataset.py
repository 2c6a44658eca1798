"""The adapter for datasets, on a dataset of the test's own and on the example."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import unittest
from pathlib import Path
from typing import Any

from rollout_plugin.dataset import Dataset
from rollout_plugin.testing import CallError, Host, Refused

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

PRIMES = {"dataset": "tests.worlds:Primes", "responder": "tests.worlds:guess"}
SLOW = PRIMES | {"responder": "tests.worlds:slow_guess"}


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"item": number, "seed": 8214565720323784 + number, "params": None} | more


class TestDataset(unittest.TestCase):
    def test_an_item_is_a_question_with_its_answer_and_score(self) -> None:
        config = {"dataset": "arithmetic:Arithmetic", "responder": "arithmetic:pupil"}
        config |= {"dataset_kwargs": {"size": 10, "seed": 1}}
        with Host(Dataset, config | {"responder_kwargs": {"slips": 0.0}}) as host:
            for n in range(30):
                result = host.call("run", item(n)).result
                self.assertEqual(list(result), ["question", "response", "score"])
                asked = result["question"].removeprefix("What is ").removesuffix("?")
                self.assertEqual(result["response"], str(eval(asked)))
                self.assertEqual(result["score"], 1.0)
                # Ten questions: then the first one again.
                again = host.call("run", item(0, params={"index": n % 10})).result
                self.assertEqual(again["question"], result["question"])
        with Host(Dataset, config | {"responder_kwargs": {"slips": 0.5}}) as host:
            scores = {host.call("run", item(n)).result["score"] for n in range(100)}
            self.assertLess({0.0, 1.0}, scores)

    def test_a_result_is_a_function_of_its_item_and_of_nothing_else(self) -> None:
        results = []
        for config in (PRIMES, SLOW):
            with Host(Dataset, config) as host:
                alone = [json.dumps(host.call("run", item(n)).result) for n in range(12)]
                batch = host.batch("run", [item(n) for n in reversed(range(12))])[::-1]
                calls = [host.start("run", item(n)) for n in range(12)]
                beside = [call.reply() for call in calls]
            results += [alone, *([json.dumps(one.result) for one in many] for many in (batch, beside))]
        for other in results[1:]:
            self.assertEqual(results[0], other)
        self.assertGreater(len(set(results[0])), 4)

    def test_answers_of_an_async_responder_are_waited_for_side_by_side(self) -> None:
        config = PRIMES | {"responder": "tests.worlds:together", "responder_kwargs": {"parties": 16}}
        with Host(Dataset, config, max_in_flight=16) as host:
            results = [one.result for one in host.batch("run", [item(n) for n in range(16)])]
            self.assertEqual([result["response"] for result in results], ["7"] * 16)
            call = host.start("run", item(0))
            call.cancel()
            with self.assertRaises(CallError) as caught:
                call.reply()
            self.assertEqual(caught.exception.code, "cancelled")

    def test_what_does_not_fit_is_an_error_of_the_item(self) -> None:
        for more, params, code, message in (
            ({}, None, "bad_params", "is needed"),
            ({}, {"item": 0}, "bad_params", "seed is a number"),
            ({}, item(0, params={"index": 4}), "bad_params", '{"index": 0 to 3}'),
            ({}, item(0, params={"index": True}), "bad_params", "index"),
            ({}, item(0, params=[]), "bad_params", "index"),
            ({"responder": "tests.worlds:mute"}, item(0), "user", "answer None is no text"),
            ({"dataset": "tests.worlds:Unasked"}, item(0), "user", "has no text `question`"),
            ({"dataset": "tests.worlds:Unscored"}, item(0), "user", "ValueError: the score of"),
            ({"responder_kwargs": {"among": 0}}, item(0), "user", "ValueError: empty range"),
        ):
            for config in (PRIMES, SLOW):
                with self.subTest(more=more, params=params), Host(Dataset, config | more) as host:
                    with self.assertRaises(CallError) as caught:
                        host.call("run", params)
                    self.assertEqual(caught.exception.code, code)
                    self.assertIn(message, caught.exception.message)

    def test_a_configuration_that_does_not_fit_is_refused_with_its_key(self) -> None:
        for more, message in (
            ({"dataset": ""}, "dataset = '': it has the form module:function"),
            ({"dataset": "tests.worlds:Empty"}, "dataset gives one without a question"),
            ({"dataset": "tests.worlds:nowhere"}, "dataset gives a NoneType, which has no __len__"),
            ({"dataset": "tests.worlds:broken_factory"}, "does not give one: OSError: no licence"),
            ({"responder": "tests.worlds:oracle"}, "there is no 'oracle' in tests.worlds"),
            ({"responder_kwargs": 1}, "responder_kwargs = 1: a table is needed"),
            ({"seed": 1}, "unknown in [config]: seed"),
        ):
            with self.subTest(more), contextlib.redirect_stderr(io.StringIO()):
                with self.assertRaises(Refused) as caught:
                    Host(Dataset, PRIMES | more)
                self.assertIn(message, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
