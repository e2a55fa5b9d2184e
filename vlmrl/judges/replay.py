"""Recorded answers: a run's questions answered again without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Calls, Comparison, Question, Verdict, clip_digest
from vlmrl.judges.settings import JudgeSettings
from vlmrl.judges.store import AnswerStore

SWAPPED: dict[Verdict | None, Verdict] = {"left": "right", "right": "left", "tie": "tie", "abstain": "abstain"}


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(JudgeSettings):
    """Settings of `judge=replay`.

    Attributes:
        source: Answer store in which the answers are, a file.
        judge: Only answers of this judge, by its name; empty takes the first answer of any.
        unknown: What a comparison gets that the source does not know: "abstain", or "error", which ends the run.
    """

    source: str = ""
    judge: str = ""
    unknown: Literal["abstain", "error"] = "error"

    def __post_init__(self) -> None:
        if not self.source:
            raise UserError("judge=replay needs recorded answers: judge.source=<run folder>/answers.sqlite.")

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> ReplayJudge:
        """See `JudgeSettings.build`.

        Raises:
            UserError: The source is no answer store, or holds no answers of the judge.
        """
        return ReplayJudge(self)


class ReplayJudge:
    """See this module and `base.Judge`. A comparison is known by goal and clips, whichever way round they were.

    Args:
        config: Where the answers are.

    Raises:
        UserError: See `ReplayConfig.build`.
    """

    name = "replay"
    kinds = frozenset({"comparison"})
    reads_truth = False

    def __init__(self, config: ReplayConfig):
        self._config = config
        store = AnswerStore(config.source, create=False)
        stored = [entry for entry in store.questions("comparison") if entry.answer is not None]
        store.close()
        judges = sorted({entry.judge for entry in stored})
        if config.judge and config.judge not in judges:
            raise UserError(f"judge.judge is '{config.judge}'; '{config.source}' has answers of: {', '.join(judges)}.")
        if not stored:
            raise UserError(f"judge.source: '{config.source}' holds no answers to comparisons.")
        self._known: dict[tuple[str, bytes | None, bytes | None], Answer] = {}
        for entry in stored:
            if entry.answer is not None and config.judge in ("", entry.judge):
                self._known.setdefault((entry.goal, entry.left, entry.right), entry.answer)

    @property
    def fingerprint(self) -> str:
        """Names the source and whose answers are taken."""
        return f"{self._config.source} {self._config.judge} {self._config.unknown}"

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
        """See `base.Judge.ask`.

        Raises:
            UserError: A comparison is not known, and `unknown` is "error".
        """
        for i, question in enumerate(questions):
            assert isinstance(question, Comparison)
            yield i, self._answer(question)

    def _answer(self, question: Comparison) -> Answer:
        left, right = clip_digest(question.left), clip_digest(question.right)
        answer = self._known.get((question.goal, left, right))
        if answer is not None:
            return answer
        turned = self._known.get((question.goal, right, left))
        if turned is not None:
            return Answer(SWAPPED[turned.verdict], judge=turned.judge, model=turned.model, confidence=turned.confidence)
        if self._config.unknown == "abstain":
            return Answer("abstain", judge=self.name, raw="not among the recorded answers")
        raise UserError(
            f"judge=replay: '{self._config.source}' knows no answer to this comparison for the goal '{question.goal}'. "
            "Clips must be the same to the pixel: the same seed, settings and versions. judge.unknown=abstain passes "
            "over what is not known."
        )
