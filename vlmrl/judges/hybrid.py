"""An automatic judge, and people for what it is not sure of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.judges.base import Answer, Calls, Comparison, Judge, Question, Waiting
from vlmrl.judges.human import PeopleSettings, gold_verdict
from vlmrl.judges.settings import JudgeSettings
from vlmrl.judges.store import Budget
from vlmrl.typed import Range, typed

AUTOMATIC = ("encoder", "openai", "transformers", "replay", "ground_truth")


@dataclass(frozen=True, kw_only=True)
class HybridConfig(PeopleSettings):
    """Settings of `judge=hybrid`.

    Attributes:
        automatic: The judge that is asked first: {"name": one of `AUTOMATIC`, its settings}.
        min_confidence: People are asked where the automatic judge abstains, fails, says tie, or is less sure than this.
            A judge that gives no confidence with its preferences is believed.
    """

    automatic: dict[str, Any] = field(default_factory=lambda: {"name": "encoder"})
    min_confidence: Annotated[float, Range(0.5, 1)] = 0.75

    def __post_init__(self) -> None:
        self.first  # noqa: B018  (raises what is wrong with it)

    @property
    def uses_encoder(self) -> bool:  # type: ignore[override]
        """Whether the automatic judge needs the run's encoder."""
        return self.first.uses_encoder

    @property
    def reads_truth(self) -> bool:  # type: ignore[override]
        """Whether the automatic judge needs the ground truth."""
        return self.first.reads_truth

    @property
    def first(self) -> JudgeSettings:
        """Settings of the automatic judge.

        Raises:
            UserError: There is no such judge, or one of its settings is wrong.
        """
        from vlmrl.judges import JUDGES

        settings = dict(self.automatic)
        name = settings.pop("name", None)
        if name not in AUTOMATIC:
            raise unknown("judge.automatic.name", str(name), AUTOMATIC)
        return typed(JUDGES.load(name), settings, "judge.automatic")

    @property
    def budget(self) -> Budget:
        """The automatic judge's."""
        return self.first.budget

    @property
    def max_attempts(self) -> int:
        """The automatic judge's."""
        return self.first.max_attempts

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> HybridJudge:
        """See `JudgeSettings.build`."""
        return HybridJudge(self, self.first.build(encoder, device))


class HybridJudge:
    """See this module and `base.Judge`.

    Args:
        config: When people are asked.
        automatic: Who is asked first.

    Raises:
        UserError: The automatic judge compares nothing.
    """

    name = "hybrid"
    kinds = frozenset({"comparison"})

    def __init__(self, config: HybridConfig, automatic: Judge):
        if "comparison" not in automatic.kinds:
            raise UserError(f"judge.automatic: {automatic.name} does not compare clips.")
        self._config = config
        self._automatic = automatic
        self.reads_truth = automatic.reads_truth

    @property
    def fingerprint(self) -> str:
        """Names the automatic judge and from where on it is believed."""
        return f"{self._automatic.name} {self._automatic.fingerprint} {self._config.min_confidence}"

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer | Waiting]]:
        """See `base.Judge.ask`."""
        for i, answer in self._automatic.ask(questions, calls):
            question = questions[i]
            assert isinstance(question, Comparison) and not isinstance(answer, Waiting)
            if self._is_sure(answer):
                yield i, answer
            else:
                yield i, Waiting(self._config.raters, gold_verdict(question, self._config.gold_gap), hint=answer)

    def close(self) -> None:
        """Close what the automatic judge holds open."""
        close = getattr(self._automatic, "close", None)
        if close is not None:
            close()

    def _is_sure(self, answer: Answer) -> bool:
        decided = answer.verdict in ("left", "right")
        return decided and (answer.confidence is None or answer.confidence >= self._config.min_confidence)
