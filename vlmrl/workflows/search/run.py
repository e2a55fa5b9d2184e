"""Rounds of programs: write, screen, train in heats, reflect, and write again; then report with other seeds.

As Eureka (Ma et al., ICLR 2024) goes, with the heats of successive halving (Jamieson and Talwalkar 2016). Nothing is
kept in memory that could not be had again: answers come from the answer store by the question, results from the folders
of their runs. So a search that was killed goes on by doing again what takes no time, and ends as it would have.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vlmrl.envs.make import EnvSettings
from vlmrl.envs.program_scene import ProgramScene
from vlmrl.errors import UserError
from vlmrl.judges.base import Message
from vlmrl.reward_models.confinement.process import ConfinedProgram, ProgramError
from vlmrl.reward_models.programs.answers import Writer, examples
from vlmrl.reward_models.programs.contract import STATES, Checked, check
from vlmrl.reward_models.programs.generate import NoProgram, generate
from vlmrl.reward_models.programs.prompt import opening
from vlmrl.workflows.build import open_desk
from vlmrl.workflows.config.scene import Choice
from vlmrl.workflows.config.search import SearchConfig
from vlmrl.workflows.report import make_console, shown
from vlmrl.workflows.run_folder import RunFolder, create
from vlmrl.workflows.search.reflection import read_trace, reflection
from vlmrl.workflows.search.screening import Recorded, record_episodes, screen
from vlmrl.workflows.train import train

SCREEN_STEPS = 200  # steps of a recorded episode, at most
SCREEN_SEED = 2_000_000  # of the recorded episodes; no run uses it

Score = tuple[float, float]  # share of steps at which the task is done, then the truth; means over seeds


@dataclass(frozen=True)
class Candidate:
    """A program.

    Attributes:
        id: First 12 characters of the SHA-256 of its text: two programs of the same text are one candidate.
        source: Its text.
        answer: The answer that it stood in.
        round: Where it first came, from 0 on.
    """

    id: str
    source: str
    answer: str
    round: int


def search(settings: SearchConfig, writer: Writer | None = None) -> dict[str, Any]:
    """Look for a better program.

    Args:
        settings: What to do; `run_dir` is the folder of the search.
        writer: Writes the programs; None takes what the settings say.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: No program passes, or nobody writes one.
    """
    console = make_console()
    folder = RunFolder(Path(settings.run_dir)) if settings.train.resume else create(Path(settings.run_dir), settings)
    own = writer is None
    scene = _scene(settings)
    writer = writer or settings.train.reward.config.writer(settings.train.words, scene)
    try:
        return _Search(settings, folder, scene, writer, console).run()
    finally:
        if own:
            writer.close()


def candidate_id(source: str) -> str:
    """Return the name of a program."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def survivors(scores: dict[str, Score]) -> list[str]:
    """Return the better half of a heat, rounded up, best first; of equals, the one that came first."""
    order = sorted(scores, key=lambda name: scores[name], reverse=True)  # stable
    return order[: math.ceil(len(order) / 2)]


def _scene(settings: SearchConfig) -> ProgramScene:
    run = settings.train
    env = EnvSettings(run.env.id, run.make_task(), max_episode_steps=run.env.max_episode_steps, kwargs=run.env.kwargs)
    return ProgramScene(env, open_desk(run, "cpu", Path(settings.run_dir, "answers.sqlite")))


class _Search:
    """The state of a search; all of it can be had again from its folder."""

    def __init__(
        self, settings: SearchConfig, folder: RunFolder, scene: ProgramScene, writer: Writer, console: Console
    ):
        self._settings, self._folder, self._scene, self._writer, self._console = (
            settings,
            folder,
            scene,
            writer,
            console,
        )
        self._reward = settings.train.reward.config
        self._states, self._actions = scene.record(STATES)
        self._recorded: Recorded | None = None
        if settings.screen_episodes:
            self._recorded = record_episodes(scene.env, settings.screen_episodes, SCREEN_STEPS, SCREEN_SEED)
        self._known: dict[str, Candidate] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._final: dict[str, Score] = {}  # of those that were trained to the end

    def run(self) -> dict[str, Any]:
        words = self._settings.train.words
        assert words is not None
        shots = examples(self._scene.abstraction, words, self._reward.shots)
        first = opening(self._scene.abstraction, words, self._scene.episode, shots)
        question: tuple[Message, ...] = first
        for number in range(self._settings.rounds):
            self._round(number, question)
            if self._final:
                best = self._known[self._best()]
                run = self._place(best, self._settings.train.total_timesteps, self._settings.selection_seeds[0])
                told = reflection(read_trace(run / "progress.csv"))
                run.joinpath("reflection.txt").write_text(told + "\n")
                # As in Eureka, only the best so far is remembered: a longer conversation costs more than it says.
                question = (*first, Message("assistant", (best.answer,)), Message("user", (told,)))
        return self._report()

    def _round(self, number: int, question: Sequence[Message]) -> None:
        fresh = self._write(number, question)
        self._console.print(f"round {number + 1}: {len(fresh)} new programs to train with", highlight=False)
        train = self._settings.train
        heat = max(1, round(self._settings.first_heat * train.total_timesteps))
        going = fresh
        if len(fresh) > 1 and heat < train.total_timesteps:
            scores = {entry.id: self._score(entry, heat, self._settings.selection_seeds) for entry in fresh}
            for name, score in scores.items():
                self._notes[name]["first_heat"] = score
            going = [self._known[name] for name in survivors(scores)]
        for entry in going:
            self._final[entry.id] = self._score(entry, train.total_timesteps, self._settings.selection_seeds)
            self._notes[entry.id]["selection"] = self._final[entry.id]

    def _write(self, number: int, question: Sequence[Message]) -> list[Candidate]:
        """Return the programs of a round that are new and worth training with."""
        fresh = []
        for k in range(self._settings.samples):
            seed = self._reward.sample + number * self._settings.samples + k
            reward = self._reward
            try:
                attempts = generate(
                    self._writer, question, self._check, reward.rounds, reward.temperature, reward.max_tokens, seed
                )
            except NoProgram as error:
                self._console.print(f"round {number + 1}, sample {k + 1}: {error}", highlight=False, markup=False)
                continue
            entry = Candidate(candidate_id(attempts[-1].source), attempts[-1].source, attempts[-1].answer, number)
            if entry.id in self._known:
                continue
            self._known[entry.id] = entry
            self._notes[entry.id] = {"round": number + 1, "sample": k + 1}
            reason = self._screen(entry)
            if reason:
                self._notes[entry.id]["rejected"] = reason
                self._console.print(f"{entry.id} is not trained with: {reason}", highlight=False)
            else:
                fresh.append(entry)
        return fresh

    def _check(self, source: str) -> Checked:
        reward = self._reward
        return check(source, self._scene.abstraction, self._states, self._actions, reward.confinement, reward.timeout_s)

    def _screen(self, entry: Candidate) -> str:
        if self._recorded is None:
            return ""
        reward = self._reward
        try:
            with ConfinedProgram(
                entry.source, self._scene.abstraction, reward.confinement, reward.timeout_s
            ) as program:
                return screen(program, self._recorded).reason
        except ProgramError as error:
            return f"it fails on a recorded state: {error}"

    def _score(self, entry: Candidate, steps: int, seeds: Sequence[int]) -> Score:
        results = [self._train(entry, steps, seed)["policies"]["trained"] for seed in seeds]
        return (
            sum(result["fraction"]["mean"] for result in results) / len(results),
            sum(result["truth"]["mean"] for result in results) / len(results),
        )

    def _place(self, entry: Candidate, steps: int, seed: int) -> Path:
        return self._folder.path / "runs" / entry.id / f"{steps}-{seed}"

    def _train(self, entry: Candidate, steps: int, seed: int) -> dict[str, Any]:
        """Return the result of a run, which is done if it has not been; one that was cut off is done anew."""
        run = RunFolder(self._place(entry, steps, seed))
        if not run.result.is_file():
            if run.path.exists():
                shutil.rmtree(run.path)
            reward = Choice(self._settings.train.reward.name, replace(self._reward, program=entry.source))
            train(
                replace(
                    self._settings.train,
                    reward=reward,
                    seed=seed,
                    total_timesteps=steps,
                    run_dir=str(run.path),
                    resume=None,
                    video=False,
                    audit=False,
                )
            )
        return json.loads(run.result.read_text())

    def _best(self) -> str:
        return max(self._final, key=lambda name: self._final[name])  # the first of equals

    def _report(self) -> dict[str, Any]:
        if not self._final:
            raise UserError(
                f"No program was worth training with; {shown(self._folder.path)} has none to report. Ask for more: "
                "samples, rounds, reward.rounds; or look at what the screening says; screen_episodes=0 skips it."
            )
        best = self._known[self._best()]
        first = self._known[next(iter(self._final))]
        steps, seeds = self._settings.train.total_timesteps, self._settings.report_seeds
        reported = {entry.id: self._score(entry, steps, seeds) for entry in (best, first)}
        result = {
            "best": best.id,
            "first": first.id,
            "selection_seeds": list(self._settings.selection_seeds),
            "report_seeds": list(seeds),
            "reported": reported,
            "candidates": self._notes,
        }
        self._folder.write({"program.py": best.source})
        self._folder.result.write_text(json.dumps(result, indent=2) + "\n")
        self._console.print(_table(self._notes, reported))
        self._console.print(f"best program: {shown(self._folder.path / 'program.py')}", soft_wrap=True)
        return json.loads(self._folder.result.read_text())


def _table(notes: dict[str, dict[str, Any]], reported: dict[str, Score]) -> Table:
    table = Table(title="share of steps at which the task is done", box=box.SIMPLE_HEAD)
    for name in ("program", "round", "first heat", "selection seeds", "report seeds"):
        table.add_column(name)
    cell: Callable[[Any], str] = lambda score: f"{score[0]:.1%}" if score is not None else ""  # noqa: E731
    for name, note in notes.items():
        chosen = "screened out" if "rejected" in note else cell(note.get("selection"))
        table.add_row(name, str(note["round"]), cell(note.get("first_heat")), chosen, cell(reported.get(name)))
    return table
