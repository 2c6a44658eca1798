"""A search for a policy that balances a pole on a cart, at random: each item draws four weights and
plays one episode with them. Most fall soon; some balance to the end, and their weights are in the
result.

The cart-pole of Barto, Sutton and Anderson (1983), with the constants that everyone uses since.
"""

import math
from random import Random

from rollout_plugin import BadConfig, BadParams, Call, JobItem, Plugin, method

GRAVITY, FORCE, TICK = 9.8, 10.0, 0.02
POLE, CART = 0.1, 1.0
"""Masses in kg."""
HALF = 0.5
"""Half of the pole's length in m."""
TOTAL = POLE + CART
TILT, EDGE = math.radians(12), 2.4
"""Where an episode ends: how far the pole may lean and the cart may go."""

State = tuple[float, float, float, float]


def step(state: State, push: float) -> State:
    """A tick later: place and speed of the cart, angle and turn of the pole (Euler's method)."""
    x, v, angle, turn = state
    sin, cos = math.sin(angle), math.cos(angle)
    swing = (push + POLE * HALF * turn * turn * sin) / TOTAL
    turning = (GRAVITY * sin - cos * swing) / (HALF * (4 / 3 - POLE * cos * cos / TOTAL))
    pushed = swing - POLE * HALF * turning * cos / TOTAL
    return x + TICK * v, v + TICK * pushed, angle + TICK * turn, turn + TICK * turning


def fallen(state: State) -> bool:
    return abs(state[0]) > EDGE or abs(state[2]) > TILT


def start(rng: Random) -> State:
    return tuple(rng.uniform(-0.05, 0.05) for _ in range(4))  # type: ignore[return-value]


def push(weights: list[float], state: State) -> float:
    """The policy: to the right if the weighted state is positive."""
    return FORCE if sum(map(float.__mul__, weights, state)) > 0 else -FORCE


class CartPole(Plugin):
    name = "cartpole"
    version = "0.1.0"

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        self.limit = config.get("max_steps", 500)
        if type(self.limit) is not int or self.limit < 1:
            raise BadConfig(f"max_steps = {self.limit!r}: it is a number from 1")

    @method
    def run(self, params: object, call: Call) -> dict:
        """One episode, under the weights in params or, where there are none, under drawn ones."""
        item = JobItem(params)
        rng = item.rng()
        state = start(rng)
        weights = [rng.gauss(0.0, 1.0) for _ in range(4)]
        if item.params is not None:
            weights = given(item.params)
        length = 0
        while length < self.limit and not fallen(state):
            state = step(state, push(weights, state))
            length += 1
        down = fallen(state)
        return {
            "return": float(length),
            "length": length,
            "terminated": down,
            "truncated": not down,
            "weights": weights,
        }


def given(params: object) -> list[float]:
    match params:
        case {"weights": [_, _, _, _] as weights} if all(type(w) in (int, float) for w in weights):
            return [float(weight) for weight in weights]
    raise BadParams('params are null or {"weights": [..., ..., ..., ...]}')
