from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reward_models.test_clip import unit
from tests.toys import BrightnessEncoder
from vlmrl.errors import UserError
from vlmrl.reward_models.clip_contrastive import ClipContrastiveReward, goal_probability
from vlmrl.rows import Rows


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 5), temperature=st.floats(0.01, 10))
def test_parity_with_torchs_softmax(seed: int, k: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    images, goal, negatives = unit(rng, 6, 8), unit(rng, 8), unit(rng, k, 8)
    logits = torch.from_numpy(images @ np.concatenate([goal[None], negatives]).T / temperature)
    expected = torch.softmax(logits, dim=1)[:, 0].numpy()
    np.testing.assert_allclose(goal_probability(images, goal, negatives, temperature), expected, atol=1e-9)


def views(encoder: BrightnessEncoder) -> Rows:
    return Rows(np.arange(2), {"embeddings": {"front": encoder.encode_texts(["dark", "bright"])}})


def test_threshold_and_probability() -> None:
    encoder = BrightnessEncoder()
    rows = views(encoder)
    dark, bright = ClipContrastiveReward("bright", ["dark"], encoder=encoder)(rows)
    assert dark < 0.01 and bright > 0.99
    assert ClipContrastiveReward("bright", ["dark"], threshold=0.5, encoder=encoder)(rows).tolist() == [0.0, 1.0]


@given(st.integers(1, 6))
def test_more_negatives_never_raise_the_reward(n: int) -> None:
    encoder = BrightnessEncoder()
    few = ClipContrastiveReward("bright", ["dark"] * n, encoder=encoder)(views(encoder))
    more = ClipContrastiveReward("bright", ["dark"] * (n + 1), encoder=encoder)(views(encoder))
    assert (more <= few).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": ()}, "needs negatives"),
        ({"negatives": [""]}, "empty sentence"),
        ({"negatives": ["dark"], "temperature": 0.0}, "temperature is 0.0"),
        ({"negatives": ["dark"], "threshold": 2.0}, "threshold is 2.0"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClipContrastiveReward("bright", **arguments, encoder=BrightnessEncoder())
