"""Which policy is better, and how sure that is: the part of an evaluation that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from vlmrl.errors import UserError
from vlmrl.stats import (
    clopper_pearson,
    difference_interval,
    interquartile_mean,
    interquartile_mean_interval,
    wilson,
)
from vlmrl.stats.comparison import Pairs, Verdict, compare, compare_paired, judge
from vlmrl.stats.judged import CorrectedRate, corrected_rate
from vlmrl.stats.sequential import compare_sequentially
from vlmrl.workflows.report import figures_table
from vlmrl.workflows.trials import Trials

COLOURS = {"BETTER": "green", "WORSE": "red", "SAME": "cyan", "UNDERPOWERED": "yellow"}


@dataclass(frozen=True)
class Comparison:
    """One policy beside the one that it is compared with.

    Attributes:
        policy: Its name.
        reference: The other's.
        paired: Number of trials of each from equal starts; 0 where they were taken as independent.
        fixed: What holds if the number of episodes was fixed before the first.
        sequential: What holds however often one looked; None where judgements stand for labels.
        settled: After how many pairs of episodes the sequential verdict was there; None if it is not.
        progress: As `sequential`, of scores from 0 to 1 instead of success; None where there are none.
        notes: What a person should know before believing it.
    """

    policy: str
    reference: str
    paired: int
    fixed: Verdict
    sequential: Verdict | None
    settled: int | None
    progress: Verdict | None
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "policy": self.policy,
            "reference": self.reference,
            "paired_episodes": self.paired,
            "fixed": self.fixed.plain(),
            "sequential": None
            if self.sequential is None
            else {**self.sequential.plain(), "settled_after": self.settled},
            "progress": None if self.progress is None else self.progress.plain(),
            "notes": list(self.notes),
        }


def summary(trials: Trials) -> dict[str, Any]:
    """Return rates with 95 % intervals, ready for JSON; `corrected` where judgements stand for missing labels.

    Raises:
        UserError: Trials have no label, and there are too few labels to set their judge right.
    """
    known = trials.success[trials.labelled]
    result: dict[str, Any] = {"episodes": len(trials), "labels": len(known)}
    if len(known):
        wins = int(known.sum())
        result["success"] = {
            "mean": wins / len(known),
            "interval": wilson(wins, len(known)),
            "clopper_pearson": clopper_pearson(wins, len(known)),
        }
    corrected = _corrected(trials)
    if corrected is not None:
        result["corrected"] = corrected.plain()
    scored = np.isfinite(trials.score)
    if scored.any():
        scores, strata = trials.score[scored], np.array(trials.task)[scored]
        result["score_iqm"] = {
            "mean": interquartile_mean(scores),
            "interval": interquartile_mean_interval(scores, strata),
            "episodes": int(scored.sum()),
        }
    return result


def compare_with_first(trials: Mapping[str, Trials], margin: float, confidence: float = 0.95) -> list[Comparison]:
    """Compare every policy with the one that is named first.

    With k of them to be compared, each has a confidence of 1 - (1 - confidence) / k, so that all verdicts together err
    no more often than one would (Bonferroni).

    Args:
        trials: {policy: trials}.
        margin: Differences of success smaller than this are of no consequence, 0 to 1.
        confidence: Of all verdicts together.

    Raises:
        UserError: See `summary`.
    """
    first, *others = trials.values()
    single = 1 - (1 - confidence) / max(len(others), 1)
    return [_compare(other, first, margin, single) for other in others]


def _compare(policy: Trials, reference: Trials, margin: float, confidence: float) -> Comparison:
    notes: list[str] = []
    one, other = _on_common_tasks(policy, reference, notes)
    corrected = _corrected(one, confidence), _corrected(other, confidence)
    if any(rate is not None for rate in corrected):
        rates = [_rate(own, rate, confidence) for own, rate in zip((one, other), corrected, strict=True)]
        interval = difference_interval(*rates)
        fixed = Verdict(
            judge(interval, margin), rates[0][0] - rates[1][0], interval, None, "prediction-powered intervals", None
        )
        return Comparison(policy.name, reference.name, 0, fixed, None, None, None, tuple(notes))
    places = _pairs(one, other)
    if places is not None:
        mine, theirs = one.success[places[0]], other.success[places[1]]
        fixed = compare_paired(Pairs.of(mine > 0, theirs > 0), margin, confidence)
        paired = len(mine)
        if paired < max(len(one), len(other)):
            notes.append(f"Only {paired} trials have an equal start on the other side; the others are left out.")
    else:
        places = _alternating(one, other)
        fixed = compare((int(one.success.sum()), len(one)), (int(other.success.sum()), len(other)), margin, confidence)
        paired = 0
    sequential, settled = compare_sequentially(one.success[places[0]], other.success[places[1]], margin, confidence)
    scores = one.score[places[0]], other.score[places[1]]
    progress = None
    if all(np.isfinite(values).all() for values in scores):
        progress, _ = compare_sequentially(*scores, margin, confidence)
    return Comparison(policy.name, reference.name, paired, fixed, sequential, settled, progress, tuple(notes))


def _on_common_tasks(one: Trials, other: Trials, notes: list[str]) -> tuple[Trials, Trials]:
    """Leave out tasks that only one of them was tried on, and note what may mislead."""
    common = set(one.task) & set(other.task)
    if not common:
        raise UserError(
            f"'{one.name}' was tried on {_named(one.task)}, '{other.name}' on {_named(other.task)}: no task in common, "
            "so they cannot be compared. Give them one by one, or name tasks alike."
        )
    left_out = sorted((set(one.task) | set(other.task)) - common)
    if left_out:
        notes.append(f"Only one of them was tried on {_named(left_out)}; left out here.")
    kept = tuple(_chosen(own, np.array([task in common for task in own.task])) for own in (one, other))
    mixes = [Counter(own.task) for own in kept]
    shares = [{task: mix[task] / mix.total() for task in common} for mix in mixes]
    if any(abs(shares[0][task] - shares[1][task]) > 0.05 for task in common):
        notes.append("They were tried on tasks in different shares, which alone can make a difference.")
    return kept[0], kept[1]


def _named(tasks: Any) -> str:
    names = sorted(set(tasks))
    return ", ".join(f"'{name}'" if name else "an unnamed task" for name in names[:5]) + (
        ", …" if len(names) > 5 else ""
    )


def _chosen(trials: Trials, mask: np.ndarray) -> Trials:
    return replace(
        trials,
        task=tuple(np.array(trials.task, dtype=object)[mask]),
        start=tuple(np.array(trials.start, dtype=object)[mask]),
        success=trials.success[mask],
        judged=trials.judged[mask],
        score=trials.score[mask],
    )


def _pairs(one: Trials, other: Trials) -> tuple[list[int], list[int]] | None:
    """Return numbers of the trials with equal starts, in the order of `one`; None where starts say nothing."""
    places = []
    for own in (one, other):
        keys = list(zip(own.task, own.start, strict=True))
        if not all(start for _, start in keys) or len(set(keys)) < len(keys):
            return None
        places.append({key: i for i, key in enumerate(keys)})
    common = [key for key in places[0] if key in places[1]]
    # Seeds that hardly overlap are two experiments, not one with pairs.
    if len(common) < 0.5 * max(len(one), len(other)):
        return None
    return [places[0][key] for key in common], [places[1][key] for key in common]


def _alternating(one: Trials, other: Trials) -> tuple[list[int], list[int]]:
    """Pair the first trial of a task with the other's first of it, and so on."""
    waiting: dict[str, list[int]] = {}
    for j, task in enumerate(other.task):
        waiting.setdefault(task, []).append(j)
    pairs = [(i, waiting[task].pop(0)) for i, task in enumerate(one.task) if waiting.get(task)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _corrected(trials: Trials, confidence: float = 0.95) -> CorrectedRate | None:
    """Return the judge-corrected rate; None where every trial has a label."""
    known = trials.labelled
    if known.all():
        return None
    both = known & np.isfinite(trials.judged)
    try:
        return corrected_rate(trials.success[both], trials.judged[both], trials.judged[~known], confidence)
    except UserError as error:
        raise UserError(f"'{trials.name}': {error}") from error


def _rate(trials: Trials, corrected: CorrectedRate | None, confidence: float) -> tuple[float, tuple[float, float]]:
    if corrected is not None:
        return corrected.rate, corrected.interval
    wins = int(trials.success.sum())
    return wins / len(trials), wilson(wins, len(trials), confidence)


def trials_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Lay out summaries of trials, one policy a line."""
    headers = ["episodes", "labels", "success\n(Wilson)", "success\n(Clopper-Pearson)"]
    corrected = any("corrected" in own for own in summaries.values())
    scored = any("score_iqm" in own for own in summaries.values())
    headers += ["success, judge\nset right"] * corrected + ["score, inter-\nquartile mean"] * scored
    table = figures_table("mean and 95 % interval", "policy", *headers)
    for name, own in summaries.items():
        success = own.get("success")
        cells = [str(own["episodes"]), str(own["labels"])]
        cells.append("no labels" if success is None else percent(success["mean"], success["interval"]))
        cells.append("" if success is None else bracket(success["clopper_pearson"]))
        if corrected:
            entry = own.get("corrected")
            cells.append("" if entry is None else percent(entry["mean"], entry["interval"]))
        if scored:
            entry = own.get("score_iqm")
            low, high = (entry or {"interval": (0, 0)})["interval"]
            cells.append("" if entry is None else f"{entry['mean']:.2f} [{low:.2f}, {high:.2f}]")
        table.add_row(name, *cells)
    return table


def comparison_table(comparisons: list[Comparison], names: Mapping[str, str], sequential: bool) -> Table:
    """Lay out comparisons, one a line, the verdict last.

    Args:
        comparisons: At least one.
        names: {policy: what stands for it in the table}.
        sequential: Whether the verdict is the one that holds however often one looks.
    """
    joint = f" each, 95 % that all hold ({len(comparisons)} comparisons)" if len(comparisons) > 1 else ""
    title = f"difference of success, {100 * (1 - 0.05 / len(comparisons)):g} % interval{joint}"
    table = figures_table(title, "", "episodes fixed\nin advance", "p", "looking\nat any time", "verdict")
    for entry in comparisons:
        fixed, anytime, word = entry.fixed, entry.sequential, chosen(entry, sequential).word
        table.add_row(
            f"{names[entry.policy]} - {names[entry.reference]}",
            percent(fixed.difference, fixed.interval, "+"),
            "" if fixed.p_value is None else f"{fixed.p_value:.3f}" if fixed.p_value >= 0.001 else "<0.001",
            "" if anytime is None else bracket(anytime.interval, "+"),
            f"[bold {COLOURS[word]}]{word}[/]",
        )
    return table


def chosen(entry: Comparison, sequential: bool) -> Verdict:
    """Return the verdict that counts: of episodes fixed in advance, or of looking at any time where that was asked."""
    return entry.sequential if sequential and entry.sequential is not None else entry.fixed


def sentence(entry: Comparison, names: Mapping[str, str], sequential: bool, margin: float) -> str:
    """Say a verdict in words."""
    verdict = chosen(entry, sequential)
    policy, reference = names[entry.policy], names[entry.reference]
    how = f"from {entry.paired} equal starts" if entry.paired else "from independent episodes"
    text = {
        "BETTER": f"{policy} is better than {reference}",
        "WORSE": f"{policy} is worse than {reference}",
        "SAME": f"{policy} and {reference} differ by less than {100 * margin:g} points",
        "UNDERPOWERED": f"nobody can tell yet whether {policy} is better than {reference}",
    }[verdict.word]
    if verdict is entry.sequential and entry.settled is not None:
        how += f", settled after {entry.settled} pairs"
    if verdict.word == "UNDERPOWERED":
        how += (
            f"; about {verdict.needed} episodes of each would tell (with a chance of 80 %, if rates stay as they are)"
            if verdict.needed is not None
            else "; label more episodes"
            if verdict.method.startswith("prediction")
            else "; at these rates no affordable number of episodes would tell. Widen margin, if that is still of use"
        )
    return f"{verdict.word}: {text} ({verdict.method}, {how})."


def percent(mean: float, interval: tuple[float, float], sign: str = "") -> str:
    """Write a share or a difference with its interval, "80 % [66, 89]"."""
    return f"{100 * mean:{sign}.0f}% {bracket(interval, sign)}"


def bracket(interval: tuple[float, float], sign: str = "") -> str:
    """Write an interval in per cent, "[66, 89]"."""
    low, high = interval
    return f"\\[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
