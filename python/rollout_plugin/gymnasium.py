"""Gymnasium environments, unmodified: an item of a job is a whole episode.

    [entry.sidecar]
    command = ["python3", "-m", "rollout_plugin.gymnasium"]

    [config]
    env = "CartPole-v1"         # a registered id, or module:factory
    env_kwargs = {}             # of gymnasium.make, or of the factory
    policy = "random"           # or module:function
    policy_kwargs = {}          # of the function
    max_steps = 500             # an end of our own, as truncated; without it, only the environment's
    record = "return"           # or "trajectory"
    reuse = true                # false: a new environment for each episode

A policy is called for each step, as ``policy(observation, env, rng)``, and returns an action of
``env.action_space``; ``rng`` is a numpy Generator, the episode's own.

Gymnasium, and numpy with it, is imported when the plugin starts and nowhere else.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from time import monotonic

from rollout_plugin import BadConfig, BadParams, Call, Cancelled, JobItem, Plugin, method, run
from rollout_plugin._config import Config, is_path, made, named
from rollout_plugin._episode import Kept, episode
from rollout_plugin._job import SEEDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# An episode has three independent sources of chance. No item's seed is one of the latter two's.
_OF_ACTIONS, _OF_POLICY = SEEDS, 2 * SEEDS
_GRACE = 1.0
"""How long, in seconds, the end waits for episodes before it closes their environments."""


class Gymnasium(Plugin):
    """Plays episodes. Each thread makes one environment, and resets it for each episode."""

    version = "0.1.0"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._gymnasium, self._numpy = _imported()
        given = Config(config)
        self._make = self._maker(given.text("env"), given.table("env_kwargs"))
        policy, kwargs = given.text("policy", "random"), given.table("policy_kwargs")
        self._policy = None if policy == "random" else partial(named("policy", policy), **kwargs)
        self._limit = given.positive("max_steps")
        self._keeps = given.choice("record", "return", "trajectory") == "trajectory"
        self._reuse = given.flag("reuse", True)
        given.end()
        if kwargs and self._policy is None:
            raise BadConfig("policy_kwargs are for a policy of your own")
        # Not kept: there are environments that work on the thread alone that made them.
        self._checked(made("env", self._make, {})).close()
        self._mine = threading.local()
        self._seats: list[_Seat] = []

    @method
    def run(self, params: object, call: Call) -> dict[str, Any]:
        """One episode: its return and length, how it ended, and if recorded its trajectory."""
        item = JobItem(params)
        if item.params is not None and type(item.params) is not dict:
            raise BadParams("params are the options of the reset: an object, or null")
        seat = self._seat()
        with seat.taken:
            try:
                env = seat.env = seat.env or self._checked(self._make())
                result = self._episode(env, item, call)
            except BaseException as error:
                # Who knows what state it is in.
                if not isinstance(error, Cancelled):
                    seat.leave()
                raise
            if not self._reuse:
                seat.leave()
        return result

    def shutdown(self) -> None:
        # The calls have been cancelled by now.
        end = monotonic() + _GRACE
        for seat in self._seats:
            if seat.taken.acquire(timeout=max(0.0, end - monotonic())):
                seat.leave()

    def _episode(self, env: Any, item: JobItem, call: Call) -> dict[str, Any]:
        env.action_space.seed(_OF_ACTIONS + item.seed)
        options = {} if item.params is None else {"options": item.params}
        observation, _ = env.reset(seed=item.seed, **options)
        choose = None if self._policy is None else self._chooser(env, self._policy, item)
        kept = Kept(observation) if self._keeps else None
        return episode(env, observation, choose, self._limit, kept, call)

    def _chooser(
        self, env: Any, policy: Callable[..., Any], item: JobItem
    ) -> Callable[[Any], Any]:
        rng = self._numpy.random.default_rng(_OF_POLICY + item.seed)
        space = env.action_space
        # Policies compute in float64, of which float32 takes none without being asked.
        dtype = space.dtype if isinstance(space, self._gymnasium.spaces.Box) else None

        def choose(observation: Any) -> Any:
            action = given = policy(observation, env, rng)
            if dtype is not None:
                action = self._numpy.asarray(given, dtype)
            if not space.contains(action):
                raise ValueError(f"the policy's action {given!r:.80} is not in {space}")
            return action

        return choose

    def _maker(self, env: str, kwargs: dict[str, Any]) -> Callable[[], Any]:
        # Gymnasium itself knows ids of the form module:Name-v0.
        if is_path(env.partition(":")[2]):
            return partial(named("env", env), **kwargs)
        return partial(self._gymnasium.make, env, **kwargs)

    def _checked(self, env: Any) -> Any:
        if not isinstance(env, self._gymnasium.Env):
            raise BadConfig(f"env gives a {type(env).__name__}, which is no gymnasium.Env")
        return env

    def _seat(self) -> _Seat:
        """This thread's own."""
        try:
            seat: _Seat = self._mine.seat
        except AttributeError:
            seat = self._mine.seat = _Seat()
            self._seats.append(seat)
        return seat


class _Seat:
    """A thread's environment, once there is one."""

    def __init__(self) -> None:
        self.taken = threading.Lock()
        self.env: Any = None

    def leave(self) -> None:
        """Closes the environment; the next episode here has a new one."""
        env, self.env = self.env, None
        if env is not None:
            try:
                env.close()
            except Exception:
                logging.exception("an environment could not be closed")


def _imported() -> tuple[Any, Any]:
    try:
        import gymnasium
        import numpy
    except ImportError as error:
        import sys

        raise BadConfig(
            f"gymnasium is missing in {sys.executable} ({error}): pip install gymnasium"
        ) from None
    return gymnasium, numpy


if __name__ == "__main__":
    run(Gymnasium)
