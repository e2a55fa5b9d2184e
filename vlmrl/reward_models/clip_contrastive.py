"""CLIP reward against negatives: how much more a picture looks like the goal than like what may happen instead.

Source: Baumli et al.: "Vision-Language Models as a Source of Rewards", 2023 (arXiv 2312.09187), section 3.
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
from vlmrl.typed import Positive, Share


def goal_probability(images: np.ndarray, goal: np.ndarray, negatives: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax over goal and negatives of cosine / temperature, at the goal.

    Args:
        images: (n, E) float, unit vectors.
        goal: (E,) float, unit vector.
        negatives: (k, E) float, unit vectors, k >= 1.
        temperature: Positive; the smaller, the sharper.

    Returns:
        (n,) float64, 0 to 1.
    """
    logits = np.asarray(images, dtype=np.float64) @ np.concatenate([goal[None], negatives]).T / temperature
    logits -= logits.max(axis=1, keepdims=True)  # no overflow
    weights = np.exp(logits)
    return weights[:, 0] / weights.sum(axis=1)


class ClipContrastiveReward:
    """Probability of the goal among goal and negatives, or whether it is above a threshold.

    The negatives are the same for a whole run: drawn anew each time, they would give one picture several rewards.

    Args:
        goal: A sentence or several; of several, the mean embedding brought back to unit length counts.
        negatives: At least one sentence.
        temperature: Divides the cosines. The paper keeps its value to itself; CLIP's own is 0.01.
        threshold: With a number, the reward is 1 above it and 0 elsewhere, as in the paper; None gives the probability.
        encoder: None takes the embedded one.
        views: How the probabilities of several cameras become one: "mean" or "min".
        ends_episode: Whether a reward of 1 ends the episode, as in the paper; needs a threshold.

    Raises:
        UserError: A sentence is empty, there is no negative, a number is out of range, or episodes are to end without
            a threshold.
    """

    needs = frozenset({"embeddings"})
    context = 0
    retains: frozenset[str] = frozenset()

    def __init__(
        self,
        goal: str | Sequence[str],
        negatives: str | Sequence[str],
        temperature: float = 0.1,
        threshold: float | None = None,
        encoder: Encoder | None = None,
        views: Views = "mean",
        ends_episode: bool = False,
    ):
        words = Words(sentences(goal), negatives=sentences(negatives))
        if not words.negatives:
            raise UserError(
                "A contrastive reward needs negatives, sentences about what the agent may do instead: "
                "task.negatives=['...']."
            )
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be positive.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}; it is a probability, 0 to 1, or null.")
        if ends_episode and threshold is None:
            raise UserError(
                "reward.ends_episode=true ends an episode where the reward is 1, and only a thresholded reward gets "
                "there: reward.threshold=0.5."
            )
        encoder = or_embedded(encoder)
        self.words, self.encoder, self.views = words, encoder, views
        self.requires_sync = ends_episode
        self.temperature, self.threshold = temperature, threshold
        mean = encoder.encode_texts(words.goal).mean(axis=0)
        self._goal = mean / np.linalg.norm(mean)
        self._negatives = encoder.encode_texts(words.negatives)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, from the mean or the least probability over the cameras."""
        pictures = rows["embeddings"].values()
        probability = combine_views(
            [goal_probability(view, self._goal, self._negatives, self.temperature) for view in pictures], self.views
        )
        if self.threshold is not None:
            return (probability > self.threshold).astype(np.float32)
        return probability.astype(np.float32)

    def ends(self, rewards: np.ndarray) -> np.ndarray:
        """Return (n,) bool: where the thresholded reward is 1."""
        return rewards >= 1


@dataclass(frozen=True)
class ClipContrastiveConfig:
    """Settings of `reward=clip_contrastive`.

    Attributes:
        temperature: Divides the cosines.
        threshold: Reward 1 above this probability and 0 elsewhere; None gives the probability itself.
        views: How the probabilities of several cameras become one.
        ends_episode: Whether a reward of 1 ends the episode; needs a threshold.
    """

    temperature: Positive = 0.1
    threshold: Share | None = None
    views: Views = "mean"
    ends_episode: bool = False

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Words, encoder: Encoder) -> ClipContrastiveReward:
        """Make the reward model."""
        return ClipContrastiveReward(
            words.goal, words.negatives, self.temperature, self.threshold, encoder, self.views, self.ends_episode
        )
