"""Differences, tests and verdicts against published figures; what must hold in the long run by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import trim_mean

from vlmrl.errors import UserError
from vlmrl.stats import clopper_pearson, interquartile_mean, interquartile_mean_interval
from vlmrl.stats.comparison import (
    Pairs,
    barnard,
    compare,
    compare_paired,
    judge,
    mcnemar,
    newcombe,
    newcombe_paired,
)
from vlmrl.stats.judged import LEAST_LABELS, corrected_rate
from vlmrl.stats.sequential import BettingSequences, compare_sequentially


def test_clopper_pearson_has_the_published_figures() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 5.
    for successes, trials, low, high in [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0, 0.1684)]:
        assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert clopper_pearson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="got 3 of 2"):
        clopper_pearson(3, 2)


def test_newcombe_has_the_published_figures() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873), table II, method 10: 56/70 - 48/80 and 9/10 - 3/10.
    assert newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    # and (Statistics in Medicine 17, 2635), table IV, method 10: 36, 12, 2, 0
    assert newcombe_paired(Pairs(36, 12, 2, 0)) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_exact_tests_of_small_counts() -> None:
    assert mcnemar(Pairs(5, 0, 6, 5)) == pytest.approx(2 / 64)  # six heads in a row
    assert mcnemar(Pairs(5, 0, 0, 5)) == 1
    # 2 of 2 against 0 of 2: under equal rates q the chance of the two most extreme tables is 2 q^2 (1-q)^2 <= 1/8.
    assert barnard((2, 2), (0, 2)) == pytest.approx(1 / 8, abs=1e-3)


@pytest.mark.parametrize(
    ("interval", "differs", "word"),
    [
        ((0.01, 0.5), True, "BETTER"),
        ((0.01, 0.5), False, "UNDERPOWERED"),
        ((-0.3, -0.01), True, "WORSE"),
        ((-0.05, 0.09), True, "SAME"),
        ((0.01, 0.05), True, "BETTER"),  # a difference of no consequence is a difference
        ((-0.1, 0.05), True, "UNDERPOWERED"),
        ((0.0, 0.2), True, "UNDERPOWERED"),
    ],
)
def test_what_an_interval_says(interval: tuple[float, float], differs: bool, word: str) -> None:
    assert judge(interval, 0.1, differs) == word


def test_the_episodes_needed_do_settle_it_four_times_of_five() -> None:
    rng = np.random.default_rng(0)
    for one, other, margin in [(0.9, 0.7, 0.05), (0.9, 0.9, 0.2)]:
        verdict = compare((round(one * 20), 20), (round(other * 20), 20), margin)
        assert verdict.word == "UNDERPOWERED" and verdict.needed is not None
        n = verdict.needed
        words = [compare((rng.binomial(n, one), n), (rng.binomial(n, other), n), margin).word for _ in range(40)]
        assert 0.6 < np.mean([word != "UNDERPOWERED" for word in words]) < 0.97


def test_pairs_need_fewer_episodes_than_independent_ones() -> None:
    pairs = Pairs(both=20, first=6, second=1, neither=13)
    paired, apart = compare_paired(pairs, 0.05), compare((26, 40), (21, 40), 0.05)
    assert paired.word == apart.word == "UNDERPOWERED"
    assert paired.needed is not None and apart.needed is not None and paired.needed < apart.needed
    assert compare_paired(Pairs(0, 30, 2, 8), 0.1).word == "BETTER"


def test_looking_after_every_pair_keeps_the_error_rate() -> None:
    """The sequential test at equal rates, looked at 250 times, against the fixed test that is abused so."""
    rng = np.random.default_rng(1)
    replicas = 300
    sequences = BettingSequences(0.9, count=replicas)
    wrong, abused = np.zeros(replicas, dtype=bool), np.zeros(replicas, dtype=bool)
    total = np.zeros(replicas)
    for n in range(1, 251):
        difference = (rng.random(replicas) < 0.7).astype(float) - (rng.random(replicas) < 0.7)
        sequences.add(difference)
        total += difference
        low, high = sequences.intervals().T
        wrong |= (low > 0) | (high < 0)
        abused |= (n >= 10) & (np.abs(total) > 1.645 * np.sqrt(2 * 0.7 * 0.3 * n))
    assert wrong.mean() <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / replicas)
    assert abused.mean() > 0.3  # so the guarantee is not for nothing
    assert ((high - low) < 0.45).all()


def test_the_sequential_verdict_comes_early_where_the_difference_is_large_and_stays() -> None:
    rng = np.random.default_rng(2)
    good, bad = (rng.random(200) < 0.95).astype(float), (rng.random(200) < 0.3).astype(float)
    verdict, settled = compare_sequentially(good, bad, 0.1)
    assert verdict.word == "BETTER" and settled is not None and settled < 40
    assert compare_sequentially(bad, good, 0.1)[0].word == "WORSE"
    undecided, never = compare_sequentially(good[:10], good[10:20], 0.1)
    assert (undecided.word, never) == ("UNDERPOWERED", None) and undecided.interval[1] - undecided.interval[0] > 0.5
    same, _ = compare_sequentially(good[:150], good[:150], 0.2)
    assert same.word == "SAME" and same.difference == 0


def test_a_projection_says_how_many_pairs_are_needed() -> None:
    first, second = np.tile([1.0, 1, 1, 0], 5), np.tile([1.0, 0, 1, 0], 5)
    verdict, _ = compare_sequentially(first, second, 0.02)
    assert verdict.word == "UNDERPOWERED" and verdict.needed is not None and 25 < verdict.needed < 400
    assert compare_sequentially(first, second, 0.02)[0] == verdict  # its continuations have a seed


def test_sequences_refuse_what_is_out_of_bounds() -> None:
    with pytest.raises(ValueError, match="not within -1"):
        BettingSequences().add(np.array([1.5]))


@pytest.mark.parametrize(("rate", "right", "wrong"), [(0.3, 0.7, 0.3), (0.8, 0.99, 0.01), (0.9, 0.9, 0.5)])
def test_a_corrected_judge_covers_where_the_raw_one_does_not(rate: float, right: float, wrong: float) -> None:
    rng = np.random.default_rng(3)
    covered = raw = 0
    for _ in range(300):
        truth = rng.random(LEAST_LABELS + 300) < rate
        judged = np.where(truth, rng.random(len(truth)) < right, rng.random(len(truth)) < wrong).astype(float)
        own = corrected_rate(truth[:LEAST_LABELS], judged[:LEAST_LABELS], judged[LEAST_LABELS:])
        covered += own.interval[0] <= rate <= own.interval[1]
        raw += abs(judged.mean() - rate) < 1.96 * np.sqrt(judged.var() / len(judged))
    assert covered / 300 >= 0.93
    assert raw / 300 < (0.8 if right < 0.95 else 1)


def test_a_good_judge_is_worth_labels_and_a_blind_one_is_passed_over() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(400) < 0.5
    good = corrected_rate(truth[:50], truth[:50], truth[50:].astype(float))
    blind = corrected_rate(truth[:50], rng.random(50), rng.random(350))
    assert good.weight > 0.75 and blind.weight < 0.35
    assert good.interval[1] - good.interval[0] < 0.7 * (blind.interval[1] - blind.interval[0])
    with pytest.raises(UserError, match="at least 30 labels of people, and there are 29. Label 1 more"):
        corrected_rate(truth[:29], truth[:29], truth[29:].astype(float))


def test_the_interquartile_mean_is_that_of_scipy_and_its_interval_has_a_seed() -> None:
    values = np.random.default_rng(5).exponential(size=37)
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))
    np.random.seed(0)
    first = interquartile_mean_interval(values, seed=7)
    np.random.seed(1)  # what rliable draws from
    assert interquartile_mean_interval(values, seed=7) == first != interquartile_mean_interval(values, seed=8)
    assert first[0] < interquartile_mean(values) < first[1]


def test_strata_keep_their_share_in_every_resample() -> None:
    values, strata = np.r_[np.zeros(20), np.ones(20)], np.repeat([0, 1], 20)
    assert interquartile_mean_interval(values, strata) == (0.5, 0.5)
    low, high = interquartile_mean_interval(values)
    assert low < 0.4 and high > 0.6
