"""A reward that is a program, written by a language model from the task's words: Text2Reward (Xie et al., ICLR 2024).

The program is checked on recorded states before anything learns from it, and runs in a process that can compute and do
nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np

from vlmrl.errors import UserError
from vlmrl.judges.desk import Desk
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.limits import CPU_SECONDS
from vlmrl.reward_models.confinement.process import ROWS, ConfinedProgram, Level, ProgramError, Result, check_level
from vlmrl.reward_models.programs.answers import DeskWriter, RecordedWriter, Writer, code_in, examples, recordings
from vlmrl.reward_models.programs.contract import STATES, Checked, check, found
from vlmrl.reward_models.programs.generate import Attempt, generate
from vlmrl.reward_models.programs.grammar import quantities_read
from vlmrl.reward_models.programs.prompt import opening, text
from vlmrl.rows import Row, Rows
from vlmrl.typed import Count, Natural, Positive, Range

Begun = tuple[int, int]  # number of a call, and of a row in it


class Scene(Protocol):
    """What a program is written for and tried on.

    Attributes:
        abstraction: What programs read of the environment.
        episode: A sentence or two on how its episodes start and how long they are.
        desk: Opens the desk of the run's judge; None where there is no judge.
    """

    @property
    def abstraction(self) -> Abstraction: ...  # noqa: D102

    @property
    def episode(self) -> str: ...  # noqa: D102

    @property
    def desk(self) -> Callable[[], Desk] | None: ...  # noqa: D102

    def record(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return n states (n, size) and the actions that led to them (n, A), float64."""
        ...


class ProgramReward:
    """Rewards rows with a program.

    Args:
        config: Settings with which the same model is built again: the program is in them.
        abstraction: What it could read.
        attempts: How the program came about; empty where it was given.
        checked: What the checks found.
        writer: Where the program comes from.

    Attributes:
        config: See above.
        quantities: What the program reads; see `QuantityReadingModel`.
        files: {name: text}, what a run writes down beside its settings.
        summary: What a person is told at start.
    """

    needs = frozenset({"quantities", "action"})
    context = 0
    retains: frozenset[str] = frozenset()
    requires_sync = False
    delay = 1  # a vector step takes far longer than a call, and a call in which nobody waits costs next to nothing

    def __init__(
        self,
        config: Text2RewardConfig,
        abstraction: Abstraction,
        attempts: Sequence[Attempt],
        checked: Checked,
        writer: str,
    ):
        assert config.program is not None
        self.config, self.source = config, config.program
        self.quantities = quantities_read(self.source, abstraction)
        self.abstraction, _ = abstraction.narrowed(self.quantities)
        self.files = {
            "program.py": self.source,
            "program.json": json.dumps(
                {
                    "sha256": hashlib.sha256(self.source.encode()).hexdigest(),
                    "from": writer,
                    "confinement": config.confinement,
                    "components": list(checked.components),
                    "microseconds_a_call": round(checked.microseconds, 1),
                    "rounds": [
                        {"answer": attempt.answer, "findings": [str(finding) for finding in attempt.checked.findings]}
                        for attempt in attempts
                    ],
                },
                indent=2,
            )
            + "\n",
        }
        self.summary = (
            f"reward program: {' + '.join(checked.components)}, from {writer}; checked on {STATES} states, "
            f"confinement {config.confinement}"
        )
        self._sums: dict[str, float] = {}
        self._count = 0
        # Of calls that were collected, by their numbers: rewards, and how many of them nobody has taken yet.
        self._rewards: dict[int, np.ndarray] = {}
        self._unread: dict[int, int] = {}

    @cached_property
    def program(self) -> ConfinedProgram:
        """The confined process, started when it is first needed."""
        config = self.config
        return ConfinedProgram(self.source, self.abstraction, config.confinement, config.timeout_s, config.cpu_limit_s)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return the rewards, (n,) float32.

        Raises:
            UserError: The program fails now, though it passed its checks.
        """
        actions = rows["action"].reshape(len(rows), -1).astype(np.float64)
        with self._explained():
            return self._noted(self.program(rows["quantities"], actions))

    def start(self, rows: Sequence[Row]) -> list[Begun]:
        """Have the program reward rows while others go on, in one call; see `BackgroundRewardModel`.

        Raises:
            UserError: See `__call__`.
        """
        acted = next((row.action for row in rows if row.action is not None), None)
        nothing = np.zeros_like(acted) if acted is not None else np.zeros(len(self.abstraction.action))
        states = np.array([row.quantities for row in rows])
        actions = np.array([nothing if row.action is None else row.action for row in rows], dtype=np.float64)
        actions = actions.reshape(len(rows), -1)
        begun: list[Begun] = []
        with self._explained():
            for first in range(0, len(rows), ROWS):
                part = slice(first, first + ROWS)
                number = self.program.submit(states[part], actions[part])
                begun += [(number, i) for i in range(len(states[part]))]
        return begun

    def finish(self, begun: Sequence[Begun]) -> np.ndarray:
        """Return the rewards of rows that were begun, (n,) float32.

        Raises:
            UserError: See `__call__`.
        """
        for number in dict.fromkeys(number for number, _ in begun):
            if number not in self._rewards:
                with self._explained():
                    rewards = self._noted(self.program.collect(number))
                self._rewards[number], self._unread[number] = rewards, len(rewards)
        found = np.array([self._rewards[number][i] for number, i in begun], dtype=np.float32)
        for number, _ in begun:
            self._unread[number] -= 1
            if not self._unread[number]:
                del self._rewards[number], self._unread[number]
        return found

    def _noted(self, result: Result) -> np.ndarray:
        """Return the totals of a call, (n,) float32, and count its components."""
        total, components = result
        self._count += len(total)
        for name, values in components.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.sum())
        return total.astype(np.float32)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ProgramError as error:
            if error.kind == "cpu_limit":
                raise UserError(
                    f"The reward program was ended: {error} (reward.cpu_limit_s). Training that goes on from its "
                    "last checkpoint, resume=<run>, gives it as much again; a run that needs more, from its start on, "
                    "a larger limit."
                ) from error
            raise UserError(
                f"The reward program failed on a state that it was not tried on: {found(error, self.source)}\nIts text "
                "is in program.py of the run's folder, and what was learned so far is saved. Put it right and start "
                "anew with reward.program=<file.py>."
            ) from error

    def pop_stats(self) -> dict[str, float]:
        """Return the mean of each component since the last call; empty where nothing was rewarded."""
        sums, count = self._sums, self._count
        self._sums, self._count = {}, 0
        return {f"component_{name}": value / count for name, value in sums.items()}

    def close(self) -> None:
        """End the process."""
        if "program" in self.__dict__:
            self.program.close()
            del self.__dict__["program"]


@dataclass(frozen=True)
class Text2RewardConfig:
    """Settings of `reward=text2reward`.

    Attributes:
        program: A program to use, a file or the text itself; None has one written.
        completions: "recorded": answers that come with the suite; "judge": the run's judge is asked.
        shots: Programs for other tasks that a judge is shown.
        rounds: How often a judge is asked, each time with what was wrong before.
        temperature: Of the judge's sampling.
        max_tokens: Length at which an answer is cut off.
        sample: Seed of the sampling; another one gives another program.
        confinement: How the program is confined; see `Level`.
        timeout_s: Seconds that a call of the program may take; then it is killed and the run ends.
        cpu_limit_s: Seconds of processor time that all its calls together may take until the run is stopped or
            resumed; not with confinement "none".
    """

    program: str | None = None
    completions: Literal["recorded", "judge"] = "recorded"
    shots: Natural = 0
    rounds: Count = 3
    temperature: Annotated[float, Range(0, 2)] = 0.0
    max_tokens: Count = 4096
    sample: Natural = 0
    confinement: Level = "full"
    timeout_s: Positive = 5.0
    cpu_limit_s: Count = CPU_SECONDS

    uses_encoder: ClassVar[bool] = False
    uses_scene: ClassVar[bool] = True

    @property
    def uses_words(self) -> bool:
        """Whether the words of the task matter: not to a program that is there already."""
        return self.program is None

    def build(self, words: Words, encoder: None, scene: Scene) -> ProgramReward:
        """Have a program written, if none is given, and check it.

        Raises:
            UserError: There is no way to a program that passes, or it cannot be confined like that here.
        """
        check_level(self.confinement)
        abstraction = scene.abstraction
        states, actions = scene.record(STATES)

        def checked(source: str) -> Checked:
            return check(source, abstraction, states, actions, self.confinement, self.timeout_s)

        if self.program is not None:
            source, where = _given(self.program)
            result = checked(source)
            if result.findings:
                listed = "\n".join(f"  {finding}" for finding in result.findings)
                raise UserError(f"The reward program {where} cannot be used:\n{listed}")
            return ProgramReward(replace(self, program=source), abstraction, (), result, where)
        writer = self.writer(words, scene)
        question = opening(abstraction, words, scene.episode, examples(abstraction, words, self.shots))
        try:
            attempts = generate(writer, question, checked, self.rounds, self.temperature, self.max_tokens, self.sample)
        finally:
            writer.close()
        settled = replace(self, program=attempts[-1].source)
        return ProgramReward(settled, abstraction, attempts, attempts[-1].checked, writer.name)

    def foretold(self, env: str, words: Words) -> str | None:
        """Return the text of the program that these settings come to, where that is known before one is written.

        Args:
            env: Name of the environment's configuration.
            words: The task.

        Raises:
            UserError: There is no such file.
        """
        if self.program is not None:
            return _given(self.program)[0]
        if self.completions != "recorded":
            return None
        fitting = (entry for entry in recordings() if (entry.env, entry.goal) == (env, words.goal))
        return next((code_in(entry.answer) for entry in fitting), None)

    def writer(self, words: Words, scene: Scene) -> Writer:
        """Return who writes programs.

        Raises:
            UserError: Nobody does.
        """
        if self.completions == "judge":
            if scene.desk is None:
                raise UserError(
                    "reward.completions=judge asks a judge, and this command has none. Where it takes one: "
                    "judge=openai. Else name what was written in training: reward.program=<run folder>/program.py."
                )
            return DeskWriter(scene.desk())
        if self.shots:
            raise UserError(
                "reward.shots shows a model programs for other tasks, and recorded answers were given without any. Use "
                "reward.completions=judge, or reward.shots=0."
            )
        return RecordedWriter(abstraction=scene.abstraction, words=words)


def prompt_digest(abstraction: Abstraction, words: Words, episode: str) -> str:
    """Return the SHA-256, hex, of the words of the first question without examples; line breaks do not count."""
    words_only = " ".join(text(opening(abstraction, words, episode)).split())
    return hashlib.sha256(words_only.encode()).hexdigest()


def _given(program: str) -> tuple[str, str]:
    """Return a program that settings hold, its text or the file that it is in, and what to call it."""
    if "\n" in program:
        return program, "of the settings"
    path = Path(program)
    if not path.is_file():
        raise UserError(f"reward.program: there is no file '{program}'.")
    return path.read_text(encoding="utf-8"), f"'{program}'"
