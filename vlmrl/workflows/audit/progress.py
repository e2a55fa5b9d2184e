"""Whether values follow progress: correlations along clips, and controls that keep pictures and change what happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.stats import bootstrap_mean, kendall_tau_b, pearson, spearman, wilson
from vlmrl.workflows.audit.clips import Clip
from vlmrl.workflows.audit.scores import Figure

# Takes a clip, the order of its frames as numbers, and whether it is told the wrong instruction; gives (len(order),).
Scorer = Callable[[Clip, np.ndarray, bool], np.ndarray]

ORDERS = ("reversed", "frozen", "truncated", "shuffled")
WRONG = "wrong instruction"
CORRELATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "value-order correlation (Spearman)": spearman,
    "Pearson correlation": lambda a, b: float(pearson(a, b)[0]),
    "Kendall tau-b": kendall_tau_b,
}


@dataclass(frozen=True)
class Correlation:
    """Mean over clips of a correlation along each.

    Attributes:
        name: Its full name, and what with.
        figure: Mean and interval over the clips where it is defined; None where it never is.
        clips: Number of clips.
        undefined: Of these, those where value or other number never changes; they are in no mean.
    """

    name: str
    figure: Figure | None
    clips: int
    undefined: int

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        figure = None if self.figure is None else self.figure.plain()
        return {"name": self.name, "figure": figure, "clips": self.clips, "undefined": self.undefined}


@dataclass(frozen=True)
class OrderControl:
    """A clip that was tampered with, against the true one.

    Attributes:
        name: What was done to it.
        wins: Share of the clips in which the true clip ends with the higher value, ties counting half.
        correlation: Mean value-order correlation of the tampered clip in its own time; None where undefined everywhere.
    """

    name: str
    wins: Figure
    correlation: float | None

    @property
    def beaten(self) -> bool:
        """Whether the true clip surely ends higher."""
        return self.wins.low > 0.5

    @property
    def ties(self) -> bool:
        """Whether tampering changes nothing or helps."""
        return self.wins.value <= 0.5

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "name": self.name,
            "wins": self.wins.plain(),
            "correlation": self.correlation,
            "beaten": self.beaten,
        }


def clock(clip: Clip, order: np.ndarray, wrong: bool) -> np.ndarray:
    """Value a frame by when it is shown, 0 to 1, whatever it shows: what no correlation with time can tell apart."""
    return np.linspace(0.0, 1.0, len(order))


def in_order(clip: Clip) -> np.ndarray:
    """Return the numbers of a clip's frames as they were recorded."""
    return np.arange(len(clip))


def correlations(clips: Sequence[Clip], curves: Sequence[np.ndarray]) -> list[Correlation]:
    """Correlate values with time and, where it is known, with progress.

    Args:
        clips: Those in which the task was done.
        curves: (n,) float values of each.
    """
    found = [
        _correlation(f"{name} with time", [measure(curve, np.arange(len(curve))) for curve in curves])
        for name, measure in CORRELATIONS.items()
    ]
    known = [(curve, truth) for clip, curve in zip(clips, curves, strict=True) if (truth := clip.progress) is not None]
    for name, measure in CORRELATIONS.items() if known else ():
        values = []
        for curve, truth in known:
            there = np.isfinite(truth)
            values.append(measure(curve[there], truth[there]) if there.sum() > 1 else math.nan)
        found.append(_correlation(f"{name} with true progress", values))
    return found


def controls(clips: Sequence[Clip], scorer: Scorer, told: bool, seed: int) -> list[OrderControl]:
    """Tamper with clips in which the task was done.

    Reversed: last frame first. Frozen: the first frame all the time. Truncated: the first half. Shuffled: frames in
    random order. Wrong instruction: the same frames under other words. In none of them is the task done at the end.

    Args:
        clips: At least one.
        scorer: Values frames.
        told: Whether the scorer reads words.
        seed: Seed of the shuffling.
    """
    rng = np.random.default_rng(seed)
    ends = np.array([scorer(clip, in_order(clip), False)[-1] for clip in clips])
    orders: dict[str, list[np.ndarray]] = {name: [] for name in ORDERS}
    for clip in clips:
        n = len(clip)
        ways = np.arange(n)[::-1], np.zeros(n, dtype=int), np.arange(max(2, n // 2)), rng.permutation(n)
        for name, order in zip(ORDERS, ways, strict=True):
            orders[name].append(order)
    if told:
        orders[WRONG] = [in_order(clip) for clip in clips]
    found = []
    for name, each in orders.items():
        tampered = [scorer(clip, order, name == WRONG) for clip, order in zip(clips, each, strict=True)]
        wins = np.array(
            [float(end > curve[-1]) + 0.5 * float(end == curve[-1]) for end, curve in zip(ends, tampered, strict=True)]
        )
        ranks = [spearman(curve, np.arange(len(curve))) for curve in tampered]
        defined = [rank for rank in ranks if not math.isnan(rank)]
        # Half a win more counts as none: the interval may be too low, never too high at its lower end.
        low, _ = wilson(math.floor(wins.sum()), len(wins))
        _, high = wilson(math.ceil(wins.sum()), len(wins))
        found.append(
            OrderControl(name, Figure(float(wins.mean()), low, high), float(np.mean(defined)) if defined else None)
        )
    return found


def _correlation(name: str, values: Sequence[float]) -> Correlation:
    defined = np.array([value for value in values if not math.isnan(value)])
    figure = Figure(float(defined.mean()), *bootstrap_mean(defined)) if len(defined) else None
    return Correlation(name, figure, len(values), len(values) - len(defined))
