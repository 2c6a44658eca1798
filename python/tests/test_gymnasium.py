"""The adapter for gymnasium: with environments of the test's own on gymnasium or, where it is not
installed, on a stand-in for it; and with gymnasium's own environments, where it is."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from rollout_plugin._episode import plain
from rollout_plugin.gymnasium import Gymnasium
from rollout_plugin.testing import CallError, Host, Refused
from tests import worlds

WALK = {"env": "tests.worlds:Walk"}


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"item": number, "seed": 8214565720323784 + number, "params": None} | more


def text(reply: Any) -> str:
    return json.dumps(reply.result)


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.dict(sys.modules, worlds.STAND_INS))
        self.assertEqual(worlds.LIVE, [])

    def assert_fails(self, host: Host, params: object, code: str, message: str) -> None:
        with self.assertRaises(CallError) as caught:
            host.call("run", params)
        self.assertEqual(caught.exception.code, code)
        self.assertIn(message, caught.exception.message)


class TestGymnasium(Case):
    def test_an_episode_has_its_return_its_length_and_its_end(self) -> None:
        with Host(Gymnasium, WALK) as host:
            self.assertEqual(host.ready["name"], "Gymnasium")
            result = host.call("run", item(0)).result
            self.assertEqual(list(result), ["return", "length", "terminated", "truncated"])
            self.assertEqual((result["terminated"], result["truncated"]), (True, False))
            self.assertTrue(0 <= result["return"] <= result["length"] > 0)

    def test_a_trajectory_is_what_the_environment_showed_and_was_told(self) -> None:
        with Host(Gymnasium, WALK | {"record": "trajectory"}) as host:
            result = host.call("run", item(0, params={"at": 1})).result
        seen, done = result["observations"], result["actions"]
        self.assertEqual(len(seen), result["length"] + 1)
        self.assertEqual(list(map(float, done)), result["rewards"])
        self.assertEqual(sum(result["rewards"]), result["return"])
        places = [1]
        for action in done:
            places.append(places[-1] + (1 if action else -1))
        self.assertEqual([one["at"] for one in seen], places)
        self.assertEqual(seen[0]["pair"], [True, None])

    def test_an_episode_is_a_function_of_its_item_and_of_nothing_else(self) -> None:
        config = WALK | {"record": "trajectory"}
        for policy in ({}, {"policy": "tests.worlds:bold", "policy_kwargs": {"right": 0.4}}):
            with Host(Gymnasium, config | policy) as host:
                alone = [text(host.call("run", item(n))) for n in range(60)]
                again = [text(host.call("run", item(n))) for n in reversed(range(60))][::-1]
                batch = [text(one) for one in host.batch("run", [item(n) for n in range(60)])]
                with ThreadPoolExecutor(8) as pool:
                    beside = list(pool.map(lambda n: text(host.call("run", item(n))), range(60)))
            with Host(Gymnasium, config | policy | {"reuse": False}) as host:
                fresh = [text(host.call("run", item(n))) for n in range(60)]
                self.assertEqual(worlds.LIVE, [])
            for other in (again, batch, beside, fresh):
                self.assertEqual(alone, other)
            self.assertGreater(len(set(alone)), 50)

    def test_environments_are_few_and_closed_at_the_end(self) -> None:
        with Host(Gymnasium, WALK, max_in_flight=3) as host:
            with ThreadPoolExecutor(3) as pool:
                list(pool.map(lambda n: host.batch("run", [item(n)] * 20), range(30)))
            self.assertIn(len(worlds.LIVE), range(1, 5))
        self.assertEqual(worlds.LIVE, [])

    def test_a_limit_on_steps_truncates(self) -> None:
        far = WALK | {"env_kwargs": {"walls": 10**9}, "max_steps": 7}
        with Host(Gymnasium, far) as host:
            result = host.call("run", item(0)).result
        ended = (result["length"], result["truncated"], result["terminated"])
        self.assertEqual(ended, (7, True, False))

    def test_a_long_episode_says_that_it_goes_on_and_can_be_cancelled(self) -> None:
        endless = WALK | {"env_kwargs": {"walls": 10**9, "pause": 0.001}}
        with Host(Gymnasium, endless) as host:
            for call in (host.start("run", item(0)), host.start("run", item(1))):
                until = time.monotonic() + 10
                while call.progress < 2 and time.monotonic() < until:
                    time.sleep(0.01)
                self.assertGreaterEqual(call.progress, 2)
                call.cancel()
                with self.assertRaises(CallError) as caught:
                    call.reply()
                self.assertEqual(caught.exception.code, "cancelled")

    def test_an_environment_that_failed_is_not_used_again(self) -> None:
        with Host(Gymnasium, WALK | {"env_kwargs": {"fails_at": 4, "walls": 4}}) as host:
            outcomes = host.batch("run", [item(n) for n in range(50)])
            failed = [one for one in outcomes if isinstance(one, CallError)]
            self.assertTrue(0 < len(failed) < 50)
            for error in failed:
                self.assertEqual(error.code, "user")
                self.assertEqual(error.message, "RuntimeError: the floor is lava")
                self.assertIn("in step", error.traceback)

    def test_other_parameters_are_refused(self) -> None:
        with Host(Gymnasium, WALK) as host:
            for params in (None, 7, [], {}, {"item": -1, "seed": 0}, {"item": True, "seed": 0}):
                self.assert_fails(host, params, "bad_params", "")
            for seed in (-1, 2**53, 1.0, "1", None):
                self.assert_fails(host, item(0, seed=seed), "bad_params", "seed")
            self.assert_fails(host, item(0, params=[1]), "bad_params", "options")
            host.call("run", {"item": 0, "seed": 2**53 - 1})

    def test_policies_that_fail_are_errors_of_the_item(self) -> None:
        for policy, message in (
            ("nonsense", "ValueError: the policy's action 'sideways' is not in Discrete(2)"),
            ("raising", "KeyError: 'no model'"),
        ):
            with Host(Gymnasium, WALK | {"policy": f"tests.worlds:{policy}"}) as host:
                self.assert_fails(host, item(0), "user", message)

    def test_observations_that_json_does_not_have_are_errors_of_the_item(self) -> None:
        for value, message in (
            (math.inf, "not JSON compliant"),
            ({1: 2}, "are not all text"),
            (b"bytes", "JSON has no bytes"),
        ):
            shown = mock.patch.object(worlds.Walk, "_seen", lambda _: value)
            with shown, Host(Gymnasium, WALK | {"record": "trajectory"}) as host:
                self.assert_fails(host, item(0), "user", message)

    def test_a_configuration_that_does_not_fit_is_refused_with_its_key(self) -> None:
        for config, message in (
            ({}, "env is missing in [config]: text"),
            ({"env": 7}, "env = 7: text is needed"),
            ({"env": "NoSuchEnv-v0"}, "env does not give one: "),
            ({"env": "no_such_module:make"}, "env = 'no_such_module:make': ModuleNotFoundError"),
            ({"env": "tests.worlds:nothing"}, "there is no 'nothing' in tests.worlds"),
            ({"env": "tests.worlds:REAL"}, "it can't be called"),
            ({"env": "tests.worlds:nowhere"}, "env gives a NoneType, which is no gymnasium.Env"),
            ({"env": "tests.worlds:broken_factory"}, "env does not give one: OSError: no licence"),
            (WALK | {"env_kwargs": {"moat": 1}}, "unexpected keyword argument 'moat'"),
            (WALK | {"policy": "best"}, "policy = 'best': it has the form module:function"),
            (WALK | {"policy_kwargs": {"a": 1}}, "policy_kwargs are for a policy of your own"),
            (WALK | {"record": "video"}, "it is one of return, trajectory"),
            (WALK | {"max_steps": 0}, "max_steps = 0: it is at least 1"),
            (WALK | {"max_steps": True}, "max_steps = True: a number is needed"),
            (WALK | {"polcy": "random"}, "unknown in [config]: polcy"),
        ):
            with self.subTest(config), contextlib.redirect_stderr(io.StringIO()):
                with self.assertRaises(Refused) as caught:
                    Host(Gymnasium, config)
                self.assertIn(message, str(caught.exception))

    def test_where_gymnasium_is_missing_the_refusal_says_so_and_nothing_else_is_hurt(self) -> None:
        with mock.patch.dict(sys.modules, {"gymnasium": None}):
            with contextlib.redirect_stderr(io.StringIO()) as printed:
                with self.assertRaises(Refused) as caught:
                    Host(Gymnasium, WALK)
        self.assertIn(f"gymnasium is missing in {sys.executable}", str(caught.exception))
        self.assertIn("pip install gymnasium", str(caught.exception))
        self.assertEqual(printed.getvalue(), "")


@unittest.skipUnless(worlds.REAL, "gymnasium is not installed")
class TestWithGymnasium(Case):
    def test_cart_pole_is_what_it_is_by_hand(self) -> None:
        env = worlds.gymnasium.make("CartPole-v1")
        with Host(Gymnasium, {"env": "CartPole-v1", "record": "trajectory"}) as host:
            for n in range(20):
                params = item(n)
                result = host.call("run", params).result
                env.action_space.seed(2**53 + params["seed"])
                observation, _ = env.reset(seed=params["seed"])
                seen, done, over = [observation], [], False
                while not over:
                    done.append(env.action_space.sample())
                    observation, _, terminated, truncated, _ = env.step(done[-1])
                    seen.append(observation)
                    over = terminated or truncated
                self.assertEqual(result["actions"], [int(one) for one in done])
                self.assertEqual(result["observations"], [one.tolist() for one in seen])
                self.assertEqual(result["return"], len(done))
        env.close()

    def test_environments_of_gymnasium_are_functions_of_their_items(self) -> None:
        for config in (
            {"env": "CartPole-v1"},
            {"env": "Pendulum-v1", "policy": "tests.test_gymnasium:torque"},
            {"env": "FrozenLake-v1", "env_kwargs": {"is_slippery": True}},
            {"env": "Blackjack-v1"},
            {"env": "Taxi-v4" if "Taxi-v4" in worlds.gymnasium.registry else "Taxi-v3"},
        ):
            with self.subTest(config), Host(Gymnasium, config | {"record": "trajectory"}) as host:
                alone = [text(host.call("run", item(n))) for n in range(20)]
                batch = [text(one) for one in host.batch("run", [item(n) for n in range(20)])]
                self.assertEqual(alone, batch)
                self.assertGreater(len(set(alone)), 10)
            with Host(Gymnasium, config | {"record": "trajectory", "reuse": False}) as host:
                self.assertEqual(alone, [text(host.call("run", item(n))) for n in range(20)])

    def test_an_action_for_a_box_may_be_what_numpy_takes_but_within_its_bounds(self) -> None:
        config = {"env": "Pendulum-v1", "policy": "tests.test_gymnasium:torque"}
        with Host(Gymnasium, config | {"policy_kwargs": {"bound": 50.0}}) as host:
            self.assert_fails(host, item(0), "user", "is not in Box(")

    def test_numbers_keep_every_digit(self) -> None:
        import numpy

        for value in (numpy.float32(0.1), numpy.float64(0.1), numpy.uint64(2**64 - 1), numpy.int8(-1)):
            self.assertEqual(plain(value), value.item())
            self.assertIn(type(plain(value)), (int, float))
            array = numpy.array([[value], [value]])
            self.assertEqual(numpy.array(plain(array), value.dtype).tobytes(), array.tobytes())
        self.assertIs(plain(numpy.bool_(True)), True)
        self.assertEqual(plain(numpy.str_("a")), "a")
        for value in (numpy.complex64(1), numpy.datetime64(0, "s"), numpy.array([object()])):
            with self.assertRaises(TypeError):
                plain(value)


def torque(observation: Any, env: Any, rng: Any, bound: float = 2.0) -> Any:
    return [bound * (1 if rng.random() < 0.5 else -1)]


if __name__ == "__main__":
    unittest.main()
