"""Success rates that a judge told, set right by a few labels that people gave: prediction-powered inference.

Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023 (Science 382, 669); with the weight of Angelopoulos, Duchi and
Zrnic 2023 (PPI++, arXiv 2311.01453).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.stats.intervals import Interval, student_quantile

LEAST_LABELS = 30  # labels below which intervals of this kind do not cover what they say


@dataclass(frozen=True)
class CorrectedRate:
    """A success rate from judgements and labels.

    Attributes:
        rate: Estimate, 0 to 1.
        interval: Its interval.
        weight: How far the judge is listened to, 0 (labels alone) to 1.
        judged: What the judge alone would say.
        bias: Mean of judgement minus label where both are known.
        labels: Number of labels.
        episodes: Number of episodes, labelled or not.
    """

    rate: float
    interval: Interval
    weight: float
    judged: float
    bias: float
    labels: int
    episodes: int

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "mean": self.rate,
            "interval": list(self.interval),
            "judge_weight": self.weight,
            "judge_alone": self.judged,
            "judge_bias": self.bias,
            "labels": self.labels,
            "episodes": self.episodes,
        }


def corrected_rate(
    labels: np.ndarray, judged: np.ndarray, unlabelled: np.ndarray, confidence: float = 0.95
) -> CorrectedRate:
    """Estimate a success rate from many judgements and few labels.

    rate = w mean(unlabelled) + mean(labels - w judged), with w = cov(labels, judged) / ((1 + n/N) var(judged)) over all
    judgements, cut to 0 to 1 (PPI++, equation 6 with the rectifier of a mean). Labelled episodes must be a random
    choice of all. The variances, like those of small counts in general, are taken after adding one episode in four
    quarters, one for each combination of label and judgement (Agresti and Min 2005, Statistics in Medicine 24, 729,
    add half an episode to each): a judge who was right 30 times is not right always. The interval is Student's with
    n - 1 degrees of freedom.

    Args:
        labels: (n,) bool, what people said of the labelled episodes.
        judged: (n,) float, 0 to 1, what the judge said of the same.
        unlabelled: (N,) float, 0 to 1, what it said of the others.
        confidence: Coverage, between 0 and 1.

    Raises:
        UserError: There are fewer than `LEAST_LABELS` labels, or a judgement is outside 0 to 1.
    """
    y, f, rest = (np.asarray(values, dtype=np.float64) for values in (labels, judged, unlabelled))
    n = len(y)
    if n < LEAST_LABELS:
        raise UserError(
            f"A judge is set right by at least {LEAST_LABELS} labels of people, and there are {n}. Label "
            f"{LEAST_LABELS - n} more episodes, drawn at random, or leave the judgements out."
        )
    if len(rest) == 0:
        raise ValueError("There are no unlabelled judgements: the labels say it all.")
    everything = np.concatenate([f, rest])
    if not ((everything >= 0) & (everything <= 1)).all():
        raise UserError("A judgement is outside 0 to 1; it must be 0, 1 or a probability of success.")
    more_y, more_f = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    counts = np.r_[np.ones(n), np.full(4, 0.5)]
    smooth_y, smooth_f = np.r_[y, more_y], np.r_[f, more_f]
    spread = float(np.var(np.r_[everything, 0.0, 1.0], ddof=1))
    covariance = float(np.cov(smooth_y, smooth_f, aweights=counts)[0, 1])
    weight = min(max(covariance / ((1 + n / len(rest)) * spread), 0.0), 1.0)
    rate = weight * rest.mean() + float((y - weight * f).mean())
    residual = float(np.cov(smooth_y - weight * smooth_f, aweights=counts))
    error = math.sqrt(weight**2 * spread / len(rest) + residual / n)
    half = student_quantile(confidence, n - 1) * error
    return CorrectedRate(
        rate=min(max(rate, 0.0), 1.0),
        interval=(max(0.0, rate - half), min(1.0, rate + half)),
        weight=weight,
        judged=float(everything.mean()),
        bias=float((f - y).mean()),
        labels=n,
        episodes=n + len(rest),
    )
