"""From a task in words to a program that has passed its checks: ask, check, tell what was wrong, ask again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmrl.errors import UserError
from vlmrl.judges.base import Message, TextQuestion
from vlmrl.reward_models.programs.answers import Unusable, Writer, code_in
from vlmrl.reward_models.programs.contract import Checked
from vlmrl.reward_models.programs.prompt import correction


class NoProgram(UserError):
    """No answer held a program that passes."""


@dataclass(frozen=True)
class Attempt:
    """One answer and what was found.

    Attributes:
        answer: As it was given.
        source: The program in it; empty if there is none.
        checked: What the checks found.
    """

    answer: str
    source: str
    checked: Checked


def generate(
    writer: Writer,
    opening: Sequence[Message],
    check: Callable[[str], Checked],
    rounds: int,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> list[Attempt]:
    """Ask for a program until one passes.

    Args:
        writer: Answers.
        opening: The first question.
        check: Checks a program.
        rounds: How often it is asked, the first time included.
        temperature: Of the sampling.
        max_tokens: Length at which an answer is cut off.
        seed: Of the sampling; tells samples of one question apart.

    Returns:
        The attempts; the last one passes.

    Raises:
        NoProgram: None did.
        UserError: There is no answer.
    """
    messages = tuple(opening)
    attempts: list[Attempt] = []
    for _ in range(rounds):
        question = TextQuestion(messages, temperature=temperature, max_tokens=max_tokens, seed=seed)
        (answer, *_) = writer.write(question)
        attempt = attempted(answer, check)
        attempts.append(attempt)
        if not attempt.checked.findings:
            return attempts
        if not writer.corrects:
            break
        messages = (*messages, Message("assistant", (answer,)), correction(attempt.checked.findings))
    last = "\n".join(f"  {finding}" for finding in attempts[-1].checked.findings)
    raise NoProgram(
        f"No reward program ({writer.name}) passes its checks, after {len(attempts)} of {rounds} rounds. What was "
        f"wrong with the last one:\n{last}\nMore rounds: reward.rounds; another sample: reward.sample; another writer: "
        "reward.completions=judge; a program of your own: reward.program=<file.py>."
    )


def attempted(answer: str, check: Callable[[str], Checked]) -> Attempt:
    """Take the program out of an answer and check it."""
    try:
        source = code_in(answer)
    except Unusable as error:
        return Attempt(answer, "", Checked((error.finding,)))
    return Attempt(answer, source, check(source))
