"""Success predicate of the cart and pole."""

from __future__ import annotations

import numpy as np

from vlmrl.envs.tasks import Condition, State, below


def balance(state: State) -> dict[str, Condition]:
    """Pole within 12 degrees of upright, cart not at the end of its track (2.4 m): the limits of `CartPole-v1`."""
    return {
        "pole up": below(abs(state["angle"]), np.deg2rad(12), np.pi - np.deg2rad(12)),
        "cart inside": below(abs(state["x"]), 2.35, 0.5),
    }
