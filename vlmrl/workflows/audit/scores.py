"""Figures of rewards on labelled states, and of the controls that a good reward must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.stats import (
    auroc,
    auroc_interval,
    epic_distance,
    group_weights,
    pearson,
    percentile_interval,
    wilson,
)
from vlmrl.workflows.audit.states import LabelledStates

CHOICE = 1 / 3  # share of the groups on which words and thresholds are chosen; figures come from the others


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval; None where it is undefined."""

    value: float
    low: float
    high: float

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"value": self.value, "interval": [self.low, self.high]}


@dataclass(frozen=True)
class Figures:
    """How well one reward tells states apart.

    Attributes:
        auroc: Chance that a state in which the task is done gets more than one in which it is not.
        nearly: The same against states in which it is nearly done; None where there are none.
        pearson: Correlation with the label; None where the reward is the same everywhere.
        epic: EPIC distance from the label as a reward, 0 to 1; likewise.
        threshold: Reward above which a state is taken for done; chosen for the best F1 on other states.
        precision: Share of the states above it in which the task is done; None where there are none.
        recall: Share of the states in which the task is done that are above it.
        choice: AUROC on the states on which is chosen; no figure, but what candidates are ranked by.
    """

    auroc: Figure
    nearly: Figure | None
    pearson: Figure | None
    epic: Figure | None
    threshold: float
    precision: Figure | None
    recall: Figure
    choice: float

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values: dict[str, Any] = {}
        for name in ("auroc", "nearly", "pearson", "epic", "precision", "recall"):
            figure = getattr(self, name)
            values[name] = figure.plain() if figure is not None else None
        return values | {"threshold": self.threshold}


@dataclass(frozen=True)
class Control:
    """What must not do as well as the reward.

    Attributes:
        name: What it is.
        auroc: Its AUROC.
        lead: By how much the reward's AUROC is greater, over the same resamples.
    """

    name: str
    auroc: Figure
    lead: Figure

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"name": self.name, "auroc": self.auroc.plain(), "lead": self.lead.plain()}


class Judge:
    """Measures rewards on labelled states.

    A third of the groups is for choosing words and thresholds; all figures come from the other two thirds, so that the
    best of many is not taken for better than it is. Intervals of 95 % are those of the cluster bootstrap; for the AUROC
    the wider, at either end, of it and Newcombe's interval for as many observations as there are groups, and for
    precision and recall of it and Wilson's: the bootstrap has no width where every positive is above every negative.

    Args:
        states: The states.
        seed: Seed of the division, of the resampling and of the shuffled control.
    """

    def __init__(self, states: LabelledStates, seed: int = 0):
        self.states = states
        rng = np.random.default_rng(seed)
        self.choosing = _division(states, rng)
        self.measured = ~self.choosing
        self._done = states.done[self.measured]
        self._groups = states.group[self.measured]
        self._weights = group_weights(self._groups, self._done, seed=seed)
        self._nearly = self._done | (states.kind[self.measured] == "nearly")
        self._shuffled = rng.permutation(len(states))
        self._seed = seed

    def figures(self, scores: np.ndarray) -> Figures:
        """Measure a reward.

        Args:
            scores: (n,) float, its reward of each state.
        """
        held = scores[self.measured]
        correlations = pearson(held, self._done, self._weights)
        defined = correlations[np.isfinite(correlations)]
        correlation = float(pearson(held, self._done)[0])
        threshold = best_threshold(scores[self.choosing], self.states.done[self.choosing])
        above = held > threshold
        return Figures(
            auroc=self._area(held),
            nearly=self._area_nearly(held),
            pearson=Figure(correlation, *percentile_interval(defined)) if len(defined) else None,
            epic=Figure(float(epic_distance(np.array(correlation))), *percentile_interval(epic_distance(defined)))
            if len(defined)
            else None,
            threshold=threshold,
            precision=self._share(self._done, above) if above.any() else None,
            recall=self._share(above, self._done),
            choice=float(auroc(scores[self.choosing], self.states.done[self.choosing])[0]),
        )

    def control(self, name: str, scores: np.ndarray, reward: np.ndarray) -> Control:
        """Measure a control against a reward: both (n,) float."""
        own, other = (auroc(values[self.measured], self._done, self._weights) for values in (scores, reward))
        lead = float(auroc(reward[self.measured], self._done)[0] - auroc(scores[self.measured], self._done)[0])
        return Control(name, self._area(scores[self.measured], own), Figure(lead, *percentile_interval(other - own)))

    def blind_controls(self, reward: np.ndarray) -> list[Control]:
        """Measure what has seen nothing: the same reward everywhere, and the reward's own values at other states."""
        return [
            self.control("constant reward", np.zeros(len(reward)), reward),
            self.control("shuffled labels", reward[self._shuffled], reward),
        ]

    def _area(self, scores: np.ndarray, resampled: np.ndarray | None = None) -> Figure:
        if resampled is None:
            resampled = auroc(scores, self._done, self._weights)
        return _widened(float(auroc(scores, self._done)[0]), resampled, self._done, self._groups)

    def _share(self, hit: np.ndarray, among: np.ndarray) -> Figure:
        """Measure the share of hits among some of the states.

        Args:
            hit: (n,) bool, of the measured states.
            among: (n,) bool, with at least one.
        """
        drawn = self._weights @ among
        resampled = (self._weights @ (hit & among))[drawn > 0] / drawn[drawn > 0]
        hits, total, groups = int((hit & among).sum()), int(among.sum()), len(np.unique(self._groups[among]))
        # As many hits of as many groups, rounded outwards: groups, not states, are independent observations.
        least, _ = wilson(hits * groups // total, groups)
        _, most = wilson(-(-hits * groups // total), groups)
        low, high = percentile_interval(resampled)
        return Figure(hits / total, min(low, least), max(high, most))

    def _area_nearly(self, scores: np.ndarray) -> Figure | None:
        chosen = self._nearly
        done, groups = self._done[chosen], self._groups[chosen]
        if done.all():
            return None
        resampled = auroc(scores[chosen], done, group_weights(groups, done, seed=self._seed))
        return _widened(float(auroc(scores[chosen], done)[0]), resampled, done, groups)


def best_threshold(scores: np.ndarray, done: np.ndarray) -> float:
    """Return the value, midway between two scores, above which F1 (van Rijsbergen 1979) is greatest.

    Args:
        scores: (n,) float.
        done: (n,) bool, with both labels.
    """
    values = np.unique(scores)
    steps = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2])
    above = np.searchsorted(np.sort(scores), steps, side="right")
    hits = done.sum() - np.searchsorted(np.sort(scores[done]), steps, side="right")
    f1 = 2 * hits / (len(scores) - above + done.sum())
    best = float(steps[int(np.argmax(f1))])
    return best if np.isfinite(best) else float(values[0]) - 1.0  # everything is above it


def _division(states: LabelledStates, rng: np.random.Generator) -> np.ndarray:
    """Draw the groups on which is chosen, (n,) bool, so that both sides have both labels.

    Raises:
        UserError: The groups are too few to be divided.
    """
    _, inverse = np.unique(states.group, return_inverse=True)
    share = np.bincount(inverse, weights=states.done) / np.bincount(inverse)
    for _ in range(100):  # few groups of several labels may take some tries
        chosen = np.zeros(len(share), dtype=bool)
        for stratum in (share == 0, share == 1, (share > 0) & (share < 1)):
            members = rng.permutation(np.flatnonzero(stratum))
            chosen[members[: int(len(members) * CHOICE + rng.random())]] = True
        mask = chosen[inverse]
        if all(0 < states.done[part].sum() < part.sum() for part in (mask, ~mask)):
            return mask
    raise UserError(
        f"The {len(states)} states come from {len(share)} episodes or clips, too few to choose on some and measure on "
        "others. Bring more clips."
    )


def _widened(area: float, resampled: np.ndarray, done: np.ndarray, groups: np.ndarray) -> Figure:
    """Interval of an AUROC, see `Judge`."""
    low, high = percentile_interval(resampled)
    least, most = auroc_interval(area, len(np.unique(groups[done])), len(np.unique(groups[~done])))
    return Figure(area, min(low, least), max(high, most))
