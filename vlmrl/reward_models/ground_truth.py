"""The task's own dense reward, as a reward model: the ceiling that rewards in words are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vlmrl.reward_models.base import Words
from vlmrl.rows import Rows


class GroundTruthReward:
    """Gives what the environment gave: the task's ground truth or, without a task, the environment's own reward."""

    needs = frozenset({"reward"})
    context = 0
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return the `reward` column, (n,) float32."""
        return np.asarray(rows["reward"], dtype=np.float32)


@dataclass(frozen=True)
class GroundTruthConfig:
    """Has no settings."""

    uses_encoder: ClassVar[bool] = False
    uses_words: ClassVar[bool] = False  # so that an environment needs neither task nor goal

    def build(self, words: Words | None, encoder: None) -> GroundTruthReward:
        """Make the reward model; the words are not read."""
        return GroundTruthReward()
