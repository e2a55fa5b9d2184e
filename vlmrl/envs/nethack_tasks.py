"""Success predicates of NetHack and MiniHack."""

from __future__ import annotations

from vlmrl.envs.tasks import Condition, State, above


def reach_stairs(state: State) -> dict[str, Condition]:
    """The hero has stood on a staircase down in this episode. The truth is sparse: 0 before, 1 from then on."""
    return {"stood on stairs": above(state["stood_on_stairs"], 1, 1)}


def reach_level_3(state: State) -> dict[str, Condition]:
    """The hero has been on the third level of the dungeon in this episode; the dense reward is 0.5 on the second."""
    return {"deep enough": above(state["deepest"], 3, 2)}


def reach_level_4(state: State) -> dict[str, Condition]:
    """The hero has been on the fourth level of the dungeon in this episode; a third of the reward for each level."""
    return {"deep enough": above(state["deepest"], 4, 3)}


def meet_oracle(state: State) -> dict[str, Condition]:
    """The hero has stood next to the Oracle in this episode. The truth is sparse."""
    return {"met her": above(state["met_oracle"], 1, 1)}


def solve_level(state: State) -> dict[str, Condition]:
    """The level's own success, which ends the episode. The truth is sparse: 1 at that step, 0 at all others."""
    return {"solved": above(state["solved"], 1, 1)}
