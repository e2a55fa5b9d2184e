"""From differences of rewards to probabilities of answers: Bradley-Terry, with ties, and against wrong answers.

A gap is log odds: return of the left clip minus that of the right one, times the rationality of whoever answers.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

Ties = Literal["soft", "davidson", "drop"]

RIME_ALPHA = 0.5  # of RIME's lower threshold
RIME_FLIP = -math.log(1e-3)  # loss from which an answer is taken for the opposite one
CALIBRATION_BINS = 10


def answer_loss(
    gaps: torch.Tensor, targets: torch.Tensor, log_ties: torch.Tensor, ties: Ties, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the negative log likelihood of answers.

    "soft" (and "drop", which is given no tie) is the cross-entropy of Bradley-Terry, P(left) = sigmoid(gap), with 1/2
    as the target of a tie. "davidson" gives ties a probability of their own: left, right and tie have the weights
    exp(gap / 2), exp(-gap / 2) and nu (Davidson: "On Extending the Bradley-Terry Model to Accommodate Ties in Paired
    Comparison Experiments", JASA 65, 1970).

    Args:
        gaps: (n,) float.
        targets: (n,) float, 1 where left is better, 0 where right is, 0.5 for a tie.
        log_ties: () float, logarithm of nu.
        ties: What is made of ties.
        smoothing: Share of the target that is spread evenly over all answers, 0 to 1.

    Returns:
        (n,) float.
    """
    if ties != "davidson":
        return functional.binary_cross_entropy_with_logits(
            gaps, targets * (1 - smoothing) + smoothing / 2, reduction="none"
        )
    logits = torch.stack([gaps / 2, log_ties.expand_as(gaps), -gaps / 2], dim=1)
    wanted = torch.stack([targets == 1, targets == 0.5, targets == 0], dim=1).to(gaps.dtype)
    wanted = wanted * (1 - smoothing) + smoothing / 3
    return -(wanted * functional.log_softmax(logits, dim=1)).sum(dim=1)


def without_wrong_answers(
    losses: np.ndarray, targets: np.ndarray, trusted_loss: float, spread: float, patience: float
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out answers that look wrong to the model as it was, and turn round those that look very wrong (RIME).

    Kept is what loses less than -ln(rho) + alpha * rho + min(patience * spread^2, 3), with rho the greatest loss that
    was trusted last time; what loses more than -ln(1e-3) is taken for the opposite answer (Cheng et al.: "RIME: Robust
    Preference-based Reinforcement Learning with Noisy Preferences", ICML 2024, arXiv 2402.17257; square and cap are
    those of its published code).

    Args:
        losses: (n,) cross-entropy of each answer under the model before this update.
        targets: (n,) 1, 0 or 0.5.
        trusted_loss: rho, more than 0.
        spread: Standard deviation of the losses that were trusted last time.
        patience: How much of the spread is forgiven.

    Returns:
        (n,) bool, which answers to learn from; (n,) what they say.
    """
    rho = min(max(trusted_loss, 1e-6), 1.0)
    keep = losses < -math.log(rho) + RIME_ALPHA * rho + min(patience * spread**2, 3.0)
    flip = (losses > RIME_FLIP) & (targets != 0.5)
    return keep | flip, np.where(flip, 1 - targets, targets)


def calibration(probabilities: np.ndarray, left_is_better: np.ndarray) -> dict[str, float]:
    """Say how good probabilities are.

    Args:
        probabilities: (n,) of the left clip being better, n >= 1.
        left_is_better: (n,) bool, what was answered.

    Returns:
        `accuracy` (a probability of exactly 1/2 is half right), `brier` (mean squared error; 1/2 everywhere gets 0.25)
        and `ece`, the expected calibration error: the distance of confidence and accuracy in ten bins of
        confidence, 0.5 to 1, weighted by their size (Naeini et al.: "Obtaining Well Calibrated Probabilities Using
        Bayesian Binning", AAAI 2015).
    """
    right = np.where(probabilities == 0.5, 0.5, (probabilities > 0.5) == left_is_better)
    confidence = np.maximum(probabilities, 1 - probabilities)
    bins = np.minimum(((confidence - 0.5) * 2 * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    ece = sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    return {
        "accuracy": float(right.mean()),
        "brier": float(((probabilities - left_is_better) ** 2).mean()),
        "ece": float(ece),
    }
