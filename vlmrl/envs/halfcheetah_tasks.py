"""Success predicates of the half cheetah. Standing, its trunk is level at 0.57 m."""

from __future__ import annotations

from vlmrl.envs.runner_tasks import feet_down, high, in_place, off_the_floor, running, turned_over, upright
from vlmrl.envs.tasks import Condition, State


def run(state: State) -> dict[str, Condition]:
    """Forward at 3 m/s or more, trunk within 45 degrees of level."""
    return running(state, 3.0) | upright(state, 45)


def stand(state: State) -> dict[str, Condition]:
    """Trunk within 20 degrees of level at 0.5 m or higher, feet on the floor, slower than 0.5 m/s."""
    return upright(state, 20) | high(state, 0.5, 0.4) | feet_down(state, 0.2) | in_place(state, 0.5)


def jump(state: State) -> dict[str, Condition]:
    """The whole body 0.1 m off the floor, trunk within 45 degrees of how it starts."""
    return off_the_floor(state, 0.1) | upright(state, 45)


def flip(state: State) -> dict[str, Condition]:
    """A whole turn forwards or backwards, then within 40 degrees of upright, torso at 0.4 m or higher."""
    return turned_over(state, 0.4)
