"""The examples that `rollout run` starts with: their plugins, their manifests and their jobs."""

from __future__ import annotations

import json
import sys
import tomllib
import unittest
from pathlib import Path
from typing import Any

from rollout_plugin import JobItem
from rollout_plugin.testing import CallError, Host, Refused

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from cartpole import CartPole


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"item": number, "seed": 8214565720323784 + number, "params": None} | more


class TestCartPole(unittest.TestCase):
    def test_among_drawn_policies_some_balance_to_the_end_and_do_so_again(self) -> None:
        with Host(CartPole, {}) as host:
            replies = host.batch("run", [item(n) for n in range(200)])
            results = [reply.result for reply in replies]
            good = [one for one in results if one["truncated"]]
            self.assertTrue(0 < len(good) < 100, len(good))
            for one in results:
                self.assertEqual(one["return"], one["length"])
                self.assertNotEqual(one["terminated"], one["truncated"])
                self.assertEqual(one["truncated"], one["length"] == 500)
            again = host.call("run", item(1, params={"weights": good[0]["weights"]})).result
            self.assertGreater(again["length"], 100)

    def test_an_episode_is_a_function_of_its_item_and_of_nothing_else(self) -> None:
        with Host(CartPole, {}) as host:
            alone = [json.dumps(host.call("run", item(n)).result) for n in range(50)]
            batch = host.batch("run", [item(n) for n in reversed(range(50))])[::-1]
        self.assertEqual(alone, [json.dumps(one.result) for one in batch])
        self.assertEqual(len(set(alone)), 50)

    def test_what_does_not_fit_is_refused(self) -> None:
        with Host(CartPole, {}) as host:
            for params in (None, item(0, params={"weights": [1, 2, 3]}), item(0, params=[1])):
                with self.assertRaises(CallError) as caught:
                    host.call("run", params)
                self.assertEqual(caught.exception.code, "bad_params")
        with self.assertRaises(Refused) as refused:
            Host(CartPole, {"max_steps": "many"})
        self.assertEqual(str(refused.exception), "max_steps = 'many': it is a number from 1")


class TestJobs(unittest.TestCase):
    def test_a_job_calls_what_the_manifest_beside_it_probes(self) -> None:
        jobs = sorted(EXAMPLES.glob("*/job.toml"))
        self.assertEqual(len(jobs), 3)
        for path in jobs:
            with self.subTest(path):
                job = tomllib.loads(path.read_text())["job"]
                manifest = tomllib.loads((path.parent / job["plugin"]).read_text())
                self.assertEqual(job["name"], path.parent.name)
                self.assertEqual(manifest["plugin"]["name"], path.parent.name)
                self.assertEqual(manifest["probe"]["method"], job["method"])
                JobItem(manifest["probe"]["params"])


if __name__ == "__main__":
    unittest.main()
