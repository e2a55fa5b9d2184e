"""Step sizes over the course of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Schedule = Literal["constant", "linear"]


def step_size(learning_rate: float, schedule: Schedule) -> float | Callable[[float], float]:
    """Return SB3's `learning_rate`: a number, or a function of the share of the run that remains, 1 to 0."""
    if schedule == "constant":
        return learning_rate
    from stable_baselines3.common.utils import LinearSchedule

    return LinearSchedule(start=learning_rate, end=0.0, end_fraction=1.0)
