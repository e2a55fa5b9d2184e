"""Which of several goals a text achieves, told by embeddings, each goal once an episode (ELLM).

Source: Du et al.: "Guiding Pretraining in Reinforcement Learning with Large Language Models", ICML 2023,
arXiv 2302.06692, section 3.2: the cosine of caption and goal, where it is above a threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.rows import RowKey


class Goals:
    """See this module.

    Args:
        goals: Sentences.
        encoder: Whose text tower embeds goals and texts.
        threshold: Cosine above which a text achieves a goal.
    """

    def __init__(self, goals: Sequence[str], encoder: Encoder, threshold: float):
        self._goals = encoder.encode_texts(list(goals))
        self._encoder, self._threshold = encoder, threshold
        self._achieved: dict[int, tuple[int, Counter[int]]] = {}  # of each environment: its episode, goals in it
        self._found: dict[str, tuple[float, int]] = {}  # of a text: see `_likeness`

    def cosines(self, texts: Sequence[str]) -> np.ndarray:
        """Return the cosine of n texts with the goal that each is most like, (n,) float64; 0 for saying nothing."""
        return np.array([self._likeness(text)[0] if text else 0.0 for text in texts])

    def times_achieved(self, key: RowKey, text: str) -> int | None:
        """Count the goal that a text achieves.

        Returns:
            How often it was achieved in this episode so far, this time included; None where the text achieves none.
        """
        cosine, goal = self._likeness(text)
        episode, achieved = self._achieved.get(key.env, (-1, Counter()))
        if episode != key.episode:
            episode, achieved = self._achieved[key.env] = key.episode, Counter()
        if cosine <= self._threshold:
            return None
        achieved[goal] += 1
        return achieved[goal]

    def _likeness(self, text: str) -> tuple[float, int]:
        """Return the greatest cosine of a text with a goal, and which goal that is."""
        if text not in self._found:
            cosines = self._goals @ self._encoder.encode_texts([text])[0] if text else np.zeros(len(self._goals))
            self._found[text] = float(cosines.max()), int(cosines.argmax())
        return self._found[text]
