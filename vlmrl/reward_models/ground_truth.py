"""The task's own dense reward, as a reward model: the ceiling that rewards in words are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vlmrl.reward_models.base import Words
from vlmrl.rows import Rows


class GroundTruthReward:
    """Gives what the environment gave: the task's ground truth or, without a task, the environment's own reward.

    Args:
        column: "reward" for that; "native_reward" for the environment's own even where there is a task.
    """

    context = 0
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(self, column: Literal["reward", "native_reward"] = "reward"):
        self._column = column
        self.needs = frozenset({column})

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return the column, (n,) float32."""
        return np.asarray(rows[self._column], dtype=np.float32)


@dataclass(frozen=True)
class GroundTruthConfig:
    """Settings of `reward=ground_truth`.

    Attributes:
        of: "task": its ground truth, or the environment's own reward where there is no task; "environment": its own.
    """

    of: Literal["task", "environment"] = "task"

    uses_encoder: ClassVar[bool] = False
    uses_words: ClassVar[bool] = False  # so that an environment needs neither task nor goal
    at_collection: ClassVar[bool] = True  # a worker that takes a step can reward it

    def build(self, words: Words | None, encoder: None) -> GroundTruthReward:
        """Make the reward model; the words are not read."""
        return GroundTruthReward("native_reward" if self.of == "environment" else "reward")
