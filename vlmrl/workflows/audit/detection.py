"""Whether values tell success: on clips apart from those that chose the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.stats import (
    auroc,
    auroc_interval,
    average_precision,
    bootstrap_mean,
    group_weights,
    percentile_interval,
    wilson,
)
from vlmrl.workflows.audit.clips import Clip
from vlmrl.workflows.audit.scores import CHOICE, Figure, best_threshold

FEWEST = 4  # clips of either outcome; with fewer nothing can be chosen on some and measured on others
HOLD = 3  # frames in a row that must be above the threshold: one that flickers is no success
BINS = 5  # of probabilities, for calibration


@dataclass(frozen=True)
class Detection:
    """How well the value at a clip's end tells success.

    All but the threshold is measured on clips that it was not chosen on. Figures are None where undefined.

    Attributes:
        threshold: Value from which a clip counts as a success; chosen for the best F1.
        chosen: Numbers of the clips that it was chosen on.
        measured: Numbers of the others.
        auroc: Chance that a success ends higher than a failure.
        auprc: Area under the precision-recall curve, as average precision; the share of successes is chance.
        chance: That share.
        precision: Share of successes among those taken for one.
        recall: Share of those taken for one among the successes.
        f1: Harmonic mean of the two.
        brier: Mean squared error of the probability of success, a logistic function of the value that was fitted on the
            choosing clips.
        calibration: (mean probability, share of successes, clips) of `BINS` equal bins of probability; no empty ones.
        calibration_error: Mean distance of the two, weighted by clips.
        early: Share of clips in which the value holds above the threshold before the task is done, or without.
        delay: Frames from when the task is done until the value holds above the threshold, mean over the successes in
            which it does, fires too early aside.
        missed: Successes in which it never does.
        timed: Successes of which it is known when they were done.
    """

    threshold: float
    chosen: tuple[int, ...]
    measured: tuple[int, ...]
    auroc: Figure
    auprc: Figure
    chance: float
    precision: Figure | None
    recall: Figure
    f1: Figure
    brier: Figure
    calibration: tuple[tuple[float, float, int], ...]
    calibration_error: float
    early: Figure | None
    delay: Figure | None
    missed: int
    timed: int

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.plain() if isinstance(value, Figure) else value for name, value in values.items()}


def detect(clips: Sequence[Clip], curves: Sequence[np.ndarray], seed: int) -> Detection | None:
    """Measure a success detector; None with fewer than `FEWEST` clips of either outcome.

    Args:
        clips: Clips of known outcome.
        curves: (n,) float values of each.
        seed: Seed of the division and of the resampling.
    """
    done = np.array([bool(clip.label.success) for clip in clips])
    if done.sum() < FEWEST or (~done).sum() < FEWEST:
        return None
    ends = np.array([curve[-1] for curve in curves], dtype=np.float64)
    choosing = _division(done, seed)
    threshold = best_threshold(ends[choosing], done[choosing])
    slope, offset = _logistic(ends[choosing], done[choosing])
    own, truth = ends[~choosing], done[~choosing]
    weights = group_weights(np.arange(len(own)), truth, seed=seed)
    area = float(auroc(own, truth)[0])
    low, high = percentile_interval(auroc(own, truth, weights))
    least, most = auroc_interval(area, int(truth.sum()), int((~truth).sum()))
    above = own >= threshold
    hits = int((above & truth).sum())
    f1 = 2 * hits / (above.sum() + truth.sum())
    f1s = 2 * weights @ (above & truth) / (weights @ above + weights @ truth)
    chance = 1 / (1 + np.exp(-np.clip(slope * own + offset, -50, 50)))
    errors = (chance - truth) ** 2
    bins = _calibration(chance, truth)
    return Detection(
        threshold=float(threshold),
        chosen=tuple(clip.number for clip, mine in zip(clips, choosing, strict=True) if mine),
        measured=tuple(clip.number for clip, mine in zip(clips, choosing, strict=True) if not mine),
        auroc=Figure(area, min(low, least), max(high, most)),
        auprc=Figure(
            float(average_precision(own, truth)[0]), *percentile_interval(average_precision(own, truth, weights))
        ),
        chance=float(truth.mean()),
        precision=Figure(hits / int(above.sum()), *wilson(hits, int(above.sum()))) if above.any() else None,
        recall=Figure(hits / int(truth.sum()), *wilson(hits, int(truth.sum()))),
        f1=Figure(float(f1), *percentile_interval(f1s)),
        brier=Figure(float(errors.mean()), *bootstrap_mean(errors, seed=seed)),
        calibration=bins,
        calibration_error=sum(abs(a - b) * n for a, b, n in bins) / len(own),
        **_timing(
            [clip for clip, mine in zip(clips, choosing, strict=True) if not mine],
            [curve for curve, mine in zip(curves, choosing, strict=True) if not mine],
            threshold,
            seed,
        ),
    )


def fires(curve: np.ndarray, threshold: float) -> int | None:
    """Return the frame at which a value has held at the threshold or above for `HOLD` frames; None if it never does."""
    above = np.asarray(curve) >= threshold
    hold = min(HOLD, len(above))
    runs = np.convolve(above, np.ones(hold), mode="valid") == hold
    return int(runs.argmax()) + hold - 1 if runs.any() else None


def _timing(clips: Sequence[Clip], curves: Sequence[np.ndarray], threshold: float, seed: int) -> dict[str, Any]:
    early = judged = missed = timed = 0
    delays = []
    for clip, curve in zip(clips, curves, strict=True):
        at, done_at = fires(curve, threshold), clip.label.done_at
        if not clip.label.success:
            judged += 1
            early += at is not None
        elif done_at is not None:
            judged += 1
            timed += 1
            if at is None:
                missed += 1
            elif at < done_at:
                early += 1
            else:
                delays.append(float(at - done_at))
    return {
        "early": Figure(early / judged, *wilson(early, judged)) if judged else None,
        "delay": Figure(float(np.mean(delays)), *bootstrap_mean(np.array(delays), seed=seed)) if delays else None,
        "missed": missed,
        "timed": timed,
    }


def _division(done: np.ndarray, seed: int) -> np.ndarray:
    """Draw the clips on which is chosen, (n,) bool: a third of either outcome, at least two."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(done), dtype=bool)
    for outcome in (True, False):
        members = rng.permutation(np.flatnonzero(done == outcome))
        chosen[members[: max(2, round(len(members) * CHOICE))]] = True
    return chosen


def _logistic(values: np.ndarray, done: np.ndarray) -> tuple[float, float]:
    """Fit P(success) = 1 / (1 + exp(-(slope value + offset))).

    Platt 1999 (Advances in Large Margin Classifiers, 61), section 2.2: targets are drawn in by his equation so that few
    clips, all told apart, do not make probabilities of 0 and 1.
    """
    from scipy.optimize import minimize

    positives, negatives = int(done.sum()), int((~done).sum())
    target = np.where(done, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    x = (values - centre) / scale

    def loss(parameters: np.ndarray) -> float:
        logits = parameters[0] * x + parameters[1]
        return float((np.logaddexp(0, logits) - target * logits).sum())

    slope, offset = minimize(loss, np.zeros(2), method="BFGS").x
    return float(slope / scale), float(offset - slope * centre / scale)


def _calibration(chance: np.ndarray, done: np.ndarray) -> tuple[tuple[float, float, int], ...]:
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    return tuple(
        (float(chance[place == i].mean()), float(done[place == i].mean()), int((place == i).sum()))
        for i in range(BINS)
        if (place == i).any()
    )
