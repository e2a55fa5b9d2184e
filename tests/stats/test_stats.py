from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.stats import (
    auroc,
    auroc_interval,
    bootstrap_mean,
    difference_interval,
    epic_distance,
    group_weights,
    pearson,
    percentile_interval,
    student_mean,
    student_quantile,
    wilson,
)


def test_wilson_has_the_published_figures() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(trials=st.integers(1, 10_000), data=st.data(), confidence=st.floats(0.5, 0.999))
def test_wilson_holds_the_rate_within_zero_and_one(trials: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials, confidence)
    assert 0 <= low <= successes / trials + 1e-12 and successes / trials - 1e-12 <= high <= 1
    assert wilson(trials - successes, trials, confidence) == pytest.approx((1 - high, 1 - low))


def test_wilson_narrows_with_trials() -> None:
    widths = [np.diff(wilson(n // 2, n))[0] for n in (2, 20, 200, 2000)]
    assert widths == sorted(widths, reverse=True)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (1, 0)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_mean(rng.exponential(size=60), n_resamples=400, seed=seed)
        covered += low <= 1.0 <= high
    # 95 % intended; percentile intervals of skewed data fall a little short, and 200 draws scatter by 1.5 %.
    assert 0.88 <= covered / 200 <= 0.98


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_bootstrap_stays_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_mean(np.array(values), n_resamples=50)
    slack = 1e-9 * max(1.0, max(map(abs, values)))
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_bootstrap_repeats_itself_by_seed() -> None:
    values = np.arange(20.0)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize("values", [np.array([]), np.zeros((2, 2)), np.float64(1)])
def test_bootstrap_wants_a_vector(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="non-empty vector"):
        bootstrap_mean(values)


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),  # printed tables: Fisher and Yates 1938
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 3, 3.182), (0.95, 4, 2.776), (0.99, 10, 3.169), (0.95, 30, 2.042)],
)
def test_student_quantiles_are_those_of_the_tables(confidence: float, freedom: int, expected: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(expected, abs=5e-4)


def test_student_intervals_cover_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    covered = [low <= 3.0 <= high for low, high in map(student_mean, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # three standard errors
    half = 4.30265 / 3**0.5
    assert student_mean(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        student_mean(np.array([1.0]))


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873), table II, method 10, example (a): 56/70 - 48/80.
    one, other = (56 / 70, wilson(56, 70)), (48 / 80, wilson(48, 80))
    assert difference_interval(one, other) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference_interval(other, one) == pytest.approx((-0.3339, -0.0524), abs=1e-4)


def by_pairs(scores: np.ndarray, positive: np.ndarray) -> float:
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3)), min_size=2, max_size=25))
def test_auroc_counts_pairs_with_ties_as_halves_and_weights_as_copies(given_: list[tuple[int, bool, int]]) -> None:
    scores, positive, copies = (np.array(column) for column in zip(*given_, strict=True))
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="positives and negatives"):
            auroc(scores, positive)
        return
    assert auroc(scores, positive)[0] == pytest.approx(by_pairs(scores, positive))
    expected = by_pairs(scores.repeat(copies), positive.repeat(copies))
    assert auroc(scores, positive, copies[None].astype(float))[0] == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans(), st.integers(1, 3)), min_size=3, max_size=25))
def test_pearson_is_numpys_with_weights_as_copies(given_: list[tuple[float, bool, int]]) -> None:
    scores, labels, copies = (np.array(column) for column in zip(*given_, strict=True))
    if scores.std() < 1e-3 or labels.std() == 0:
        return
    assert pearson(scores, labels)[0] == pytest.approx(np.corrcoef(scores, labels)[0, 1], abs=1e-9)
    many = np.corrcoef(scores.repeat(copies), labels.repeat(copies))[0, 1]
    assert pearson(scores, labels, copies[None].astype(float))[0] == pytest.approx(many, abs=1e-9)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert np.isnan(pearson(np.full(5, 0.3), np.arange(5))).all()
    assert np.isnan(pearson(np.arange(5.0), np.ones(5, dtype=bool), np.ones((3, 5)))).all()


def test_epic_distance_has_the_published_pairs() -> None:
    # VLM-RM's axes: .6, .5, .4, .3 are correlations of .28, .50, .68, .82.
    assert epic_distance(np.array([0.28, 0.5, 0.68, 0.82, 1, -1])) == pytest.approx([0.6, 0.5, 0.4, 0.3, 0, 1])


def test_groups_are_drawn_whole_and_both_labels_are_always_there() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3, 3, 4])
    positive = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    weights = group_weights(groups, positive, 200)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 5] == weights[:, 6]).all()
    assert (weights[:, positive].sum(axis=1) > 0).all() and (weights[:, ~positive].sum(axis=1) > 0).all()
    assert len(np.unique(weights[:, 0])) > 1


def test_a_cluster_bootstrap_covers_where_one_of_single_frames_does_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    positive = np.repeat(np.arange(40) < 20, 10)
    area = NormalDist().cdf(1 / np.sqrt(2 * 1.1))  # of two normals a mean of 1 apart, each of variance 1.1
    covered = {"groups": 0, "frames": 0}
    for seed in range(150):
        scores = positive + rng.standard_normal(40)[groups] + np.sqrt(0.1) * rng.standard_normal(400)
        for name, by in (("groups", groups), ("frames", np.arange(400))):
            low, high = percentile_interval(auroc(scores, positive, group_weights(by, positive, 300, seed)))
            covered[name] += low <= area <= high
    assert covered["groups"] / 150 > 0.87 > 0.75 > covered["frames"] / 150


def test_the_score_interval_of_an_auroc_covers_and_has_width_at_the_ends() -> None:
    low, high = auroc_interval(1.0, 20, 20)
    assert high == 1 and 0.8 < low < 0.95
    assert auroc_interval(0.0, 20, 30) == pytest.approx((0, 1 - auroc_interval(1.0, 20, 30)[0]), abs=1e-6)
    rng = np.random.default_rng(1)
    area, covered = NormalDist().cdf(2 / np.sqrt(2)), 0
    positive = np.arange(60) < 25
    for _ in range(300):
        low, high = auroc_interval(by_pairs(2 * positive + rng.standard_normal(60), positive), 25, 35)
        covered += low <= area <= high
    assert covered / 300 > 0.9


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_the_score_interval_holds_the_area(area: float, positives: int, negatives: int) -> None:
    low, high = auroc_interval(area, positives, negatives)
    assert 0 <= low <= area <= high <= 1
