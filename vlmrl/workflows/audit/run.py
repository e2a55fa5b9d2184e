"""Audit rewards: draw or read labelled states, score them, and say which rewards are any good."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, scores_clips
from vlmrl.reward_models.programs.answers import NoRecording
from vlmrl.workflows.audit.by_task import ByTask, by_task, by_task_table
from vlmrl.workflows.audit.candidates import Candidate, Notes, candidates, wrong_words
from vlmrl.workflows.audit.films import why_no_film
from vlmrl.workflows.audit.folder import read_frames
from vlmrl.workflows.audit.page import contact_sheet, write_page
from vlmrl.workflows.audit.preflight import Preflight, preflight, preflight_line
from vlmrl.workflows.audit.results import Audited, cell
from vlmrl.workflows.audit.scores import Judge
from vlmrl.workflows.audit.scripted import ScriptedClips, play_scripted
from vlmrl.workflows.audit.states import LabelledStates, check_labels, counts, draw_states, why_not
from vlmrl.workflows.audit.verdict import fails, judge
from vlmrl.workflows.build import Parts, build_model, build_parts, resolve_device
from vlmrl.workflows.config.audit import SCRIPTS, AuditConfig
from vlmrl.workflows.config.scene import SceneConfig
from vlmrl.workflows.predicates import write
from vlmrl.workflows.report import figures_table, letters, make_console, shown
from vlmrl.workflows.run_folder import create

OWN = 4  # every so many scenes of a script is about the task itself, the others about all tasks in turn
SHORT, SHORT_SCENES = 200, 64  # states, or scenes of a script, of the audit before training
COLOURS = {"GOOD": "green", "WEAK": "yellow", "USELESS": "red"}


def audit(settings: AuditConfig) -> list[Audited]:
    """Score labelled states, or clips, with every reward that is asked for, and judge the best of each encoder.

    Clips take the place of states where a script plays the environment: `AuditConfig.plays_clips`. Everything that a
    person can name wrongly is found before anything is drawn.

    Args:
        settings: Says which rewards and which states; `run_dir` is the folder for page and figures.

    Returns:
        Every reward, in the order of the tables; those with a verdict are the best of their encoder. None for a reward
        of clips where there are no labelled ones: of it is said whether it sees anything.

    Raises:
        UserError: A reward cannot be built or audited, or the states are not there.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    started = time.monotonic()
    device = resolve_device(settings.device)
    scene, notes, names = settings.scene, Notes(), letters()
    built: list[tuple[Parts, list[Candidate]]] = []
    try:
        with notes:
            for choice in settings.encoders or (scene.encoder,):
                parts = build_parts(replace(scene, encoder=choice), device)
                built.append((parts, candidates(scene, parts, settings.prompts, settings.alphas, names)))
                if scores_clips(parts.model) and not settings.plays_clips:
                    _preflight(settings, parts, console)
                    return []
                _check(settings, parts.model)
        views: dict[Any, LabelledStates] = {}
        results: list[Audited] = []
        seen: Preflight | None = None
        tasks: list[ByTask] = []
        for parts, rewards in built:
            if settings.plays_clips:
                played = _play(scene, parts, settings.scenes, settings.seed, progress=settings.progress_bar)
                if scores_clips(parts.model) and seen is None:
                    seen = preflight(parts.model, parts.env, settings.seed, played)
                states: LabelledStates = played.labelled(scene.task.name, settings.seed)
                check_labels(states, f"In {settings.scenes} scenes", "take a task that the script reaches more often")
                if not tasks:
                    with notes:
                        tasks = by_task(scene, parts, played, settings.seed)
            else:
                size = None if settings.frames is not None else (parts.env.height, parts.env.width)
                if size not in views:
                    views[size] = _states(settings, parts)
                states = views[size]
            results += audit_encoder(scene, parts, rewards, states, settings.seed, notes, settings.progress_bar)
    finally:
        for parts, _ in built:
            parts.close()
    folder = create(Path(settings.run_dir), settings)
    judged = [entry for entry in results if entry.verdict is not None]
    best = max(judged, key=lambda entry: entry.figures.choice)
    if seen is not None:
        console.print(f"preflight: {preflight_line(seen)}", highlight=False)
    _print(console, settings, results, notes.lines)
    if tasks:
        console.print(by_task_table(tasks))
    content = _plain(settings, results, best, notes.lines)
    if seen is not None:
        content["preflight"] = seen.plain()
    if tasks:
        content["tasks"] = {entry.task: entry.plain() for entry in tasks}
    folder.result.write_text(json.dumps(content, indent=2) + "\n")
    page = folder.path / "audit.html"
    write_page(page, _title(settings), best, results, notes.lines, tasks)
    console.print(f"page:    {shown(page)}", soft_wrap=True, highlight=False)
    sheet = contact_sheet(best)
    if sheet is not None:
        write(folder.path / "wrong_frames.jpg", sheet)
        console.print(f"frames:  {shown(folder.path / 'wrong_frames.jpg')}", soft_wrap=True, highlight=False)
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True, highlight=False)
    console.print(f"took {time.monotonic() - started:.0f} s", highlight=False)
    return results


def audit_encoder(
    scene: SceneConfig,
    parts: Parts,
    rewards: list[Candidate],
    states: LabelledStates,
    seed: int,
    notes: Notes,
    progress: bool,
) -> list[Audited]:
    """Score states with the rewards of one encoder and judge the best, which is chosen on states apart.

    Args:
        scene: Task and reward.
        parts: Holds the encoder.
        rewards: At least one.
        states: Labelled states.
        seed: See `Judge`.
        notes: Takes what the encoder warns of.
        progress: Whether to show a progress bar.
    """
    embeddings = states.embed(parts.encoder, progress) if parts.encoder is not None else {}
    measured = Judge(states, seed)
    results = []
    for candidate in rewards:
        scores = _scores(candidate.model, states, embeddings)
        results.append(Audited(candidate, states, measured, scores, measured.figures(scores)))
    best = max(results, key=lambda entry: entry.figures.choice)
    controls = measured.blind_controls(best.scores)
    state = {name: values[0] for name, values in states.state.items()} or None
    for name, words in wrong_words(scene, state).items():
        notes.about = name
        try:
            with notes:
                wrong = build_model(best.candidate.config, words, parts.encoder, parts.scene)
        except NoRecording:
            notes.add(f"{name}: no program was recorded for these words, so this control is left out")
            continue
        controls.append(measured.control(name, _scores(wrong, states, embeddings), best.scores))
    verdict = judge(best.figures, controls, states.noun, states.more)
    return [replace(entry, controls=tuple(controls), verdict=verdict) if entry is best else entry for entry in results]


def _scores(model: RewardModel, states: LabelledStates, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
    """Reward states, (n,) float32, and end what the model has started for it."""
    try:
        return states.score(model, embeddings)
    finally:
        close = getattr(model, "close", None)
        if close is not None:
            close()


def can_be_audited(scene: SceneConfig, parts: Parts) -> bool:
    """Return whether there is something that `short_audit` could look at.

    There is not without a predicate or pictures, nor for a reward that looks at more than a state where no script plays
    clips.
    """
    if parts.env.task.predicate is None or parts.encoder is None:
        return False
    return _scripted(scene, parts) or not why_not(parts.model)


def _scripted(scene: SceneConfig, parts: Parts) -> bool:
    return scene.env.name in SCRIPTS and not why_no_film(parts.model)


def short_audit(scene: SceneConfig, parts: Parts, seed: int) -> Audited | None:
    """Audit the reward that an agent is about to be trained on, in seconds.

    Args:
        scene: Task and reward.
        parts: What they stand for.
        seed: Seed of the states; nothing that others draw from is touched.

    Returns:
        None where there is nothing to audit, see `can_be_audited`.
    """
    if not can_be_audited(scene, parts):
        return None
    assert parts.encoder is not None
    alpha = getattr(scene.reward.config, "alpha", None)
    only = Candidate("a", parts.encoder.name, scene.words, alpha, scene.reward.config, parts.model)
    if _scripted(scene, parts):
        states: LabelledStates = _play(scene, parts, SHORT_SCENES, seed, own=2).labelled(scene.task.name, seed)
        check_labels(states, f"In {SHORT_SCENES} scenes", "take a task that the script reaches more often")
    else:
        states = draw_states(parts.env, SHORT, seed, pictures=True)
    # The encoder has warned of words of the goal that it does not know; those of the controls are not the user's.
    (result,) = audit_encoder(scene, parts, [only], states, seed, Notes(), progress=False)
    return result


def short_preflight(scene: SceneConfig, parts: Parts, seed: int) -> Preflight:
    """Say whether a reward of clips that an agent is about to be trained on sees anything, in seconds.

    Args:
        scene: Task and reward.
        parts: What they stand for.
        seed: Seed of the clips; nothing that others draw from is touched.
    """
    assert scores_clips(parts.model)
    played = _play(scene, parts, SHORT_SCENES, seed, own=2) if scene.env.name in SCRIPTS else None
    return preflight(parts.model, parts.env, seed, played)


def verdict_line(entry: Audited) -> str:
    """Say the verdict in one line, with the colours of rich."""
    assert entry.verdict is not None
    word = entry.verdict.word
    advice = f" {entry.verdict.advice}" if entry.verdict.advice else ""
    return f"[bold {COLOURS[word]}]{word}[/]. {escape(entry.verdict.reason + advice)}"


def _preflight(settings: AuditConfig, parts: Parts, console: Console) -> None:
    """Say of a reward of clips whether it sees anything, and write the figures.

    Raises:
        UserError: Pictures, or several sentences or encoders, are to be compared.
    """
    assert scores_clips(parts.model)
    if settings.frames is not None or settings.prompts or settings.encoders:
        raise UserError(
            f"reward={settings.scene.reward.name} scores clips, and is not audited on single pictures, nor with "
            "several sentences or encoders at a time. Leave frames, prompts and encoders out, or audit recorded "
            "clips, dataset=."
        )
    found = preflight(parts.model, parts.env, settings.seed)
    folder = create(Path(settings.run_dir), settings)
    folder.result.write_text(json.dumps({"preflight": found.plain()}, indent=2) + "\n")
    console.print(f"preflight of {_title(settings)}: {preflight_line(found)}", highlight=False)
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True, highlight=False)


def _check(settings: AuditConfig, model: RewardModel) -> None:
    reason = why_no_film(model) if settings.plays_clips else why_not(model)
    if reason:
        raise UserError(f"reward={settings.scene.reward.name} cannot be audited: {reason}.")


def _play(
    scene: SceneConfig, parts: Parts, scenes: int, seed: int, own: int = OWN, progress: bool = False
) -> ScriptedClips:
    """Let the environment's script play scenes as the reward sees them; every so many (`own`) are about the task."""
    assert parts.encoder is not None
    size, camera = (parts.env.height, parts.env.width), parts.env.task.camera
    return play_scripted(
        scene.env.name, scene.task.name, scenes, size, camera, parts.encoder, seed, own=own, progress=progress
    )


def _states(settings: AuditConfig, parts: Parts) -> LabelledStates:
    if settings.frames is not None:
        return read_frames(settings.frames, parts.env.task.camera, settings.progress_bar)
    pictures = bool(parts.model.needs & {"embeddings", "frames"})
    quantities = "quantities" in parts.model.needs
    return draw_states(parts.env, settings.states, settings.seed, pictures, settings.progress_bar, quantities)


def _title(settings: AuditConfig) -> str:
    scene = settings.scene
    task = f"pictures of {settings.frames}" if settings.frames is not None else f"task {scene.task.name}"
    return f"{scene.env.name} · {task} · reward {scene.reward.name}"


def _plain(settings: AuditConfig, results: list[Audited], best: Audited, notes: list[str]) -> dict[str, Any]:
    assert best.verdict is not None
    states = best.states
    return {
        **best.verdict.plain(),
        "best": best.candidate.letter,
        "env": settings.scene.env.name,
        "task": settings.scene.task.name,
        "reward": settings.scene.reward.name,
        "states": {
            "total": len(states),
            "measured": int(best.judge.measured.sum()),
            "groups": len(np.unique(states.group)),
            "sources": counts(states),
        },
        "rewards": [entry.plain() for entry in results],
        "notes": notes,
    }


def _print(console: Console, settings: AuditConfig, results: list[Audited], notes: list[str]) -> None:
    """Print tables and verdicts."""
    states, measured = results[0].states, results[0].judge.measured
    kinds = ", ".join(f"{int((states.kind == kind).sum())} {kind}" for kind in ("done", "nearly", "not done"))
    console.print(f"[bold]{escape(_title(settings))}[/]", highlight=False)
    console.print(
        f"{len(states):,} {states.noun}s ({kinds}) in {len(np.unique(states.group)):,} independent groups; "
        f"{int(measured.sum()):,} are measured, the others choose words and threshold",
        highlight=False,
    )
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    for entry in results:
        console.print(f"{entry.candidate.letter}: {escape(entry.candidate.title)}", soft_wrap=True, highlight=False)
    console.print(_figures_table(results))
    for entry in results:
        if entry.verdict is not None:
            console.print(_controls_table(entry))
            console.print(f"{entry.candidate.letter}: {verdict_line(entry)}", highlight=False)


def _figures_table(results: list[Audited]) -> Table:
    title = f"on {results[0].states.noun}s apart from those that chose, with 95 % intervals"
    table = figures_table(title, "", "AUROC", "… nearly done", "Pearson", "EPIC distance", "precision", "recall")
    for entry in results:
        figures = entry.figures
        cells = (figures.auroc, figures.nearly, figures.pearson, figures.epic, figures.precision, figures.recall)
        chosen = "*" if entry.verdict is not None and len(results) > 1 else ""
        table.add_row(entry.candidate.letter + chosen, *(escape(cell(figure)) for figure in cells))
    return table


def _controls_table(entry: Audited) -> Table:
    title = f"controls of {entry.candidate.letter}: each must fail"
    table = figures_table(title, "control", "AUROC", "lead of the reward", "")
    for control in entry.controls:
        table.add_row(
            *map(escape, (control.name, cell(control.auroc), cell(control.lead))),
            "fails" if fails(control) else "DOES AS WELL",
        )
    return table
