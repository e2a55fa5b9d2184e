"""Alignments against all there are, and what they say of order."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.toys import BrightnessEncoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.temporal_alignment import (
    UNSEEN,
    TemporalAlignmentConfig,
    TemporalAlignmentReward,
    aligned_means,
)
from vlmrl.rows import Rows


@pytest.mark.parametrize(("n", "k"), [(6, 3), (5, 1), (4, 4), (7, 2)])
def test_no_monotone_alignment_is_better(n: int, k: int) -> None:
    similarity = np.random.default_rng(n).normal(size=(n, k))
    found = aligned_means(similarity)
    for last in range(n):
        every = [
            np.mean([similarity[i, np.searchsorted(borders, i, side="right")] for i in range(last + 1)])
            for borders in combinations(range(1, last + 1), k - 1)
        ]
        assert found[last] == pytest.approx(max(every) if every else UNSEEN)


def film(*shades: float) -> Rows:
    frames = np.stack([np.full((8, 8, 3), round(255 * shade), dtype=np.uint8) for shade in shades])
    return Rows(np.arange(len(shades)), {"embeddings": {"front": BrightnessEncoder().encode_images(frames)}})


def test_the_order_of_sentences_is_the_order_of_the_film() -> None:
    up = TemporalAlignmentReward(["dark", "bright"], BrightnessEncoder())
    down = TemporalAlignmentReward(["bright", "dark"], BrightnessEncoder())
    rising = film(0, 0, 1, 1)
    np.testing.assert_allclose(up(rising), [UNSEEN, 0.5, 1, 1], atol=1e-6)
    assert down(rising)[-1] == pytest.approx(0.25)  # of four frames one fits
    assert up(rising).dtype == np.float32
    # What was seen counts on: a film that is dark again is no longer all that was asked for.
    np.testing.assert_allclose(up(film(0, 1, 0)), [UNSEEN, 1, 2 / 3], atol=1e-6)


def test_centred_a_sentence_that_everything_looks_like_takes_no_more_than_its_share() -> None:
    """Half the film is bright, half is dark, and "half" fits both."""
    shades = film(0, 0, 0, 1, 1, 1)
    cosines = np.array([[0.9, 0.85], [0.9, 0.85], [0.9, 0.85], [0.1, 0.8], [0.1, 0.8], [0.1, 0.8]])
    model = TemporalAlignmentReward(["dark", "bright"], BrightnessEncoder(), centre=True)
    assert model.awaits_end
    assert model(shades)[-1] == pytest.approx(0.5)  # each cosine is 1 or 0, less one half
    assert aligned_means(cosines - cosines.mean(axis=0))[-1] == pytest.approx(np.mean([0.4] * 3 + [-0.025] * 3))


def test_settings() -> None:
    model = TemporalAlignmentConfig(views="min").build(Words(("dark", "bright")), BrightnessEncoder())
    assert model.context == "episode" and model.views == "min" and not getattr(model, "awaits_end", False)
    with pytest.raises(UserError, match="empty"):
        TemporalAlignmentReward([], BrightnessEncoder())
