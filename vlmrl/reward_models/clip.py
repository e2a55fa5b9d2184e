"""CLIP reward with goal-baseline projection (VLM-RM).

Source: Rocamonde, Montesinos, Nava, Perez, Lindner: "Vision-Language Models are Zero-Shot Reward Models for
Reinforcement Learning", 2023 (arXiv 2310.12921), equations 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Views, Words, combine_views, or_embedded, sentences
from vlmrl.rows import Rows
from vlmrl.typed import Share


def goal_baseline_reward(images: np.ndarray, goal: np.ndarray, baseline: np.ndarray, alpha: float) -> np.ndarray:
    """Compute VLM-RM's reward (equation 3).

    With d = goal - baseline and P = alpha d d^T / |d|^2 + (1 - alpha) I, the reward is 1 - |P (s - goal)|^2 / 2. For
    alpha = 0 and unit vectors that is the cosine of s and goal (equation 2).

    Args:
        images: (n, E) float, unit vectors s.
        goal: (E,) float, the goal's text embedding.
        baseline: (E,) float, the baseline's; not read at alpha = 0.
        alpha: Strength of the projection, 0 to 1.

    Returns:
        (n,) float32, at most 1.
    """
    gap = np.asarray(images, dtype=np.float64) - goal
    squared = (gap**2).sum(axis=-1)
    if alpha > 0:
        direction = np.asarray(goal, dtype=np.float64) - baseline
        along = (gap @ direction) ** 2 / (direction @ direction)
        # P keeps the part along d whole and shrinks what is across it by (1 - alpha).
        squared = along + (1 - alpha) ** 2 * (squared - along)
    return (1 - squared / 2).astype(np.float32)


class ClipReward:
    """How much a picture looks like the goal's words.

    Args:
        goal: A sentence or several; the embeddings of several are averaged, and the mean is not brought back to unit
            length, as in VLM-RM's code.
        baseline: What the scene shows anyway, likewise; needed for alpha > 0.
        alpha: Strength of the goal-baseline projection, 0 to 1; 0 is plain cosine similarity.
        encoder: None takes the embedded one.
        views: How the rewards of several cameras become one: "mean" or "min".

    Raises:
        UserError: A sentence is empty, alpha is outside 0 to 1, or alpha > 0 without a baseline or with one that
            embeds like the goal.
    """

    needs = frozenset({"embeddings"})
    context = 0
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(
        self,
        goal: str | Sequence[str],
        baseline: str | Sequence[str] = (),
        alpha: float = 0.0,
        encoder: Encoder | None = None,
        views: Views = "mean",
    ):
        words = Words(sentences(goal), sentences(baseline))
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha is {alpha}; it goes from 0 (plain cosine) to 1 (full goal-baseline projection).")
        if alpha > 0 and not words.baseline:
            raise UserError(f"alpha={alpha} projects onto the line from baseline to goal; give a baseline, or alpha=0.")
        encoder = or_embedded(encoder)
        self.words, self.alpha, self.encoder, self.views = words, alpha, encoder, views
        self._goal = encoder.encode_texts(words.goal).mean(axis=0)
        self._baseline = (
            encoder.encode_texts(words.baseline).mean(axis=0) if words.baseline else np.zeros_like(self._goal)
        )
        if alpha > 0 and np.linalg.norm(self._goal - self._baseline) < 1e-6:
            raise UserError(
                f"Goal {list(words.goal)} and baseline {list(words.baseline)} have the same embedding; change one."
            )

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, the mean or the least over the cameras of the reward of each picture."""
        pictures = rows["embeddings"].values()
        return combine_views(
            [goal_baseline_reward(view, self._goal, self._baseline, self.alpha) for view in pictures], self.views
        )


@dataclass(frozen=True)
class ClipConfig:
    """Settings of `reward=clip`.

    Attributes:
        alpha: Strength of the goal-baseline projection, 0 to 1.
        views: How the rewards of several cameras become one.
    """

    alpha: Share = 0.0
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Words, encoder: Encoder) -> ClipReward:
        """Make the reward model."""
        return ClipReward(words.goal, words.baseline, self.alpha, encoder, self.views)
