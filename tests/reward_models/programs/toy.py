"""A small environment, by its abstraction only, for tests of programs."""

from __future__ import annotations

import numpy as np

from vlmrl.quantities import Abstraction, Group, Quantity

BODY = (Quantity("position", "m, in the world", (3,), 0), Quantity("rotation", "axes", (3, 3), 3))
TOY = Abstraction(
    name="toy",
    dt=0.1,
    state=Group(
        "state",
        "State",
        "",
        (
            Group("arm", "Body", "an arm", BODY),
            Quantity("angle", "rad", (), 12),
            Quantity("speed", "rad/s", (), 13),
        ),
    ),
    action=("push, -1 to 1",),
    notes=(),
    size=14,
)
GOOD = """
def compute_dense_reward(state, action):
    up = np.exp(-np.square(state.angle))
    effort = -0.1 * np.square(action[:, 0])
    return up + effort, {"up": up, "effort": effort}
"""


def recorded(n: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, TOY.size)), rng.uniform(-1, 1, (n, 1))
