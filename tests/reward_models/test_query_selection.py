from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmrl.reward_models.query_selection import choose_pairs


def keys(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(min(pair)), int(max(pair))) for pair in pairs}


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    clips=st.integers(2, 12),
    sampler=st.sampled_from(["uniform", "disagreement", "entropy", "kcenter"]),
    floor=st.floats(0, 1),
    seed=st.integers(0, 1000),
    known=st.booleans(),
)
def test_pairs_are_different_new_and_as_many_as_there_are(
    n: int, clips: int, sampler: str, floor: float, seed: int, known: bool
) -> None:
    rng = np.random.default_rng(seed)
    features, returns = rng.normal(size=(clips, 3)), rng.normal(size=(4, clips))
    asked = {(0, 1)}
    pairs = choose_pairs(
        n,
        returns if known else None,
        features,
        asked,
        np.random.default_rng(seed),
        sampler,  # type: ignore[arg-type]
        gap_floor=floor,
    )
    assert len(keys(pairs)) == len(pairs) <= n
    assert not keys(pairs) & asked and (pairs[:, 0] != pairs[:, 1]).all()
    if clips * (clips - 1) // 2 <= 20 * n:  # all of them could be listed
        assert len(pairs) == min(n, clips * (clips - 1) // 2 - 1)


def test_the_same_picture_twice_is_never_asked_about() -> None:
    features = np.zeros((10, 4))
    features[9] = 1
    pairs = choose_pairs(100, None, features, set(), np.random.default_rng(0))
    assert keys(pairs) == {(i, 9) for i in range(9)}


def test_either_clip_may_be_on_the_left() -> None:
    pairs = choose_pairs(200, None, np.arange(40.0)[:, None], set(), np.random.default_rng(0))
    assert 60 < (pairs[:, 0] < pairs[:, 1]).sum() < 140


def test_the_gap_floor_leaves_out_the_closest() -> None:
    features = np.arange(40.0)[:, None]
    returns = np.arange(40.0)[None] / 10
    for model in (returns, None):  # by predicted returns or, before there is a model, by features
        gaps = {}
        for floor in (0.0, 0.5):
            pairs = choose_pairs(30, model, features, set(), np.random.default_rng(1), gap_floor=floor)
            gaps[floor] = np.abs(pairs[:, 0] - pairs[:, 1])
        assert gaps[0.5].min() > np.median(gaps[0.0]) * 0.8 > gaps[0.0].min()


def test_disagreement_takes_the_pair_that_members_disagree_on_and_entropy_the_closest() -> None:
    # Clip 0 is by far the best for half of the members and the worst for the others; 1 and 2 are equal for all.
    returns = np.array([[5.0, 0.0, 0.0, 3.0], [-5.0, 0.0, 0.0, 3.0]])
    features = np.arange(4.0)[:, None]
    rng = np.random.default_rng
    (pair,) = keys(choose_pairs(1, returns, features, set(), rng(0), "disagreement"))
    assert 0 in pair
    asked = {(0, 1), (0, 2), (0, 3)}
    (pair,) = keys(choose_pairs(1, returns, features, asked, rng(0), "entropy"))
    assert pair == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_kcenter_covers_what_uniform_leaves_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = np.concatenate([rng.normal(0, 0.01, size=(95, 2)), rng.normal(10, 0.01, size=(5, 2))])

    def rare(sampler: str) -> int:
        pairs = choose_pairs(4, None, features, set(), np.random.default_rng(seed), sampler, candidates=50)  # type: ignore[arg-type]
        return int((pairs >= 95).any(axis=1).sum())

    assert rare("kcenter") >= 2 > rare("uniform") - 1
