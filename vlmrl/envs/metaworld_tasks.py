"""Success predicates of Meta-World's tasks: the object is at its target.

Limits and distances are those by which Meta-World's third versions tell `info["success"]`. The scales are the greatest
distances at which episodes start, less the limits: the dense reward is near 0 there.
"""

from __future__ import annotations

import numpy as np

from vlmrl.envs.tasks import Condition, State, below


def open_drawer(state: State) -> dict[str, Condition]:
    """Handle within 0.03 m of where it is with the drawer 0.19 m out: the drawer ends at 0.16 m, so wide open."""
    return {"handle at the target": below(_distance(state, 3), 0.03, 0.16)}


def score_goal(state: State) -> dict[str, Condition]:
    """Ball's centre within 0.07 m of the middle of the goal."""
    return {"ball in the goal": below(_distance(state, 3), 0.07, 0.3)}


def sweep_cube(state: State) -> dict[str, Condition]:
    """Cube within 0.05 m of the middle of the hole, seen from above."""
    return {"cube at the hole": below(_distance(state, 2), 0.05, 0.21)}


def _distance(state: State, axes: int) -> float:
    """Distance of object and target in m, along the first axes."""
    return float(np.linalg.norm((state["object"] - state["target"])[:axes].astype(np.float64)))
