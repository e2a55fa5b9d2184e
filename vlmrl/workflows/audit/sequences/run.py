"""Audit a reward on films of several skills: does it know what happened, and in which order?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import torch
from rich.table import Table

import vlmrl  # noqa: F401  (registers environments)
from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel
from vlmrl.serving.local import LocalConfig
from vlmrl.workflows.audit.candidates import Notes
from vlmrl.workflows.audit.films import FIELDS, film_rows, film_score
from vlmrl.workflows.audit.sequences.metric import Standing, standing
from vlmrl.workflows.audit.sequences.problems import EXACT, KINDS, REMIX, Film, ProblemSet, problem_sets
from vlmrl.workflows.audit.sequences.skills import STAGES
from vlmrl.workflows.build import resolve_device
from vlmrl.workflows.config.audit import AuditConfig
from vlmrl.workflows.report import figures_table, make_console, shown, tracked
from vlmrl.workflows.run_folder import create

REMEMBERED = 65536  # frames: those of an exact permutation are the same in every order, and are encoded once
SHOWN, STRIP, THUMB, LINE = 6, 12, 72, 16  # sets, pictures of a film, their height and that of a line in pixels


class FilmScorer:
    """Scores films under captions with a reward model: what an episode that looks so would earn.

    A model that weighs its goal against negatives, as rewards of clips do, has the other skills' captions for these,
    unless some are given.

    Args:
        settings: Hold reward and caption style.
        encoder: Embeds captions.
        captions: {skill: what is to be seen}.

    Raises:
        UserError: The reward reads no words, awaits something else than pictures, or is learned while an agent trains.
    """

    def __init__(self, settings: AuditConfig, encoder: Encoder, captions: dict[str, str]):
        self._settings, self._encoder, self._captions = settings, encoder, captions
        self._models: dict[tuple[str, ...], RewardModel] = {}
        name = settings.scene.reward.name
        if not settings.scene.reads_words:
            raise UserError(f"sequences: films are told apart by captions, and reward={name} reads no words.")
        needs = self._model((next(iter(captions)),)).needs
        if needs - FIELDS:
            raise UserError(
                f"reward={name} reads {', '.join(sorted(needs - FIELDS))} beside pictures; films hold pictures only."
            )

    def goal(self, plan: Sequence[str]) -> tuple[str, ...]:
        """Return what the reward is told: a sentence for each skill, or one for all."""
        steps = tuple(self._captions[name] for name in plan)
        return (", then ".join(steps),) if self._settings.caption == "sentence" else steps

    def __call__(self, film: Film, embeddings: np.ndarray, plan: Sequence[str]) -> float:
        """Return the score of a film under a caption.

        Args:
            film: The film of n frames.
            embeddings: (n, E) float32, of its frames.
            plan: What the caption says, as names of skills.
        """
        model = self._model(tuple(plan))
        return film_score(model, model(film_rows(model, {"front": embeddings}, {"front": film.frames})))

    def _model(self, plan: tuple[str, ...]) -> RewardModel:
        if plan not in self._models:
            words = self._settings.scene.words
            assert words is not None
            goal = self.goal(plan)
            negatives = words.negatives or tuple(one for one in self._captions.values() if one not in goal)
            self._models[plan] = self._settings.scene.reward.config.build(
                replace(words, goal=goal, negatives=negatives), self._encoder
            )
        return self._models[plan]


def audit_sequences(settings: AuditConfig) -> dict[str, Standing]:
    """Audit a reward on problem sets that the simulator makes.

    Args:
        settings: Says which skills and which reward; `run_dir` is the folder for figures and pictures.

    Returns:
        {kind of set: how the reward does over all levels}.

    Raises:
        UserError: The reward cannot be asked, or the encoder does not know such pictures.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    started = time.monotonic()
    assert settings.sequences is not None
    stage = STAGES[settings.sequences]
    service = LocalConfig(deduplicate=REMEMBERED).build(settings.scene.encoder.config, resolve_device(settings.device))
    notes = Notes()
    try:
        service.encoder.check_env(settings.sequences)
        with notes:
            scorer = FilmScorer(
                settings, service.encoder, {name: skill.caption for name, skill in stage.skills.items()}
            )
        height, width = service.encoder.image_size
        env = gym.make(stage.id, render_mode="rgb_array", height=height, width=width, disable_env_checker=True)
        bar = partial(tracked, desc="acting and filming", unit="set", show=settings.progress_bar)
        try:
            sets = problem_sets(
                stage, env, settings.levels, settings.sets, (height, width), settings.seed, progress=bar
            )
        finally:
            env.close()
        frames = service.scorer()
        with notes:
            scores = [
                _scores(scorer, problem, [frames.collect(frames.submit(film.frames)) for film in problem.films])
                for problem in tracked(sets, desc="scoring", unit="set", show=settings.progress_bar)
            ]
    finally:
        service.close()
    found = {
        kind: standing([own for own, problem in zip(scores, sets, strict=True) if problem.kind == kind], settings.seed)
        for kind in KINDS
        if any(problem.kind == kind for problem in sets)
    }
    levels = {
        (level, kind): standing(
            [own for own, p in zip(scores, sets, strict=True) if (p.level, p.kind) == (level, kind)], settings.seed
        )
        for level in settings.levels
        for kind in found
        if any((p.level, p.kind) == (level, kind) for p in sets)
    }
    folder = create(Path(settings.run_dir), settings)
    content = {
        "sequences": settings.sequences,
        "reward": settings.scene.reward.name,
        "encoder": settings.scene.encoder.name,
        "caption": settings.caption,
        "notes": notes.lines,
        "kinds": {kind: entry.plain_values() for kind, entry in found.items()},
        "levels": [{"level": level, "kind": kind, **entry.plain_values()} for (level, kind), entry in levels.items()],
        "sets": [
            {"level": p.level, "kind": p.kind, "captions": p.plans, "scores": own.tolist()}
            for p, own in zip(sets, scores, strict=True)
        ],
    }
    folder.result.write_text(json.dumps(content, indent=2) + "\n")
    sheet = folder.path / "films.jpg"
    cv2.imwrite(str(sheet), _sheet(sets)[..., ::-1])
    for note in notes.lines:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(_table(settings, levels, found))
    for line in verdicts(settings.scene.reward.name, found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"films:   {shown(sheet)}", soft_wrap=True, highlight=False)
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True, highlight=False)
    console.print(f"took {time.monotonic() - started:.0f} s", highlight=False)
    return found


def verdicts(reward: str, found: dict[str, Standing]) -> list[str]:
    """Say in a line each whether a reward knows what happened, and in which order."""
    said = {REMIX: "what happened", EXACT: "the order of what happened"}
    lines = []
    for kind, what in said.items():
        if kind in found:
            entry = found[kind]
            word = "[green]KNOWS[/]" if entry.above else "[red]does NOT surely know[/]"
            lines.append(
                f"{reward} {word} {what}: macro-F1 {entry.f1.value:.2f} ({entry.f1.low:.2f} to {entry.f1.high:.2f}), "
                f"guessing {entry.chance:.2f}"
            )
    return lines


def _scores(scorer: FilmScorer, problem: ProblemSet, embeddings: list[np.ndarray]) -> np.ndarray:
    """Return (films, captions) float64."""
    return np.array(
        [
            [scorer(film, own, plan) for plan in problem.plans]
            for film, own in zip(problem.films, embeddings, strict=True)
        ]
    )


def _table(settings: AuditConfig, levels: dict[tuple[int, str], Standing], found: dict[str, Standing]) -> Table:
    title = f"reward {settings.scene.reward.name}: macro-F1 \\[95 % interval over sets] (plain argmax, guessing)"
    table = figures_table(f"{title}, {settings.sets} sets a cell", "level", *found)
    for level in settings.levels:
        table.add_row(str(level), *(_cell(levels.get((level, kind))) for kind in found))
    table.add_section()
    table.add_row("all", *(_cell(entry) for entry in found.values()))
    return table


def _cell(entry: Standing | None) -> str:
    if entry is None:
        return ""
    interval = f"\\[{entry.f1.low:.2f}, {entry.f1.high:.2f}]"
    return f"{entry.f1.value:.2f} {interval} ({entry.plain.value:.2f}, {entry.chance:.2f})"


def _sheet(sets: Sequence[ProblemSet]) -> np.ndarray:
    """Draw the films of the first sets under their captions, a film a line, (h, w, 3) uint8 RGB."""
    lines = []
    for problem in sets[:SHOWN]:
        for film in problem.films:
            chosen = film.frames[np.linspace(0, len(film.frames) - 1, STRIP).round().astype(int)]
            small = [cv2.resize(frame, (THUMB, THUMB), interpolation=cv2.INTER_AREA) for frame in chosen]
            title = np.full((LINE, THUMB * STRIP, 3), 255, dtype=np.uint8)
            text = f"level {problem.level}, {problem.kind}: {' -> '.join(film.plan)}"
            cv2.putText(title, text, (4, LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
            lines += [title, np.concatenate(small, axis=1)]
    return np.concatenate(lines)
