"""Success predicates of the kitchen: a thing is within 0.3 of where FrankaKitchen wants it, in rad or m.

Goals and limit are those by which `FrankaKitchen-v1` tells that a task is done (Euclidean distance of the joints). The
scale is the distance as episodes start, less the limit: the dense reward is 0 with everything closed.
"""

from __future__ import annotations

import numpy as np

from vlmrl.envs.tasks import Condition, State, below

LIMIT = 0.3  # rad or m


def microwave(state: State) -> dict[str, Condition]:
    """Door of the microwave open by 0.45 rad (26 degrees) to 1.05 rad, of which the goal is 0.75."""
    return {"door open": _near(state["microwave"], (-0.75,))}


def slide_cabinet(state: State) -> dict[str, Condition]:
    """Sliding door of the cabinet open by 0.07 m or more; the goal is 0.37."""
    return {"door open": _near(state["slide_cabinet"], (0.37,))}


def hinge_cabinet(state: State) -> dict[str, Condition]:
    """Right door of the hinged cabinet open by 1.15 rad (66 degrees) or more, the left one closed; the goal is 1.45."""
    return {"door open": _near(state["hinge_cabinet"], (0.0, 1.45))}


def light_switch(state: State) -> dict[str, Condition]:
    """Light switch over by 0.39 rad (23 degrees) or more; the goal is 0.69."""
    return {"switch over": _near(state["light_switch"], (-0.69, -0.05))}


def _near(joints: np.ndarray, goal: tuple[float, ...]) -> Condition:
    """Condition that joints are near a goal; from rest, all at 0, the scale is the way to the limit."""
    distance = float(np.linalg.norm(joints.astype(np.float64) - goal))
    return below(distance, LIMIT, float(np.linalg.norm(goal)) - LIMIT)
