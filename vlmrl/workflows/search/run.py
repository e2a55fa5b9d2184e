"""Rounds of programs: write, screen, train, choose, reflect, and write again; then report with other seeds.

As Eureka (Ma et al., ICLR 2024) goes, and ICPL (Yu et al. 2024) where somebody looks at films (`selection`). Nothing is
kept in memory that could not be had again: answers come from the answer store by the question, results and clips from
the folders of their runs. So a search that was killed goes on by doing again what takes no time, and ends as it would
have.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vlmrl.envs.make import EnvSettings
from vlmrl.envs.program_scene import ProgramScene
from vlmrl.errors import UserError
from vlmrl.judges.base import Comparison, Judge, Message
from vlmrl.reward_models.confinement.process import ConfinedProgram, ProgramError
from vlmrl.reward_models.programs.answers import Writer, examples
from vlmrl.reward_models.programs.contract import STATES, Checked, check
from vlmrl.reward_models.programs.generate import NoProgram, generate
from vlmrl.reward_models.programs.prompt import opening
from vlmrl.workflows.build import open_desk, resolve_device
from vlmrl.workflows.config.scene import NO_TASK, Choice
from vlmrl.workflows.config.search import SearchConfig
from vlmrl.workflows.report import figures_table, make_console, python_command, shown
from vlmrl.workflows.run_folder import RunFolder, create
from vlmrl.workflows.search.clips import Clip, film
from vlmrl.workflows.search.preferences import Rater
from vlmrl.workflows.search.screening import Recorded, record_episodes, screen
from vlmrl.workflows.search.selection import ByClips, BySuccess, Candidate, Score, Selection
from vlmrl.workflows.train import train
from vlmrl.workflows.training import EVAL_SEED

SCREEN_STEPS = 200  # steps of a recorded episode, at most
SCREEN_SEED = 2_000_000  # of the recorded episodes; no run uses it
CLIP = "clip.npz"  # in the folder of a run that was filmed


def search(settings: SearchConfig, writer: Writer | None = None) -> dict[str, Any]:
    """Look for a better program.

    Args:
        settings: What to do; `run_dir` is the folder of the search.
        writer: Writes the programs; None takes what the settings say.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: No program passes, nobody writes one, or nobody compares clips who was to.
    """
    console = make_console()
    scene = _scene(settings)
    own = writer is None
    # Both judges before either's answer store, which lies in the folder of the search: what fails here leaves none.
    judge = _comparing_judge(settings)
    writer = writer or settings.train.reward.config.writer(settings.train.words, scene)
    try:
        rater = _rater(settings, judge, console)
        try:
            folder = (
                RunFolder(Path(settings.run_dir)) if settings.train.resume else create(Path(settings.run_dir), settings)
            )
            return _Search(settings, folder, scene, writer, rater, console).run()
        finally:
            if rater is not None:
                rater.close()
    finally:
        if own:
            writer.close()


def candidate_id(source: str) -> str:
    """Return the name of a program."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _scene(settings: SearchConfig) -> ProgramScene:
    run = settings.train
    env = EnvSettings(run.env.id, run.make_task(), max_episode_steps=run.env.max_episode_steps, kwargs=run.env.kwargs)
    return ProgramScene(env, open_desk(run, "cpu", Path(settings.run_dir, "answers.sqlite")))


def _comparing_judge(settings: SearchConfig) -> Judge | None:
    """Make the judge that looks at films; None where the task's check decides.

    Raises:
        UserError: It cannot be had, or does not compare clips.
    """
    if settings.feedback == "success":
        return None
    assert settings.rater is not None
    run, config = settings.train, settings.rater.config
    device = resolve_device(run.device)
    judge = config.build(run.encoder.config.build(device) if config.uses_encoder else None, device)
    if Comparison.kind not in judge.kinds:
        raise UserError(f"judge@rater={judge.name} does not compare clips. Use judge@rater=human, openai or encoder.")
    return judge


def _rater(settings: SearchConfig, judge: Judge | None, console: Console) -> Rater | None:
    """Return who asks this judge; None without one."""
    if judge is None:
        return None
    assert settings.rater is not None
    desk = settings.rater.config.desk_of(judge, Path(settings.run_dir, "answers.sqlite"))
    return Rater(desk, settings.train.make_task().goal, console, _command("label", "run", settings))


def _command(module: str, key: str, settings: SearchConfig) -> str:
    """Return a command that is given the folder of the search."""
    return f"{python_command()} -m vlmrl.{module} {key}={shlex.quote(shown(Path(settings.run_dir)))}"


class _Search:
    """The state of a search; all of it can be had again from its folder."""

    def __init__(
        self,
        settings: SearchConfig,
        folder: RunFolder,
        scene: ProgramScene,
        writer: Writer,
        rater: Rater | None,
        console: Console,
    ):
        self._settings, self._folder, self._scene = settings, folder, scene
        self._writer, self._console = writer, console
        self._reward = settings.train.reward.config
        self._states, self._actions = scene.record(STATES)
        self._recorded: Recorded | None = None
        if settings.screen_episodes and rater is None:  # the screening reads the task's truth
            self._recorded = record_episodes(scene.env, settings.screen_episodes, SCREEN_STEPS, SCREEN_SEED)
        self._known: dict[str, Candidate] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._selection: Selection = BySuccess(self, settings.first_heat) if rater is None else ByClips(self, rater)

    def run(self) -> dict[str, Any]:
        """Go through the rounds and report.

        Raises:
            UserError: Something ended a round, which `resume` then goes on with, or there is nothing to report.
        """
        try:
            self._rounds()
        except UserError as error:
            raise UserError(
                f"{error}\nNothing is lost: what was answered and trained is kept. When this is put right, go on from "
                f"there: {_command('search', 'resume', self._settings)}"
            ) from error
        return self._report()

    def _rounds(self) -> None:
        words = self._settings.train.words
        assert words is not None
        shots = examples(self._scene.abstraction, words, self._reward.shots)
        first = opening(self._scene.abstraction, words, self._scene.episode, shots)
        question: tuple[Message, ...] = first
        for number in range(self._settings.rounds):
            fresh = self._write(number, question)
            self._console.print(f"round {number + 1}: {len(fresh)} new programs to train with", highlight=False)
            self._selection.choose(fresh)
            if self._selection.best is not None:
                told = self._selection.told()
                self.log(self._selection.best).with_name("reflection.txt").write_text(told + "\n")
                # As in Eureka, only the best so far is remembered: a longer conversation costs more than it says.
                question = (*first, Message("assistant", (self._selection.best.answer,)), Message("user", (told,)))

    def score(self, entry: Candidate, share: float) -> Score:
        """See `Trials.score`."""
        return self._score(entry, self._steps(share), self._settings.selection_seeds)

    def clip(self, entry: Candidate) -> Clip:
        """See `Trials.clip`."""
        run = self._settings.train
        self._train(entry, run.total_timesteps, self._settings.selection_seeds[0])
        path = self.log(entry).with_name(CLIP)
        if not path.is_file():
            policy = run.agent.config.algorithm().load(path.with_name("model.zip"), device="cpu")
            film(
                policy, self._scene.env, run.seed + EVAL_SEED, self._settings.clip_size, self._settings.clip_frames
            ).save(path)
        return Clip.load(path)

    def log(self, entry: Candidate) -> Path:
        """See `Trials.log`."""
        place = self._place(entry, self._settings.train.total_timesteps, self._settings.selection_seeds[0])
        return place / "progress.csv"

    def _steps(self, share: float) -> int:
        return max(1, round(share * self._settings.train.total_timesteps))

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

    def _report(self) -> dict[str, Any]:
        best, first = self._selection.best, self._selection.first
        if best is None or first is None:
            raise UserError(
                f"No program was worth training with; {shown(self._folder.path)} has none to report. Ask for more: "
                "samples, rounds, reward.rounds; or look at what the screening says; screen_episodes=0 skips it."
            )
        for name, note in self._selection.notes.items():
            self._notes[name] |= note
        steps, seeds = self._settings.train.total_timesteps, self._settings.report_seeds
        reported: dict[str, Score] = {}
        if self._settings.train.task.name != NO_TASK:  # else nothing but the films says how well it went
            reported = {entry.id: self._score(entry, steps, seeds) for entry in (best, first)}
        result = {
            "best": best.id,
            "first": first.id,
            "chosen": self._selection.summary(),
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
    headers = ("round", "first heat", "chosen by", "report seeds")
    table = figures_table("share of steps at which the task is done", "program", *headers)
    for name, note in notes.items():
        liked = {"best": "liked best", "worst": "liked least"}.get(note.get("liked", ""), "")
        chosen = "screened out" if "rejected" in note else liked or _cell(note.get("selection"))
        table.add_row(name, str(note["round"]), _cell(note.get("first_heat")), chosen, _cell(reported.get(name)))
    return table


def _cell(score: Sequence[float] | None) -> str:
    return f"{score[0]:.1%}" if score is not None else ""
