"""Comparing two policies while episodes come in, and stopping whenever one likes.

A test at a fixed number of episodes errs more often than it says if one looks again and again and stops at the first
significant result. What is here holds at all times at once.
"""

from __future__ import annotations

import math

import numpy as np

from vlmrl.stats.comparison import POWER, Verdict, judge

GRID = 401  # candidate means, an odd number: one of them is the middle
TRUNCATION = 0.5  # share of what one may bet without going broke; Waudby-Smith and Ramdas's choice
FUTURES = 50  # continuations that the episodes still needed are read from
FURTHEST = 3_000  # pairs that a continuation goes on for


class BettingSequences:
    """Confidence sequences for means of bounded values: each holds its mean at all times at once.

    Waudby-Smith and Ramdas 2024 (Journal of the Royal Statistical Society B 86, 1; arXiv 2010.09686): the hedged
    capital process of theorem 3 with the predictable bets of equations 24 to 26. For every candidate m somebody bets
    against "the mean is m", half of the stake on more and half on less; whoever is ever richer than 1/alpha has refuted
    his m for good.

    Nothing is assumed but the bounds, and that values have the same mean given the past: no distribution, no sample
    size. Several sequences are followed at once, each independent of the others.

    Args:
        confidence: Chance that a mean is never left outside, between 0 and 1.
        low: Least possible value.
        high: Greatest possible value.
        count: Number of sequences k.
    """

    def __init__(self, confidence: float = 0.95, low: float = -1.0, high: float = 1.0, count: int = 1):
        self._alpha = 1 - confidence
        self._low, self._span = low, high - low
        self._means = np.linspace(0, 1, GRID)
        with np.errstate(divide="ignore"):  # at the edges nothing can be lost, so nothing limits the bet
            self._most_up, self._most_down = TRUNCATION / self._means, TRUNCATION / (1 - self._means)
        self._up = np.zeros((count, GRID))  # log capital
        self._down = np.zeros((count, GRID))
        self._alive = np.ones((count, GRID), dtype=bool)
        self._n = 0
        self._sum = np.full(count, 0.5)  # one value in the middle, as in the paper's equations
        self._squares = np.full(count, 0.25)

    def add(self, values: np.ndarray) -> None:
        """Take the next value of each sequence, (k,) float.

        Raises:
            ValueError: One is outside the bounds.
        """
        x = (np.asarray(values, dtype=np.float64) - self._low) / self._span
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"{values} is not within {self._low} to {self._low + self._span}.")
        self._n += 1
        t = self._n
        bet = np.sqrt(2 * math.log(2 / self._alpha) / (self._squares / t * t * math.log(1 + t)))[:, None]
        gain = x[:, None] - self._means
        self._up += np.log1p(np.minimum(bet, self._most_up) * gain)
        self._down += np.log1p(-np.minimum(bet, self._most_down) * gain)
        self._alive &= np.maximum(self._up, self._down) + math.log(0.5) < math.log(1 / self._alpha)
        self._sum += x
        self._squares += (x - self._sum / (t + 1)) ** 2

    def intervals(self) -> np.ndarray:
        """Return the bounds of each mean, (k, 2) float64; wide open before the first value.

        They are those candidates next to the ones that live which have been refuted, so that nothing between two
        candidates is left out. Where all have been refuted, which happens with probability alpha, they are everything.
        """
        alive = self._alive | ~self._alive.any(axis=1, keepdims=True)
        first = np.maximum(alive.argmax(axis=1) - 1, 0)
        last = np.minimum(GRID - alive[:, ::-1].argmax(axis=1), GRID - 1)
        return self._low + self._span * np.stack([self._means[first], self._means[last]], axis=1)

    def repeated(self, count: int) -> BettingSequences:
        """Return `count` sequences that all begin with what this one, the only one, has seen."""
        copy = BettingSequences(1 - self._alpha, self._low, self._low + self._span, count)
        for name in ("_up", "_down", "_alive", "_sum", "_squares"):
            setattr(copy, name, np.repeat(getattr(self, name), count, axis=0))
        copy._n = self._n
        return copy


def compare_sequentially(
    first: np.ndarray, second: np.ndarray, margin: float, confidence: float = 0.95, seed: int = 0
) -> tuple[Verdict, int | None]:
    """Compare two policies, pair of episodes by pair of episodes, so that one may stop at any of them.

    Entry i of both is one pair, from the same start or not: pairs are what is bet on, so either is right, and equal
    starts make it faster. The chance that the verdict is ever BETTER or WORSE where the means are equal is at most
    1 - `confidence`, however often one looks.

    Args:
        first: (n,) float, 0 to 1: success, or progress; n >= 1.
        second: (n,) float, of the other.
        margin: Differences smaller than this are of no consequence.
        confidence: Of the sequence.
        seed: Seed of the continuations that say how many episodes are still needed.

    Returns:
        The verdict as soon as there is one, with the interval at the end; and the number of pairs after which it was
        settled, None if it was not.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    sequence = BettingSequences(confidence)
    settled: int | None = None
    for n, difference in enumerate(differences, start=1):
        sequence.add(difference[None])
        if settled is None:
            word = judge(_pair(sequence, 0), margin)
            settled = n if word != "UNDERPOWERED" else None
    needed = _needed(sequence, differences, margin, seed) if settled is None else None
    verdict = Verdict(word, float(differences.mean()), _pair(sequence, 0), None, "betting confidence sequence", needed)
    return verdict, settled


def _pair(sequence: BettingSequences, i: int) -> tuple[float, float]:
    low, high = sequence.intervals()[i]
    return float(low), float(high)


def _needed(sequence: BettingSequences, differences: np.ndarray, margin: float, seed: int) -> int | None:
    """Return pairs, in all, after which a share `POWER` of resampled continuations is settled; None if none so far."""
    rng = np.random.default_rng(seed)
    futures = sequence.repeated(FUTURES)
    settled = np.zeros(FUTURES, dtype=bool)
    for n in range(len(differences) + 1, len(differences) + FURTHEST + 1):
        futures.add(rng.choice(differences, FUTURES))
        if n % 5 == 0:
            low, high = futures.intervals().T
            settled |= (low > 0) | (high < 0) | ((low > -margin) & (high < margin))
            if settled.mean() >= POWER:
                return n
    return None
