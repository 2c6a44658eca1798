from cartpole import CartPole
from rollout_plugin import run

run(CartPole)
