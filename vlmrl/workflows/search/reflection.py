"""What training with a program shows of it, in words for the model that wrote it: Eureka's reward reflection.

Eureka (Ma et al., ICLR 2024, section 3.3) shows the values of each term over training and leaves their reading to the
model. Here what they say is said as well: terms that are dead, that flood or dominate, and a reward that parts from
success.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

POINTS = 10  # values of a trace that are shown
DEAD = 1e-3  # a term that never is larger, either way, or never moves by more
# A term floods the others that makes up this share of the reward and moves by less than this share of itself.
FLOOD_SHARE, FLOOD_SPREAD = 0.5, 0.1
DOMINANT = 0.9  # share of the reward at which a term leaves nothing to the others
PARTED = -0.3  # correlation of reward and success below which they part ways
RARE = 0.01  # share of steps below which a task was never done
_AGAIN = "the whole function, in one block of Python, by the same rules."


@dataclass(frozen=True)
class Trace:
    """What a run logged, at n points in time.

    Attributes:
        components: {term: (n,) mean a step}.
        reward: (n,) the model's return of an episode.
        success: (n,) share of an episode's steps at which the task's check holds; None where nothing may tell.
    """

    components: Mapping[str, np.ndarray]
    reward: np.ndarray
    success: np.ndarray | None


def read_trace(path: Path, success: bool = True) -> Trace:
    """Read `progress.csv` of a run; rows that lack a figure are left out.

    Args:
        path: The file.
        success: Whether to read what the task's check says.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    prefix = "reward/component_"
    names = [name for name in (rows[0] if rows else {}) if name.startswith(prefix)]
    wanted = [*names, "rollout/ep_vlm_rew_mean", *(["rollout/predicate_fraction"] if success else [])]
    full = [row for row in rows if all(row.get(name) for name in wanted)]
    columns = {name: np.array([float(row[name]) for row in full]) for name in wanted}
    return Trace(
        {name.removeprefix(prefix): columns[name] for name in sorted(names)},
        columns["rollout/ep_vlm_rew_mean"],
        columns["rollout/predicate_fraction"] if success else None,
    )


def remarks(trace: Trace) -> list[str]:
    """Return what a trace says of its program, in sentences."""
    found = []
    sizes = {name: float(np.abs(values).mean()) for name, values in trace.components.items() if len(values)}
    total = sum(sizes.values())
    alive = sum(size >= DEAD for size in sizes.values())
    for name, values in trace.components.items():
        if not len(values) or total == 0:
            continue
        share, spread = sizes[name] / total, float(np.ptp(values))
        if sizes[name] < DEAD or spread < DEAD * max(1.0, sizes[name]):
            found.append(
                f"'{name}' is dead: it stays at {values.mean():.3g}. Change its scale, write it anew or leave it out."
            )
        elif share >= FLOOD_SHARE and spread < FLOOD_SPREAD * sizes[name]:
            found.append(
                f"'{name}' floods the others: it is {share:.0%} of the reward and hardly changes, so it is paid for "
                "whatever the agent does."
            )
        elif share >= DOMINANT and alive > 1:
            found.append(f"'{name}' dominates: it is {share:.0%} of the reward. Make it smaller, or the others larger.")
    if trace.success is None:
        return found
    if len(trace.success) and trace.success.max() < RARE:
        found.append("The task was practically never done. Write the reward anew, with an easier way to it.")
    agreement = correlation(trace.reward, trace.success)
    if agreement is not None and agreement < PARTED:
        rises = trace.reward[-1] > trace.reward[0]
        found.append(
            f"Reward and success part ways (correlation {agreement:.2f}): the reward {'rises' if rises else 'falls'} "
            f"while success {'falls' if rises else 'rises'}. What is paid for is not the task."
        )
    return found


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Pearson's correlation; None where one of them does not move."""
    if len(first) < 3 or np.ptp(first) < 1e-12 or np.ptp(second) < 1e-12:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def reflection(trace: Trace) -> str:
    """Write what a model is told of its program after training."""
    lines = [
        "An agent was trained on that reward. Means a step of each term, and the share of steps at which the task is "
        "done, at equal distances in time:",
        "",
        *_shown(trace),
        "",
        f"Think about why it went so, then write a better reward: {_AGAIN}",
    ]
    return "\n".join(lines)


def preference_reflection(best: Trace, worst: Trace | None, worst_source: str, history: Sequence[str]) -> str:
    """Write what a model is told where somebody has looked at films: ICPL's feedback (Yu et al. 2024).

    Args:
        best: Of the program that was liked best, the one that the model is reminded of.
        worst: Of the one that was liked least; None where there was but one.
        worst_source: Its text.
        history: Texts of the programs that were liked best after each round, the newest last.
    """
    lines = [
        "Agents were trained on several rewards of yours and filmed. Somebody who knows the task looked at the films, "
        "and liked what came of the reward above best. Its terms, means a step at equal distances in time:",
        "",
        *_shown(best),
    ]
    if worst is not None:
        lines += [
            "",
            "What came of this one was liked least:",
            "",
            "```python",
            worst_source.strip(),
            "```",
            "",
            *_shown(worst),
        ]
    for older, newer in zip(history, history[1:], strict=False):
        if older != newer:
            lines += ["", "What made a former best better:", "", "```diff", *_changes(older, newer), "```"]
    lines += ["", f"Think about what the good one has that the bad one lacks, then write a better reward: {_AGAIN}"]
    return "\n".join(lines)


def _shown(trace: Trace) -> list[str]:
    lines = [_line(name, values) for name, values in trace.components.items()]
    if trace.success is not None:
        lines.append(_line("task done", trace.success))
    said = remarks(trace)
    return [*lines, "", *(f"- {remark}" for remark in said)] if said else lines


def _changes(older: str, newer: str) -> list[str]:
    """Return the lines that differ, with two around them, as `diff -u` has them without its head."""
    lines = difflib.unified_diff(older.strip().splitlines(), newer.strip().splitlines(), n=2, lineterm="")
    return list(lines)[2:]


def _line(name: str, values: Sequence[float] | np.ndarray) -> str:
    values = np.asarray(values)
    if not len(values):
        return f"{name}: nothing was logged"
    chosen = values[np.unique(np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int))]
    shown = ", ".join(f"{value:.3g}" for value in chosen)
    return f"{name}: [{shown}], least {values.min():.3g}, most {values.max():.3g}"
