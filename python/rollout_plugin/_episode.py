"""One episode of an environment, from its reset to its end, and what is kept of it."""

from __future__ import annotations

from time import monotonic

from rollout_plugin._plugin import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rollout_plugin._plugin import Call

    Choose = Callable[[Any], Any]

_LOOK = 0.05
"""How often an episode looks, in seconds, whether it is still wanted, and says that it goes on. A
look costs less than a step, but not nothing."""


def episode(
    env: Any, observation: Any, choose: Choose | None, limit: int | None, kept: Kept | None, call: Call
) -> dict[str, Any]:
    """Plays from the first observation to the end, or as many steps as the limit allows.

    Without `choose` each action is a sample of the action space. Raises `Cancelled` between steps.
    """
    step, sample = env.step, env.action_space.sample
    total, length, terminated, truncated = 0.0, 0, False, False
    look = monotonic() + _LOOK
    while not (terminated or truncated):
        if monotonic() >= look:
            if call.cancelled:
                raise Cancelled
            call.progress()
            look = monotonic() + _LOOK
        action = sample() if choose is None else choose(observation)
        if kept is not None:
            # Before the step: who is given an array may write to it.
            kept.actions.append(plain(action))
        observation, reward, terminated, truncated, _ = step(action)
        # Sums of float32 would be float32.
        reward = float(reward)
        total += reward
        length += 1
        if kept is not None:
            kept.observations.append(plain(observation))
            kept.rewards.append(reward)
        if length == limit and not terminated:
            truncated = True
    result = {
        "return": total,
        "length": length,
        "terminated": bool(terminated),
        "truncated": bool(truncated),
    }
    return result if kept is None else result | kept.json()


class Kept:
    """The trajectory of an episode, which has one observation more than it has steps."""

    def __init__(self, first: Any) -> None:
        self.observations = [plain(first)]
        self.actions: list[Any] = []
        self.rewards: list[float] = []

    def json(self) -> dict[str, Any]:
        return {
            "observations": self.observations,
            "actions": self.actions,
            "rewards": self.rewards,
        }


_ASIS = (float, int, str, bool, type(None))
_EXACT = "biufU"
"""The kinds of numpy's types that Python has as well: truth values, integers, floats, text."""


def plain(value: Any) -> Any:
    """A value as JSON has it, none of its digits lost. Arrays become lists of lists.

    Raises `TypeError` for what JSON has nothing for; what is no finite number is found when the
    result is written.
    """
    if type(value) in _ASIS:
        return value
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise TypeError(f"the keys of {_short(value)} are not all text")
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.kind not in _EXACT or dtype.kind == "f" and dtype.itemsize > 8:
        kind = type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"
        raise TypeError(f"JSON has no {kind}: {_short(value)}")
    return value.tolist()


def _short(value: Any) -> str:
    return f"{value!r:.80}"
