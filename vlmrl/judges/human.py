"""People, at the page of `vlmrl.label`: questions go into the answer store, answers come out of it when they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.judges.base import Calls, Comparison, Question, Verdict, Waiting
from vlmrl.judges.settings import JudgeSettings
from vlmrl.typed import Count, Positive, Share


@dataclass(frozen=True, kw_only=True)
class PeopleSettings(JudgeSettings):
    """What judges share that put questions to people.

    Attributes:
        raters: People that answer each question; more than half must say the same.
        gold_gap: Comparisons whose ground truth, where it is known, differs by at least this in mean reward a step are
            control questions; None makes none.
        min_gold_accuracy: Share of control questions that a person must get right, after five of them, to be counted.
    """

    raters: Count = 1
    gold_gap: Positive | None = None
    min_gold_accuracy: Share = 0.0

    @property
    def gold_accuracy(self) -> float:
        """See `JudgeSettings.gold_accuracy`."""
        return self.min_gold_accuracy


@dataclass(frozen=True, kw_only=True)
class HumanConfig(PeopleSettings):
    """Settings of `judge=human`."""

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> HumanJudge:
        """See `JudgeSettings.build`."""
        return HumanJudge(self)


class HumanJudge:
    """See this module and `base.Judge`.

    Args:
        config: How many people, and which questions control them.
    """

    name = "human"
    kinds = frozenset({"comparison"})
    reads_truth = False

    def __init__(self, config: HumanConfig | None = None):
        self._config = config or HumanConfig()
        # Neither the number of people nor who is trusted makes it another question.
        self.fingerprint = "people"

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Waiting]]:
        """See `base.Judge.ask`."""
        for i, question in enumerate(questions):
            assert isinstance(question, Comparison)
            yield i, Waiting(self._config.raters, gold_verdict(question, self._config.gold_gap))


def gold_verdict(question: Comparison, gap: float | None) -> Verdict | None:
    """Return the right answer to a comparison whose ground truth leaves no doubt, else None.

    Args:
        question: With its truths, or without.
        gap: Difference in mean reward a step from which there is no doubt; None always doubts.
    """
    if gap is None or question.left_truth is None or question.right_truth is None:
        return None
    difference = float(np.mean(question.left_truth) - np.mean(question.right_truth))
    if abs(difference) < gap:
        return None
    return "left" if difference > 0 else "right"
