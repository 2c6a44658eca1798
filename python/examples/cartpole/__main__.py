"""`python3 -m cartpole`: what the manifest runs."""

from cartpole import CartPole
from rollout_plugin import run

run(CartPole)
