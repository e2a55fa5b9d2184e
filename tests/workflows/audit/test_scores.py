"""Figures, controls and verdicts of rewards whose worth is known."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from vlmrl.errors import UserError
from vlmrl.workflows.audit.scores import Control, Figure, Figures, Judge, best_threshold
from vlmrl.workflows.audit.states import LabelledStates
from vlmrl.workflows.audit.verdict import fails, judge


def made_up(n: int = 600, per_group: int = 2, seed: int = 0) -> LabelledStates:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=n).astype(np.float32)
    done = truth > 0.7
    return LabelledStates({}, done, np.where(done, 1, truth), ("made up",) * n, np.arange(n) // per_group, {})


def noisy(states: LabelledStates, noise: float, seed: int = 1) -> np.ndarray:
    return states.done + noise * np.random.default_rng(seed).standard_normal(len(states))


def verdict(states: LabelledStates, scores: np.ndarray, control: np.ndarray | None = None) -> str:
    measured = Judge(states)
    controls = measured.blind_controls(scores)
    if control is not None:
        controls.append(measured.control("wrong words", control, scores))
    return judge(measured.figures(scores), controls).word


def test_verdicts_of_rewards_whose_worth_is_known() -> None:
    states = made_up()
    assert verdict(states, states.truth) == "GOOD"
    assert verdict(states, 0.03 * noisy(states, 0.3) + 0.2) == "GOOD"  # scale and shift mean nothing
    assert verdict(states, noisy(states, 1.2)) == "WEAK"
    assert verdict(states, noisy(states, 200)) == "USELESS"
    assert verdict(states, np.zeros(len(states))) == "USELESS"
    assert verdict(states, -noisy(states, 0.3)) == "USELESS"


def test_a_good_reward_whose_words_do_not_matter_is_weak() -> None:
    states = made_up()
    reward = noisy(states, 0.3)
    assert verdict(states, reward, control=noisy(states, 0.3, seed=2)) == "WEAK"
    assert verdict(states, reward, control=noisy(states, 3.0, seed=2)) == "GOOD"


def test_few_states_cannot_make_a_reward_good() -> None:
    states = made_up(40, per_group=1)
    figures = Judge(states).figures(states.truth)
    assert figures.auroc.value == 1 and figures.auroc.low < 0.9


def test_states_of_one_episode_make_no_interval_narrow() -> None:
    alone, together = made_up(600, per_group=1), made_up(600, per_group=30)
    rng = np.random.default_rng(0)
    widths = []
    for states in (alone, together):
        figures = Judge(states).figures(states.done + rng.standard_normal(states.group.max() + 1)[states.group])
        assert figures.precision is not None
        widths.append([one.high - one.low for one in (figures.auroc, figures.precision, figures.recall)])
    assert all(wide > 2 * narrow for narrow, wide in zip(*widths, strict=True))


def test_intervals_of_precision_and_recall_cover_where_frames_of_a_clip_are_alike() -> None:
    rng = np.random.default_rng(0)
    group, done = np.repeat(np.arange(40), 10), np.repeat(np.arange(40) % 2 == 0, 10)
    states = LabelledStates({}, done, done.astype(np.float32), ("x",) * 400, group, {})
    spread = NormalDist(0, np.sqrt(1.09))  # of a score around its label: 1 between clips and 0.3 within one
    covered, n = {"precision": 0, "recall": 0}, 40
    for seed in range(n):
        scores = done + rng.standard_normal(40)[group] + 0.3 * rng.standard_normal(400)
        figures = Judge(states, seed).figures(scores)
        recall, false = 1 - spread.cdf(figures.threshold - 1), 1 - spread.cdf(figures.threshold)
        truth = {"recall": recall, "precision": recall / (recall + false)}  # of new clips, half of them done
        for name, value in truth.items():
            figure = getattr(figures, name)
            assert figure.low <= figure.value <= figure.high
            covered[name] += figure.low <= value <= figure.high
    assert min(covered.values()) / n > 0.9  # taken state by state they covered 0.82 and 0.56


def test_figures_are_those_of_the_states_that_did_not_choose() -> None:
    states = made_up()
    measured = Judge(states)
    assert not set(states.group[measured.choosing]) & set(states.group[measured.measured])
    assert measured.choosing.mean() == pytest.approx(1 / 3, abs=0.05)
    scores = np.where(measured.choosing, states.done, 0.5 * np.random.default_rng(0).standard_normal(len(states)))
    figures = measured.figures(scores)
    assert figures.choice == 1 and figures.auroc.low < 0.5 < figures.auroc.high


def test_figures_of_the_truth_are_perfect_and_those_of_nothing_undefined() -> None:
    states = made_up()
    best, nothing = (Judge(states).figures(scores) for scores in (states.done.astype(float), np.ones(len(states))))
    for figure in (best.auroc, best.nearly, best.pearson, best.precision, best.recall):
        assert figure is not None and figure.value == pytest.approx(1)
    assert best.precision is not None and max(best.precision.low, best.recall.low) < 1  # of so many and no more
    assert best.epic is not None and best.epic.value == pytest.approx(0)
    assert nothing.pearson is None and nothing.epic is None
    assert nothing.auroc.value == 0.5
    assert nothing.recall.value == 1 and nothing.precision is not None  # everything is above the threshold


def test_nearly_done_is_harder() -> None:
    states = made_up()
    figures = Judge(states).figures(states.truth + 0.2 * np.random.default_rng(0).standard_normal(len(states)))
    assert figures.nearly is not None and figures.nearly.high < figures.auroc.value


def test_the_threshold_is_best_for_f1() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        done = np.arange(12) < rng.integers(1, 11)
        scores = rng.integers(0, 6, 12).astype(float)

        def f1(threshold: float, scores: np.ndarray = scores, done: np.ndarray = done) -> float:
            above = scores > threshold
            return 2 * (above & done).sum() / (above.sum() + done.sum())

        assert f1(best_threshold(scores, done)) == pytest.approx(max(f1(t) for t in np.arange(-0.5, 6)))


def test_few_clips_are_refused() -> None:
    done = np.arange(40) < 20
    states = LabelledStates({}, done, done.astype(np.float32), ("x",) * 40, done.astype(np.int64), {})
    with pytest.raises(UserError, match="too few to choose on some"):
        Judge(states)


@pytest.mark.parametrize(
    ("control", "lead", "expected"),
    [
        (Figure(0.5, 0.45, 0.55), Figure(0.4, 0.3, 0.5), True),
        (Figure(0.95, 0.91, 0.97), Figure(0.03, 0.01, 0.05), False),  # good itself
        (Figure(0.8, 0.7, 0.9), Figure(0.05, -0.01, 0.1), False),  # not surely worse
    ],
)
def test_a_control_fails_where_it_is_not_good_and_surely_worse(control: Figure, lead: Figure, expected: bool) -> None:
    assert fails(Control("x", control, lead)) is expected


def test_reasons_say_the_figure_and_what_stands_in_the_way() -> None:
    area, recall = Figure(0.95, 0.92, 0.97), Figure(1, 1, 1)
    figures = Figures(area, None, recall, recall, 0.0, None, recall, 0.9)
    control = Control("wrong words: standing", Figure(0.94, 0.9, 0.97), Figure(0.01, -0.01, 0.03))
    assert "wrong words: standing (0.94)" in judge(figures, [control]).reason
    assert "AUROC 0.95 [0.92, 0.97]" in judge(figures, []).reason
    assert judge(figures, []).word == "GOOD" and judge(figures, []).advice == ""
    few = judge(replace(figures, auroc=Figure(0.95, 0.39, 1.0)), [], more="states=<n>")
    assert few.word == "USELESS" and "Measure on more first (states=<n>)" in few.advice
    close = replace(figures, auroc=Figure(0.95, 0.8985, 0.97))  # 0.90 would deny what follows
    assert "AUROC 0.95 [0.898, 0.97]: the lower bound is below 0.9" in judge(close, []).reason
