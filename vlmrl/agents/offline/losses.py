"""The losses of implicit Q-learning (Kostrikov, Nair, Levine 2021, arXiv 2110.06169) and of behaviour cloning.

All arguments are float32 tensors of the n transitions of a batch; each loss is a scalar, the mean over the batch.
"""

from __future__ import annotations

import torch


def expectile_loss(difference: torch.Tensor, expectile: float) -> torch.Tensor:
    """Asymmetric squared error, whose minimum is an expectile: L2^tau(u) = |tau - 1(u < 0)| u^2, eq. 4 and 5.

    Args:
        difference: (n,), target minus estimate; for IQL Q(s, a) - V(s).
        expectile: tau, 0 to 1; 0.5 gives half the mean squared error.
    """
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference.square()).mean()


def advantage_weights(advantage: torch.Tensor, beta: float, clip: float) -> torch.Tensor:
    """Weights of the actions in the data, min(exp(beta (Q(s, a) - V(s))), clip): eq. 7, cut off as the authors do.

    Args:
        advantage: (n,).
        beta: Inverse temperature; 0 clones all actions alike.
        clip: Greatest weight.
    """
    return torch.exp(beta * advantage).clamp(max=clip)


def weighted_log_likelihood_loss(weights: torch.Tensor, log_prob: torch.Tensor) -> torch.Tensor:
    """Advantage-weighted regression (eq. 7), a minimum where the weighted likelihood of the data is greatest.

    Args:
        weights: (n,); all 1 is behaviour cloning.
        log_prob: (n,) log-likelihood of the actions in the data.
    """
    return -(weights * log_prob).mean()


def twin_q_loss(q_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error of both critics, added up (eq. 6; two of them as in the authors' code).

    Args:
        q_values: (2, n).
        target: (n,), r + gamma (1 - terminated) V(s').
    """
    return (q_values - target).square().sum(dim=0).mean()
