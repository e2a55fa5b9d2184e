"""Success predicate of the mountain car."""

from __future__ import annotations

from vlmrl.envs.tasks import Condition, State, above


def climb(state: State) -> dict[str, Condition]:
    """At the flag: position of 0.45 m or more, as in `MountainCarContinuous-v0`.

    The dense reward is 0 in the valley (-0.5 m) and on all of the left slope, where the car gathers speed.
    """
    return {"at the flag": above(state["x"], 0.45, 0.95)}
