"""Intervals of shares, means and differences."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]  # lower and upper bound


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson 1927, eq. 4).

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of trials; 0 gives (0, 1).
        confidence: Coverage, between 0 and 1.

    Returns:
        Lower and upper bound, between 0 and 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"Expected 0 <= successes <= trials, got {successes} of {trials}.")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a success rate (Clopper and Pearson 1934): it never covers less often than it says.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of trials; 0 gives (0, 1).
        confidence: Coverage, between 0 and 1.

    Returns:
        Lower and upper bound, between 0 and 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"Expected 0 <= successes <= trials, got {successes} of {trials}.")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def bootstrap_mean(
    values: np.ndarray, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: (n,) float; n = 1 gives that value twice.
        confidence: Coverage, between 0 and 1.
        n_resamples: Number of resamples.
        seed: Seed of the resampling; the same seed gives the same interval.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"Expected a non-empty vector, got shape {values.shape}.")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(n_resamples, len(values)))].mean(axis=1)
    return percentile_interval(means, confidence)


def student_mean(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean (Student 1908), for a few independent values such as those of seeds.

    Args:
        values: (n,) float, n >= 2.
        confidence: Coverage, between 0 and 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"Expected at least two values, got shape {values.shape}.")
    half = student_quantile(confidence, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def student_quantile(confidence: float, freedom: int) -> float:
    """Return the t that Student's distribution stays within, on both sides, with this probability.

    Args:
        confidence: Probability, 0 to 1, 1 excluded.
        freedom: Degrees of freedom, at least 1.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def difference_interval(
    first: tuple[float, tuple[float, float]], second: tuple[float, tuple[float, float]]
) -> tuple[float, float]:
    """Interval of the difference of two figures from the interval of each.

    Zou and Donner 2008 (Statistics in Medicine 27, 1693), eq. 2, for independent estimates; Newcombe 1998 has it for
    two shares. Figures that rise and fall together, such as those from the same starts, differ less than it says.

    Args:
        first: (estimate, (lower, upper)).
        second: What is taken away from it, in the same form.
    """
    (one, (one_low, one_high)), (other, (other_low, other_high)) = first, second
    low = one - other - math.hypot(one - one_low, other_high - other)
    return low, one - other + math.hypot(one_high - one, other - other_low)


def percentile_interval(resampled: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a figure from its resamples, (n_resamples,) float (Efron 1979)."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    Agarwal et al. 2021 (Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv 2108.13264), with
    the rounding of `scipy.stats.trim_mean(values, 0.25)`.

    Args:
        values: (n,) float, n >= 1.
    """
    return float(_middle_means(np.asarray(values, dtype=np.float64)[None])[0])


def interquartile_mean_interval(
    values: np.ndarray,
    strata: np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of an interquartile mean from a stratified bootstrap (Agarwal et al. 2021, section 4.3).

    Args:
        values: (n,) float, n >= 1.
        strata: (n,) labels, such as tasks; each resample holds as many values of each as were observed. None is one.
        confidence: Coverage, between 0 and 1.
        n_resamples: Number of resamples.
        seed: Seed of the resampling; the same seed gives the same interval, whatever else draws random numbers.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"Expected a non-empty vector, got shape {values.shape}.")
    strata = np.zeros(len(values)) if strata is None else np.asarray(strata)
    rng = np.random.default_rng(seed)
    drawn = [
        own[rng.integers(len(own), size=(n_resamples, len(own)))]
        for own in (values[strata == stratum] for stratum in np.unique(strata))
    ]
    return percentile_interval(_middle_means(np.concatenate(drawn, axis=1)), confidence)


def _middle_means(values: np.ndarray) -> np.ndarray:
    """Return interquartile means of the rows of (r, n) float64, (r,)."""
    cut = values.shape[1] // 4
    return np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
