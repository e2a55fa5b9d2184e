"""Goals that must be seen one after the other: the best monotone alignment of a film with sentences in their order.

The alignment is dynamic time warping (Sakoe and Chiba 1978, IEEE Transactions on Acoustics, Speech, and Signal
Processing 26, 43) of frames to sentences: each sentence takes one frame or more, those after it none before its last,
and no frame is left out. A mean over frames, by contrast, is the same in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.reward_models.base import Views, Words, combine_views, or_embedded, sentences
from vlmrl.rows import Rows

UNSEEN = -1.0  # before there are as many frames as sentences; no cosine is less


def aligned_means(similarity: np.ndarray) -> np.ndarray:
    """Return for each beginning of a film the mean similarity under its best monotone alignment with all sentences.

    Args:
        similarity: (n, k) float, of frame i and sentence j.

    Returns:
        (n,) float64; `UNSEEN` for the first k - 1.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    n, k = similarity.shape
    sums = np.full(k, -np.inf)  # of the best alignment of the frames so far that has come to sentence j
    values = np.full(n, UNSEEN)
    for i in range(n):
        came = np.concatenate([[0.0 if i == 0 else -np.inf], sums[:-1]])
        sums = np.maximum(sums, came) + similarity[i]
        if np.isfinite(sums[-1]):
            values[i] = sums[-1] / (i + 1)
    return values


class TemporalAlignmentReward:
    """How well an episode so far shows what several sentences say, in their order.

    The reward of a step is `aligned_means` of the cosines up to it: it is high where all has been seen in order, and
    what was done before counts as much as what is seen now.

    Args:
        goal: Sentences, first things first.
        encoder: None takes the embedded one.
        centre: Take each sentence's mean over the episode off its cosines, so that a sentence that everything looks
            like is not drawn out. The mean is known when the episode has ended, and so are the rewards.
        views: How the cosines of several cameras become one: "mean" or "min".

    Raises:
        UserError: There is no sentence, or one is empty.
    """

    needs = frozenset({"embeddings"})
    context = "episode"
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(
        self,
        goal: str | Sequence[str],
        encoder: Encoder | None = None,
        centre: bool = False,
        views: Views = "mean",
    ):
        self.centre = self.awaits_end = centre
        self.words, self.encoder, self.views = Words(sentences(goal)), or_embedded(encoder), views
        self._goals = self.encoder.encode_texts(self.words.goal)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, -1 to 1 (with `centre` -2 to 2)."""
        cosines = combine_views([np.asarray(view) @ self._goals.T for view in rows["embeddings"].values()], self.views)
        if self.centre:
            cosines = cosines - cosines.mean(axis=0)
        return aligned_means(cosines).astype(np.float32)


@dataclass(frozen=True)
class TemporalAlignmentConfig:
    """Settings of `reward=temporal_alignment`.

    Attributes:
        centre: Whether each sentence's mean over the episode is taken off.
        views: How the cosines of several cameras become one.
    """

    centre: bool = False
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Words, encoder: Encoder) -> TemporalAlignmentReward:
        """Make the reward model."""
        return TemporalAlignmentReward(words.goal, encoder, self.centre, self.views)
