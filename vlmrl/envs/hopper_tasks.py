"""Success predicates of the hopper. Standing straight, its torso is at 1.21 m and its foot at 0.06 m."""

from __future__ import annotations

from vlmrl.envs.runner_tasks import feet_down, high, in_place, off_the_floor, running, turned_over, upright
from vlmrl.envs.tasks import Condition, State


def run(state: State) -> dict[str, Condition]:
    """Hopping forward at 1 m/s or more, trunk within 45 degrees of upright."""
    return running(state, 1.0) | upright(state, 45)


def stand(state: State) -> dict[str, Condition]:
    """Trunk within 15 degrees of upright, torso at 1.1 m or higher, foot on the floor, slower than 0.5 m/s."""
    return upright(state, 15) | high(state, 1.1, 1.0) | feet_down(state, 0.15) | in_place(state, 0.5)


def jump(state: State) -> dict[str, Condition]:
    """The whole body 0.1 m off the floor, trunk within 45 degrees of how it starts."""
    return off_the_floor(state, 0.1) | upright(state, 45)


def flip(state: State) -> dict[str, Condition]:
    """A whole turn forwards or backwards, then within 40 degrees of upright, torso at 0.9 m or higher."""
    return turned_over(state, 0.9)
