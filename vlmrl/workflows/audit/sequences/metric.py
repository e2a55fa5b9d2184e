"""Macro-F1 of telling which caption is a film's own, and what guessing comes to.

After ViSTa (arXiv 2411.13211): softmax over the captions of a set, film by film; each caption's column brought to mean
0 and deviation 1 over the films of the set, so that a caption that everything looks like has no advantage; the greatest
is taken. That looks at all films of a set at once (it is transductive); the plain argmax beside it looks at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from vlmrl.stats import bootstrap_mean
from vlmrl.workflows.audit.scores import Figure

TIE = 1e-5  # scores nearer to each other than this are equal: sums in another order differ in their last digits


def choices(scores: np.ndarray, transductive: bool) -> list[np.ndarray]:
    """Return the captions that fit each film best, several where they tie.

    Args:
        scores: (films, captions) float.
        transductive: Whether captions are standardised over the films first.

    Returns:
        For each film the numbers of captions, at least one.
    """
    values = np.round(np.asarray(scores, dtype=np.float64) / TIE) * TIE
    if transductive:
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        spread = shares.std(axis=0)
        values = np.where(spread > TIE / 10, (shares - shares.mean(axis=0)) / np.maximum(spread, 1e-12), 0.0)
    best = np.isclose(values, values.max(axis=1, keepdims=True), rtol=0, atol=TIE / 10)
    return [np.flatnonzero(row) for row in best]


def macro_f1(predicted: np.ndarray, labels: int) -> float:
    """Return the mean over captions of F1, where film i is that of caption i; a caption never chosen has 0."""
    true = np.arange(labels)
    hits = predicted == true
    chosen = np.bincount(predicted, minlength=labels)
    return float(np.mean(2 * hits / (chosen + 1)))  # precision hit / chosen, recall hit / 1


def expected_f1(choices: Sequence[np.ndarray]) -> float:
    """Return the mean macro-F1 of a set over all ways in which ties can fall out; see `choices`."""
    return float(np.mean([macro_f1(np.array(way), len(choices)) for way in product(*choices)]))


def chance_f1(labels: int) -> float:
    """Return the mean macro-F1 of guesses in a set with so many films and captions."""
    return expected_f1([np.arange(labels)] * labels)


@dataclass(frozen=True)
class Standing:
    """How a reward does in some sets.

    Attributes:
        sets: Their number.
        f1: Mean macro-F1 with standardised captions, over the sets.
        plain: The same with the plain argmax.
        chance: Mean macro-F1 of guesses in these sets.
    """

    sets: int
    f1: Figure
    plain: Figure
    chance: float

    @property
    def above(self) -> bool:
        """Whether it surely does better than guessing."""
        return self.f1.low > self.chance + 1e-9  # where all ties, both are the same mean

    def plain_values(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "sets": self.sets,
            "macro_f1": self.f1.plain(),
            "macro_f1_plain_argmax": self.plain.plain(),
            "chance": self.chance,
            "above_chance": self.above,
        }


def standing(scores: list[np.ndarray], seed: int) -> Standing:
    """Measure scores of several sets, (n, n) each, with a bootstrap over sets."""
    figures: list[Figure] = []
    for transductive in (True, False):
        values = np.array([expected_f1(choices(own, transductive)) for own in scores])
        figures.append(Figure(float(values.mean()), *bootstrap_mean(values, seed=seed)))
    chance = float(np.mean([chance_f1(len(own)) for own in scores]))
    return Standing(len(scores), figures[0], figures[1], chance)
