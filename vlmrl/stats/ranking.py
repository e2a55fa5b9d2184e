"""How well scores tell positives from negatives, and how well they go with other numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np


def group_weights(groups: np.ndarray, positive: np.ndarray, n_resamples: int = 1_000, seed: int = 0) -> np.ndarray:
    """Draw bootstrap weights of observations that come in groups, such as frames of one episode.

    Whole groups are drawn with replacement (cluster bootstrap; Davison and Hinkley 1997, section 3.8): frames of an
    episode resemble each other, and taken one by one they would make intervals too narrow. Groups that hold positives
    only, negatives only, and both are drawn apart, so that every resample has both kinds.

    Args:
        groups: (n,) int, number of each observation's group.
        positive: (n,) bool, labels.
        n_resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        (n_resamples, n) float64, how often each observation was drawn.
    """
    rng = np.random.default_rng(seed)
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    share = np.bincount(inverse, weights=positive) / sizes
    drawn = np.zeros((n_resamples, len(sizes)))
    for stratum in (share == 0, share == 1, (share > 0) & (share < 1)):
        members = np.flatnonzero(stratum)
        if len(members):
            drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), n_resamples)
    return drawn[:, inverse]


def auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Chance that a positive scores above a negative, ties counting half: the area under the ROC curve.

    Hanley and McNeil 1982 (Radiology 143, 29); the Mann-Whitney statistic by another name.

    Args:
        scores: (n,) float.
        positive: (n,) bool, with both kinds.
        weights: (r, n) float, how often each observation counts, see `group_weights`; None counts each once.

    Returns:
        (r,) float64, 0 to 1; without weights r = 1.

    Raises:
        ValueError: One of the kinds is missing.
    """
    positive = np.asarray(positive, dtype=bool)
    if positive.all() or not positive.any():
        raise ValueError("AUROC needs positives and negatives.")
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each block of equal scores
    weights = np.ones((1, len(ordered))) if weights is None else weights
    weights = weights[:, order]
    above = np.add.reduceat(weights * positive[order], starts, axis=1)
    below = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return won / (above.sum(axis=1) * below.sum(axis=1))


def average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve as average precision: precision at each positive, averaged.

    Observations with equal scores come together, so that their order in the list changes nothing (Davis and Goadrich
    2006 say why the curve is not to be joined by straight lines).

    Args:
        scores: (n,) float.
        positive: (n,) bool, with at least one positive.
        weights: (r, n) float, how often each observation counts; None counts each once.

    Returns:
        (r,) float64, 0 to 1; without weights r = 1.

    Raises:
        ValueError: There is no positive.
    """
    positive = np.asarray(positive, dtype=bool)
    if not positive.any():
        raise ValueError("Average precision needs positives.")
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = np.ones((1, len(ordered))) if weights is None else weights
    weights = weights[:, order]
    hits = np.add.reduceat(weights * positive[order], starts, axis=1)
    taken = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
    precision = np.divide(np.cumsum(hits, axis=1), taken, out=np.zeros_like(taken), where=taken > 0)
    return (hits * precision).sum(axis=1) / hits.sum(axis=1)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation (1904), ties having their mean rank; NaN where one of the two does not vary."""
    from scipy.stats import rankdata

    return float(pearson(rankdata(first), rankdata(second))[0])


def kendall_tau_b(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b (1945), which takes ties for ties; NaN where one of the two does not vary."""
    from scipy.stats import kendalltau

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(kendalltau(first, second, variant="b").statistic)


def auroc_interval(area: float, positives: int, negatives: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of an AUROC of independent observations, which stays honest at 0 and 1.

    Newcombe 2006 (Statistics in Medicine 25, 559), method 5: all areas that the observed one is within z standard
    errors of, with Hanley and McNeil's variance at the supposed area.

    Args:
        area: The observed area, 0 to 1.
        positives: Number of independent positives, at least 1.
        negatives: Number of independent negatives, at least 1.
        confidence: Coverage, between 0 and 1.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    mean_size = (positives + negatives) / 2 - 1

    def excess(supposed: float) -> float:
        spread = 1 + mean_size * (1 - supposed) / (2 - supposed) + mean_size * supposed / (1 + supposed)
        return abs(area - supposed) - z * math.sqrt(supposed * (1 - supposed) * spread / (positives * negatives))

    return _edge(excess, area, 0.0), _edge(excess, area, 1.0)


def _edge(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Bisect for where `excess` turns positive on the way from `inside` to `outside`."""
    if excess(outside) <= 0:
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        if excess(middle) <= 0:
            inside = middle
        else:
            outside = middle
    return inside


def pearson(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation; NaN where one of the two does not vary.

    Args:
        scores: (n,) float.
        labels: (n,) float or bool.
        weights: (r, n) float, how often each observation counts; None counts each once.

    Returns:
        (r,) float64, -1 to 1 or NaN; without weights r = 1.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    # Shifted and scaled first: a sum of squares of cosines in a narrow band loses its digits.
    constant = np.ptp(scores) == 0 or np.ptp(labels) == 0
    scores, labels = ((values - values.mean()) / (1.0 if constant else values.std()) for values in (scores, labels))
    weights = np.ones((1, len(scores))) if weights is None else weights
    if constant:
        return np.full(len(weights), np.nan)
    total = weights.sum(axis=1)
    mean_a, mean_b = weights @ scores / total, weights @ labels / total
    covariance = weights @ (scores * labels) / total - mean_a * mean_b
    variance_a, variance_b = (weights @ scores**2 / total - mean_a**2, weights @ labels**2 / total - mean_b**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.sqrt(variance_a * variance_b)
    return np.where(np.isfinite(correlation), np.clip(correlation, -1, 1), np.nan)


def epic_distance(correlation: np.ndarray) -> np.ndarray:
    """EPIC distance of two rewards that depend on the state alone, from their Pearson correlation.

    Gleave et al. 2021 (arXiv 2006.13900): the Pearson distance of canonically shaped rewards. Rocamonde et al. 2023
    (VLM-RM, arXiv 2310.12921) show that shaping changes nothing where rewards depend on the state alone. 0 means equal
    up to scale and shift, 1 opposite.
    """
    return np.sqrt((1 - np.asarray(correlation)) / 2)
