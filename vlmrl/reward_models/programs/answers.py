"""Where answers come from: recordings that ship with the suite, or a judge that is asked; and the code in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlmrl.errors import UserError
from vlmrl.judges.base import TextQuestion
from vlmrl.judges.desk import Desk
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.worker import FUNCTION
from vlmrl.reward_models.programs.grammar import Finding
from vlmrl.reward_models.programs.prompt import Example

RECORDED = Path(__file__).with_name("recorded")


class Unusable(Exception):
    """An answer holds no program.

    Attributes:
        finding: Why.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.finding = Finding(message)


class NoRecording(UserError):
    """No answer was recorded for these words in this environment."""


class Writer(Protocol):
    """Answers a question with texts.

    Attributes:
        name: Where its answers come from.
        corrects: Whether it can be told what was wrong, and answer again.
    """

    name: str
    corrects: bool

    def write(self, question: TextQuestion) -> list[str]:
        """Return `question.n` answers, or fewer.

        Raises:
            UserError: There is none.
        """
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...


class DeskWriter:
    """Asks a judge, through its answer store and within its budget.

    Args:
        desk: The judge's desk.
    """

    corrects = True

    def __init__(self, desk: Desk):
        self._desk = desk
        self.name = f"judge={desk.judge.name}"

    def write(self, question: TextQuestion) -> list[str]:
        """See `Writer`."""
        (answer,) = self._desk.ask([question])
        if answer.is_error:
            self._desk.forget_failures([question])  # the command ends here; the next one may ask as often again
            raise UserError(
                f"{self.name} wrote no reward program: {answer.error}. What was answered before is in the answer store "
                "and is not asked again; reward.completions=recorded takes the programs that come with the suite."
            )
        return list(answer.texts)

    def close(self) -> None:
        """Close the desk."""
        self._desk.close()


@dataclass(frozen=True)
class Recording:
    """An answer of a language model that was written down.

    Attributes:
        env: Name of the environment's configuration, such as "humanoid".
        task: Name of the task.
        goal: The words that the answer is to.
        signature: `Abstraction.signature` of the environment.
        prompt: SHA-256, hex, of the words of the prompt.
        file: The answer, a file in the same folder.
    """

    env: str
    task: str
    goal: tuple[str, ...]
    signature: str
    prompt: str
    file: str

    @property
    def answer(self) -> str:
        """The answer, as it was given."""
        return RECORDED.joinpath(self.file).read_text(encoding="utf-8")


def recordings() -> Iterator[Recording]:
    """Yield the recordings that ship with the suite."""
    for entry in json.loads(RECORDED.joinpath("index.json").read_text(encoding="utf-8")):
        yield Recording(**{**entry, "goal": tuple(entry["goal"])})


class RecordedWriter:
    """Answers from the recordings, by the words of the task and what can be read of the environment.

    Args:
        abstraction: The environment.
        words: The task.

    Raises:
        NoRecording: There is none; found before anything is asked.
    """

    name = "recorded"
    corrects = False

    def __init__(self, abstraction: Abstraction, words: Words):
        known = [entry for entry in recordings() if entry.signature == abstraction.signature]
        self._found = [entry for entry in known if entry.goal == words.goal]
        if not self._found:
            there = "; ".join(f"'{'; '.join(entry.goal)}'" for entry in known) or "none"
            raise NoRecording(
                f"No reward program was recorded for '{'; '.join(words.goal)}' in {abstraction.name} (recorded for "
                f"this environment: {there}). Either have one written: reward.completions=judge judge=openai "
                "judge.base_url=<an OpenAI-compatible endpoint> judge.model=<its model>; or give one of your own: "
                "reward.program=<file.py>."
            )

    @property
    def recording(self) -> Recording:
        """The recording."""
        return self._found[0]

    def write(self, question: TextQuestion) -> list[str]:
        """See `Writer`."""
        return [entry.answer for entry in self._found][: question.n]

    def close(self) -> None:
        """Nothing is open."""


def examples(abstraction: Abstraction, words: Words, n: int) -> list[Example]:
    """Return recorded programs for other tasks, those of the same environment first; never one for these words.

    Args:
        abstraction: The environment in question.
        words: The task in question.
        n: How many, at most.
    """
    others = [entry for entry in recordings() if entry.goal != words.goal]
    others.sort(key=lambda entry: entry.signature != abstraction.signature)  # stable: else in the order of the index
    return [Example(entry.env, "; ".join(entry.goal), code_in(entry.answer)) for entry in others[:n]]


def code_in(answer: str) -> str:
    """Return the program in an answer: its last block of code with the function in it.

    Raises:
        Unusable: There is none, or it is cut off.
    """
    blocks = re.findall(r"```[\w+-]*[ \t]*\r?\n(.*?)```", answer, flags=re.DOTALL)
    fitting = [block for block in blocks if f"def {FUNCTION}" in block]
    if fitting:
        return fitting[-1].replace("\r\n", "\n")
    if answer.count("```") % 2 and f"def {FUNCTION}" in answer.rpartition("```")[2]:
        raise Unusable("the answer ends in the middle of the program; write less before it, and all of it")
    if not blocks and answer.lstrip().startswith(("def ", "import ", "from ")):
        return answer
    raise Unusable(f"the answer holds no block of Python with a function {FUNCTION}")
