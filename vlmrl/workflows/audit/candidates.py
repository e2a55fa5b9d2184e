"""Which rewards an audit compares: encoders, words and alphas, and the wrong words that should do worse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from vlmrl.envs.tasks import PREDICATES, State
from vlmrl.reward_models.base import RewardModel, Words, sentences
from vlmrl.workflows.build import Parts, build_model
from vlmrl.workflows.config.scene import SceneConfig

UNRELATED = 6  # wrong instructions for a sentence of a person's own
MOST = 8  # of other tasks of the environment; those that the task names as negatives come first


@dataclass(frozen=True)
class Candidate:
    """One reward.

    Attributes:
        letter: What it is called in tables.
        encoder: Name of its encoder; empty where it looks at no picture.
        words: What it was told; None where it reads no words.
        alpha: Strength of the goal-baseline projection; None for rewards without one.
        config: Settings of the reward, from which the same reward can be built with other words.
        model: The reward model.
    """

    letter: str
    encoder: str
    words: Words | None
    alpha: float | None
    config: Any
    model: RewardModel

    @property
    def title(self) -> str:
        """Return what tells it from others."""
        said = [" / ".join(repr(sentence) for sentence in self.words.goal)] if self.words is not None else []
        alpha = [f"alpha {self.alpha:g}"] if self.alpha is not None else []
        return " · ".join([*([self.encoder] if self.encoder else []), *said, *alpha]) or "no words"


def candidates(
    scene: SceneConfig, parts: Parts, prompts: Sequence[str], alphas: Sequence[float], letters: Any
) -> list[Candidate]:
    """Build every reward that is compared with one encoder: the scene's own words, then each prompt, by each alpha.

    Args:
        scene: Task and reward.
        parts: Hold the encoder, and what a program is written for.
        prompts: Sentences to take the goal's place, one at a time.
        alphas: Strengths of the projection, for rewards that have one; empty takes the reward's own.
        letters: Iterator of names.

    Raises:
        UserError: A reward cannot be built.
    """
    words = scene.words
    if words is None or not scene.reads_words:
        told: list[Words | None] = [words]
    else:
        goals = dict.fromkeys([words.goal, *((prompt,) for prompt in prompts)])
        told = [replace(words, goal=goal) for goal in goals]
    settings = [replace(scene.reward.config, alpha=alpha) for alpha in alphas] or [scene.reward.config]
    return [
        Candidate(
            next(letters),
            parts.encoder.name if parts.encoder is not None else "",
            said if scene.reads_words else None,
            getattr(config, "alpha", None),
            config,
            build_model(config, said, parts.encoder, parts.scene),
        )
        for said in told
        for config in settings
    ]


def wrong_words(scene: SceneConfig, state: State | None) -> dict[str, Words]:
    """Return wrong instructions.

    They are the words of other tasks of the environment, else the task's negatives, else tasks of other environments.
    A task that entails this one is none: who stands with crossed arms stands.

    Args:
        scene: Task and reward.
        state: Any state of the environment, by which predicates name their conditions; None where nothing is simulated.

    Returns:
        {what it is: the words}; empty where the reward reads none.
    """
    words = scene.words
    if words is None or not scene.reads_words:
        return {}
    entries = [entry.split("/") for entry in PREDICATES]
    own = scene.make_task().predicate
    others = [
        task
        for env, task in entries
        if env == scene.env.name
        and task != scene.task.name
        and (own is None or state is None or not own(state).keys() <= PREDICATES.load(f"{env}/{task}")(state).keys())
    ]
    by_task = {task: told for task in others if (told := task_words(task)) is not None}
    likeliest = sorted(by_task, key=lambda task: not set(by_task[task].goal) & set(words.negatives))[:MOST]
    found = {f"wrong words: {task}": told for task, told in by_task.items() if task in likeliest}
    if not found:
        found = {
            f"wrong words: '{negative}'": Words((negative,), words.baseline, words.goal) for negative in words.negatives
        }
    if not found:
        names = dict.fromkeys(task for env, task in entries if env != scene.env.name)
        told_by_name = {task: told for task in names if (told := task_words(task)) is not None}
        found = {f"wrong words: {task}": told for task, told in list(told_by_name.items())[:UNRELATED]}
    return {name: told for name, told in found.items() if told.goal != words.goal}


def task_words(task: str) -> Words | None:
    """Read the words of a task of the suite; None for one that somebody else has registered."""
    file = resources.files("vlmrl.configs").joinpath("task", f"{task}.yaml")
    if not file.is_file():
        return None
    values = yaml.safe_load(file.read_text())
    return Words(*(sentences(values[key] or ()) for key in ("goal", "baseline", "negatives")))


class Notes:
    """Collects what encoders warn of, such as words that they were never taught, each once.

    Attributes:
        lines: What was warned of.
        about: What the warnings to come are about, if it needs saying.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.about = ""

    def __enter__(self) -> Notes:
        self._catcher = warnings.catch_warnings(record=True)
        self._caught = self._catcher.__enter__()
        warnings.simplefilter("always", UserWarning)
        return self

    def add(self, line: str) -> None:
        """Take a line, once."""
        if line not in self.lines:
            self.lines.append(line)

    def __exit__(self, *error: Any) -> None:
        self._catcher.__exit__(*error)
        for warning in self._caught or ():
            self.add(f"{self.about}: {warning.message}" if self.about else str(warning.message))
