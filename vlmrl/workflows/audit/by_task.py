"""How one way to reward does on clips of every task of its environment, each under the words of that task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from vlmrl.envs.tasks import PREDICATES
from vlmrl.reward_models.base import Words
from vlmrl.workflows.audit.candidates import task_words
from vlmrl.workflows.audit.results import cell
from vlmrl.workflows.audit.scores import Figures, Judge
from vlmrl.workflows.audit.scripted import ScriptedClips, enough
from vlmrl.workflows.build import Parts, build_model
from vlmrl.workflows.config.scene import SceneConfig
from vlmrl.workflows.report import figures_table

MEANS = ("auroc", "nearly", "precision", "recall")


@dataclass(frozen=True)
class ByTask:
    """A reward on the clips of one task.

    Attributes:
        task: The task.
        goal: What the reward was told.
        clips: Clips that were scored.
        scenes: Scenes in which the task was done.
        figures: How well it tells them apart; None where too few scenes showed the task.
    """

    task: str
    goal: str
    clips: int
    scenes: int
    figures: Figures | None

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        figures = None if self.figures is None else self.figures.plain()
        return {"goal": self.goal, "clips": self.clips, "scenes": self.scenes, "figures": figures}


def by_task(scene: SceneConfig, parts: Parts, played: ScriptedClips, seed: int) -> list[ByTask]:
    """Measure a reward on the clips of every task of the environment, under the task's words.

    Args:
        scene: Settings of the reward; its own task has its own words, which may be a person's.
        parts: Holds the encoder.
        played: The clips.
        seed: See `Judge`.

    Returns:
        A line for each task; none where the reward reads no words, and so is about one task only.
    """
    if not scene.reads_words:
        return []
    found = []
    for task in [entry.split("/")[1] for entry in PREDICATES if entry.split("/")[0] == scene.env.name]:
        words: Words | None = scene.words if task == scene.task.name else task_words(task)
        if words is None:  # a task that somebody else has registered
            continue
        clips = played.labelled(task, seed)
        figures = None
        if enough(clips):
            model = build_model(scene.reward.config, words, parts.encoder, parts.scene)
            figures = Judge(clips, seed).figures(clips.score(model, clips.clips))
        scenes = len(np.unique(clips.group[clips.done]))
        found.append(ByTask(task, "; ".join(words.goal), len(clips), scenes, figures))
    return found


def means(tasks: Sequence[ByTask]) -> dict[str, float | None]:
    """Return the mean of each figure over the tasks where it is defined; None where it never is."""
    found: dict[str, float | None] = {}
    for name in MEANS:
        figures = [getattr(entry.figures, name) for entry in tasks if entry.figures is not None]
        values = [figure.value for figure in figures if figure is not None]
        found[name] = float(np.mean(values)) if values else None
    return found


def lines_of(tasks: Sequence[ByTask]) -> list[list[str]]:
    """Return the cells of a table, a line a task, and the means last."""
    lines = []
    for entry in tasks:
        figures = entry.figures
        cells = ["too few"] * 4 if figures is None else [cell(getattr(figures, name)) for name in MEANS]
        lines.append([entry.goal, str(entry.scenes), *cells])
    mean = ["-" if value is None else f"{value:.2f}" for value in means(tasks).values()]
    return [*lines, ["mean", "", *mean]]


HEADERS = ("under the words of each task", "scenes", "AUROC", "… nearly done", "precision", "recall")


def by_task_table(tasks: Sequence[ByTask]) -> Table:
    """Lay out what was found, a line a task."""
    title = "every task of the environment; scenes in which it was done, thresholds from scenes apart"
    table = figures_table(title, *HEADERS)
    for line in lines_of(tasks):
        table.add_row(*map(escape, line))
    return table
