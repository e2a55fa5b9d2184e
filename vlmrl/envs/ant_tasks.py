"""Success predicates of the ant. Standing, its torso is at 0.53 m."""

from __future__ import annotations

from vlmrl.envs.runner_tasks import high, in_place, off_the_floor, running, upright
from vlmrl.envs.tasks import Condition, State


def run(state: State) -> dict[str, Condition]:
    """Forward, along x, at 1 m/s or more, trunk within 45 degrees of level."""
    return running(state, 1.0) | upright(state, 45)


def stand(state: State) -> dict[str, Condition]:
    """Trunk within 20 degrees of level at 0.4 m or higher, slower than 0.5 m/s."""
    return upright(state, 20) | high(state, 0.4, 0.3) | in_place(state, 0.5)


def jump(state: State) -> dict[str, Condition]:
    """The whole body 0.1 m off the floor, trunk within 45 degrees of how it starts."""
    return off_the_floor(state, 0.1) | upright(state, 45)
