"""Success predicates of MiniGrid and BabyAI."""

from __future__ import annotations

from vlmrl.envs.tasks import Condition, State, above, below
from vlmrl.errors import UserError


def mission(state: State) -> dict[str, Condition]:
    """The mission of the level is done. The truth is sparse: 1 at that step, which ends the episode, else 0."""
    return {"mission done": above(state["mission_done"], 1, 1)}


def reach_goal(state: State) -> dict[str, Condition]:
    """Agent on a goal square; the dense reward is 0 from 20 cells away on.

    Raises:
        UserError: The level has no goal square.
    """
    if state["goal_distance"] < 0:
        raise UserError("This level has no goal square. Use task=mission, or a level with one: env.kwargs.level=<id>.")
    return {"at the goal": below(state["goal_distance"], 0, 20)}


def open_door(state: State) -> dict[str, Condition]:
    """The agent has opened a door in this episode. The truth is sparse.

    Raises:
        UserError: The level has no door.
    """
    if state["doors"] == 0:
        raise UserError("This level has no door. Use task=mission, or a level with one: env.kwargs.level=<id>.")
    return {"door opened": above(state["doors_opened"], 1, 1)}
