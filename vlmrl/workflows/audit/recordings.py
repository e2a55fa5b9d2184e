"""Audit a reward on recorded clips: does its value follow progress, and would a clock do as well?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlmrl.datasets.base import Dataset, open_dataset
from vlmrl.encoders.base import ELSEWHERE, Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, Words
from vlmrl.serving.local import LocalConfig
from vlmrl.workflows.audit.candidates import Notes, wrong_words
from vlmrl.workflows.audit.clips import Clip, read_clips, read_labels
from vlmrl.workflows.audit.exports import write_progress_table, write_rrd
from vlmrl.workflows.audit.films import film_rows, why_no_film
from vlmrl.workflows.audit.findings import Findings, examine, lines_of
from vlmrl.workflows.audit.progress import clock
from vlmrl.workflows.audit.recordings_page import write_page
from vlmrl.workflows.build import resolve_device
from vlmrl.workflows.config.audit import AuditConfig
from vlmrl.workflows.config.scene import NO_ENV
from vlmrl.workflows.relabel.score import choose_cameras
from vlmrl.workflows.report import figures_table, make_console, shown
from vlmrl.workflows.run_folder import create

COLOURS = {"PASS": "green", "WEAK": "yellow", "FAIL": "red"}


class RewardScorer:
    """Values the frames of clips with a reward model, each clip under its own sentence if need be.

    Args:
        settings: Hold reward and words.
        encoder: Embedded the frames.
        clips: Their sentences are wrong instructions for each other and, where no negatives are given, negatives.

    Raises:
        UserError: A clip has no sentence and nobody says one for all, or the reward reads more than pictures.
    """

    def __init__(self, settings: AuditConfig, encoder: Encoder, clips: Sequence[Clip]):
        self._settings, self._encoder = settings, encoder
        self._models: dict[Words | None, RewardModel] = {}
        self._texts = sorted({clip.text for clip in clips if clip.text})
        self._wrong = list(wrong_words(settings.scene, None).values())
        self.reads_words = settings.scene.reads_words
        for clip in clips:
            reason = why_no_film(self._model(self._words(clip)))
            if reason:
                raise UserError(f"reward={settings.scene.reward.name} cannot be audited on clips: {reason}.")

    def __call__(self, clip: Clip, order: np.ndarray, wrong: bool) -> np.ndarray:
        """See `Scorer`. A reward that is a difference of values is asked for its values."""
        model = self._model(self._wrong_words(clip) if wrong else self._words(clip))
        rows = film_rows(model, {name: own[order] for name, own in clip.embeddings.items()})
        values = getattr(model, "values", model)(rows)
        return np.asarray(values, dtype=np.float32)

    def _words(self, clip: Clip) -> Words | None:
        words = self._settings.scene.words
        if not self._settings.own_sentences or not self.reads_words or words is None:
            return words
        if not clip.text.strip():
            raise UserError(
                f"The clip '{clip.name}' does not say what should be done. Say it for all: goal='...', or write it "
                "into the column text of captions.csv (a line a clip) or of steps.csv."
            )
        return self._told(words, clip.text)

    def _wrong_words(self, clip: Clip) -> Words | None:
        words = self._words(clip)
        assert words is not None
        others = [text for text in self._texts if text not in words.goal]
        if self._settings.own_sentences and others:
            return self._told(words, others[clip.number % len(others)])
        return self._wrong[clip.number % len(self._wrong)] if self._wrong else words

    def _told(self, words: Words, sentence: str) -> Words:
        others = tuple(text for text in self._texts if text != sentence)
        return replace(words, goal=(sentence,), negatives=words.negatives or others)

    def _model(self, words: Words | None) -> RewardModel:
        if words not in self._models:
            self._models[words] = self._settings.scene.reward.config.build(words, self._encoder)
        return self._models[words]


def audit_recordings(settings: AuditConfig) -> Findings:
    """Audit a reward on recorded clips.

    Embeddings are kept beside the dataset: an audit that was killed goes on, and another sentence needs no image pass.

    Args:
        settings: Says which clips and which reward; `run_dir` is the folder for page and figures.

    Returns:
        What was found out about the reward; of the clock beside it the page tells.

    Raises:
        UserError: Something cannot be read, or there is too little to look at.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    started = time.monotonic()
    assert settings.dataset is not None
    dataset = open_dataset(settings.dataset)
    labels = read_labels(settings.labels, dataset) if settings.labels is not None else {}
    service = LocalConfig(store=_store(dataset)).build(settings.scene.encoder.config, resolve_device(settings.device))
    notes, problems = Notes(), dict[str, str]()
    try:
        service.encoder.check_env(ELSEWHERE if settings.scene.env.name == NO_ENV else settings.scene.env.name)
        cameras = choose_cameras(dataset, settings.cameras, needed=True)
        clips = list(read_clips(dataset, service, cameras, labels, problems, settings.progress_bar))
        _check(clips, problems, settings.dataset)
        with notes:
            scorer = RewardScorer(settings, service.encoder, clips)
            notes.about = "wrong instruction"
            reward = examine(settings.scene.reward.name, clips, scorer, scorer.reads_words, settings.seed)
    finally:
        service.close()
    beside = examine("a pure clock", clips, clock, False, settings.seed)
    lines = [*notes.lines, *(f"{name} is left out: it {problem}" for name, problem in problems.items())]
    if all(clip.label.success is None for clip in clips):
        lines.append("Nobody says which clips succeeded; all are taken for successes. labels=<csv> says so.")
    folder = create(Path(settings.run_dir), settings)
    _print(console, settings, clips, [reward, beside], lines)
    content = {
        "dataset": settings.dataset,
        "reward": settings.scene.reward.name,
        "encoder": settings.scene.encoder.name,
        "clips": [
            {
                "name": clip.name,
                "frames": len(clip),
                "success": clip.label.success,
                "done_at": clip.label.done_at,
                "values": curve.tolist(),
            }
            for clip, curve in zip(clips, reward.curves, strict=True)
        ],
        "notes": lines,
        **reward.plain(),
        "clock": beside.plain(),
    }
    folder.result.write_text(json.dumps(content, indent=2) + "\n")
    page = folder.path / "audit.html"
    write_page(page, f"{settings.dataset} · reward {settings.scene.reward.name}", clips, [reward, beside], lines)
    console.print(f"page:    {shown(page)}", soft_wrap=True, highlight=False)
    for path in _exports(settings, folder.path, dataset, clips, reward):
        console.print(f"values:  {shown(path)}", soft_wrap=True, highlight=False)
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True, highlight=False)
    console.print(f"took {time.monotonic() - started:.0f} s", highlight=False)
    return reward


def _store(dataset: Dataset) -> str:
    """Return where `vlmrl.relabel` keeps embeddings of the same frames."""
    path = Path(getattr(dataset, "path", dataset.spec)).absolute()
    return str(path.with_name(f".{path.name}.embeddings"))


def _check(clips: Sequence[Clip], problems: dict[str, str], spec: str) -> None:
    if not any(clip.label.success is not False for clip in clips):
        said = "; ".join(f"{name} {problem}" for name, problem in list(problems.items())[:3])
        raise UserError(
            f"dataset={spec}: an audit of clips needs at least one in which the task is done, and there "
            f"{'is none that can be read: ' + said if problems else 'is none'}."
        )


def _exports(
    settings: AuditConfig, folder: Path, dataset: Dataset, clips: Sequence[Clip], reward: Findings
) -> Iterator[Path]:
    if settings.progress_table:
        yield write_progress_table(folder, settings.scene.reward.name, clips, reward.curves, dataset)
    if settings.rrd:
        yield write_rrd(folder / "audit.rrd", clips, reward.curves)


def _print(
    console: Console, settings: AuditConfig, clips: Sequence[Clip], found: Sequence[Findings], notes: Sequence[str]
) -> None:
    outcomes = [clip.label.success for clip in clips]
    console.print(f"[bold]{escape(str(settings.dataset))} · reward {settings.scene.reward.name}[/]", highlight=False)
    console.print(
        f"{len(clips)} clips, {sum(map(len, clips)):,} frames: {outcomes.count(True)} successes, "
        f"{outcomes.count(False)} failures, {outcomes.count(None)} of unknown outcome",
        highlight=False,
    )
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    for table in tables(found):
        console.print(table)
    for entry in found:
        text = f"{escape(entry.name)}: [bold {COLOURS[entry.word]}]{entry.word}[/]. {escape(entry.reason)}"
        console.print(text, highlight=False)


def tables(found: Sequence[Findings]) -> Iterator[Table]:
    """Lay out what was found, a column for each way to value frames."""
    for title, lines in lines_of(found).items():
        table = figures_table(title, "", *(entry.name for entry in found))
        for name, cells in lines:
            table.add_row(name, *map(escape, cells))
        yield table
