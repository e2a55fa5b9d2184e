"""The best and the worst of several clips, by comparisons of two that a judge answers, or a person at the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console

from vlmrl.errors import UserError
from vlmrl.judges.base import Comparison, Verdict
from vlmrl.judges.desk import Desk
from vlmrl.workflows.search.clips import Clip

POLL = 1.0  # s between looks for what people have answered

# Says of pairs of numbers for each which of the two is better.
Better = Callable[[Sequence[tuple[int, int]]], list[int]]


def best_and_worst(n: int, better: Better) -> tuple[int, int]:
    """Return the best and the worst of n things.

    Each is compared with one other; then those that won with each other, and those that lost, until one of both is
    left: about 3 n / 2 comparisons instead of the n (n - 1) / 2 of all pairs. Those of a level are asked together, so
    that a person finds several at once.

    Args:
        n: Number of things, at least 1; they are numbered from 0 on.
        better: Compares.
    """
    pairs = [(i, i + 1) for i in range(0, n - 1, 2)]
    winners = better(pairs)
    losers = [first + second - winner for (first, second), winner in zip(pairs, winners, strict=True)]
    alone = [n - 1] if n % 2 else []  # may be either
    best = _last([*winners, *alone], better)
    worst = _last([*losers, *(entry for entry in alone if entry != best)], _other(better))
    return best, worst if losers else best


def _last(entries: list[int], better: Better) -> int:
    """Return the one that is left when the winners of pairs are compared again and again."""
    while len(entries) > 1:
        pairs = [(min(pair), max(pair)) for pair in zip(entries[::2], entries[1::2], strict=False)]
        entries = [*better(pairs), *entries[2 * len(pairs) :]]
    return entries[0] if entries else 0


def _other(better: Better) -> Better:
    """Return the comparison that says which is worse."""
    return lambda pairs: [a + b - one for (a, b), one in zip(pairs, better(pairs), strict=True)]


class Rater:
    """Compares clips through a desk, and waits where people answer.

    Args:
        desk: Of a judge that compares.
        goal: What the clips should show.
        console: Is told that people are waited for.
        page: The command that opens the page.

    Attributes:
        asked: Comparisons so far.
    """

    def __init__(self, desk: Desk, goal: str, console: Console, page: str):
        self.name = desk.judge.name
        self.asked = 0
        self._desk, self._goal, self._console, self._page = desk, goal, console, page

    def best_and_worst(self, clips: Sequence[Clip]) -> tuple[int, int]:
        """Return the places of the best and the worst of at least one clip.

        Where two are called equal, or no answer is given, the earlier one counts as the better.

        Raises:
            UserError: A comparison has no answer: its budget is spent, or the endpoint gives none.
        """

        def better(pairs: Sequence[tuple[int, int]]) -> list[int]:
            questions = [self._question(clips[first], clips[second]) for first, second in pairs]
            verdicts = self._answers(questions)
            return [pair[verdict == "right"] for pair, verdict in zip(pairs, verdicts, strict=True)]

        return best_and_worst(len(clips), better)

    def close(self) -> None:
        """Close the desk."""
        self._desk.close()

    def _question(self, left: Clip, right: Clip) -> Comparison:
        return Comparison(self._goal, left.frames, right.frames, left.truth, right.truth)

    def _answers(self, questions: Sequence[Comparison]) -> list[Verdict | None]:
        if not questions:
            return []
        self.asked += len(questions)
        keys = self._desk.submit(questions)
        answers = dict(self._desk.collect())
        waited = False
        while missing := [key for key in keys if key not in answers]:
            if not waited:
                waited = True
                self._console.print(f"{len(missing)} comparisons wait for an answer; people give theirs at the page:")
                self._console.print(self._page, soft_wrap=True, highlight=False, markup=False)
            time.sleep(POLL)
            self._desk.submit([])  # those that an endpoint could not answer are asked anew
            answers |= dict(self._desk.collect())
        failed = [question for key, question in zip(keys, questions, strict=True) if answers[key].is_error]
        if failed:
            self._desk.forget_failures(failed)  # a search that goes on may ask as often again
            error = next(answers[key].error for key in keys if answers[key].is_error)
            raise UserError(f"judge={self.name} gave no answer to {len(failed)} of {len(keys)} comparisons: {error}.")
        return [answers[key].verdict for key in keys]
