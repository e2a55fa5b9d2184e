from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.reward_models.preference_loss import answer_loss, calibration, without_wrong_answers


def loss(gap: float, target: float, ties: str, nu: float = 1.0, smoothing: float = 0.0) -> float:
    found = answer_loss(
        torch.tensor([gap], dtype=torch.float64),
        torch.tensor([target], dtype=torch.float64),
        torch.tensor(math.log(nu), dtype=torch.float64),
        ties,  # type: ignore[arg-type]
        smoothing,
    )
    return float(found[0])


@given(left=st.floats(-3, 3), right=st.floats(-3, 3), nu=st.floats(0.05, 5))
def test_davidson_word_for_word(left: float, right: float, nu: float) -> None:
    """Worths pi = exp(return); P(tie) is proportional to nu times their geometric mean."""
    worth = {1.0: math.exp(left), 0.0: math.exp(right), 0.5: nu * math.sqrt(math.exp(left) * math.exp(right))}
    for target, weight in worth.items():
        assert math.isclose(
            loss(left - right, target, "davidson", nu), -math.log(weight / sum(worth.values())), abs_tol=1e-9
        )


@given(gap=st.floats(-5, 5))
def test_soft_ties_are_half_of_each(gap: float) -> None:
    assert math.isclose(loss(gap, 1.0, "soft"), math.log1p(math.exp(-gap)), abs_tol=1e-9)
    assert math.isclose(loss(gap, 0.5, "soft"), (loss(gap, 1.0, "soft") + loss(gap, 0.0, "soft")) / 2, abs_tol=1e-9)
    # Without ties Davidson's model is Bradley-Terry.
    assert math.isclose(loss(gap, 1.0, "davidson", nu=1e-9), loss(gap, 1.0, "soft"), abs_tol=1e-6)


@pytest.mark.parametrize("ties", ["soft", "davidson"])
def test_smoothing_keeps_a_model_from_being_too_sure(ties: str) -> None:
    gaps = np.linspace(-12, 12, 481)
    best = gaps[np.argmin([loss(gap, 1.0, ties, smoothing=0.2) for gap in gaps])]
    assert 0 < best < 12
    assert loss(12, 1.0, ties) < loss(best, 1.0, ties)


def test_calibration_of_known_figures() -> None:
    probabilities = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.5])
    answers = np.array([True, True, True, False, False, True])
    figures = calibration(probabilities, answers)
    assert math.isclose(figures["accuracy"], 4.5 / 6)
    assert math.isclose(figures["brier"], (4 * 0.01 + 0.81 + 0.25) / 6)
    # Five are 90 % sure and four of them right; one is 50 % sure, and half right.
    assert math.isclose(figures["ece"], 0.1 * 5 / 6, abs_tol=1e-9)


def test_rime_leaves_out_the_doubtful_and_turns_round_the_absurd() -> None:
    losses = np.array([0.1, 2.0, 8.0, 8.0])
    targets = np.array([1.0, 0.0, 1.0, 0.5])
    keep, turned = without_wrong_answers(losses, targets, trusted_loss=0.5, spread=0.0, patience=3.0)
    # -ln 0.5 + 0.5 * 0.5 = 0.94; -ln 1e-3 = 6.9. A tie has no opposite.
    assert keep.tolist() == [True, False, True, False]
    assert turned.tolist() == [1.0, 0.0, 0.0, 0.5]
    more, _ = without_wrong_answers(losses, targets, trusted_loss=0.5, spread=0.7, patience=3.0)
    assert more.tolist() == [True, True, True, False]  # 1.47 more is forgiven
