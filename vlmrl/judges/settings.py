"""Settings that judges share, and how a judge gets its desk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmrl.encoders.base import Encoder
from vlmrl.judges.base import Judge
from vlmrl.judges.desk import Desk
from vlmrl.judges.store import AnswerStore, Budget


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Settings of every judge; those of one are a subclass.

    Attributes:
        store: Answer store to use, a file; None takes the run's own.
        keep_clips: Keep the clips of all comparisons in the store, for export and for people to label later.
    """

    uses_encoder: ClassVar[bool] = False  # whether `build` needs the run's encoder
    reads_truth: ClassVar[bool] = False  # whether comparisons must bring the ground truth
    answers_texts: ClassVar[bool] = False  # whether text questions can be put to it

    store: str | None = None
    keep_clips: bool = False

    @property
    def budget(self) -> Budget:
        """What may be spent through the store."""
        return Budget()

    @property
    def max_attempts(self) -> int:
        """How often a question is asked that brings errors."""
        return 3

    @property
    def gold_accuracy(self) -> float:
        """Share of control questions that a person must get right to be counted."""
        return 0.0

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> Judge:
        """Make the judge.

        Args:
            encoder: The run's encoder, where `uses_encoder`.
            device: Torch device, for judges that run a model here.

        Raises:
            UserError: A setting is wrong, or something is missing that it needs.
        """
        raise NotImplementedError

    def open_desk(self, encoder: Encoder | None, device: str, store: Path) -> Desk:
        """Make the judge and open its desk.

        Args:
            encoder: See `build`.
            device: See `build`.
            store: The answer store where the settings name none, such as `answers.sqlite` in the run's folder.

        Raises:
            UserError: As `build`, or the store cannot be used.
        """
        return self.desk_of(self.build(encoder, device), store)

    def desk_of(self, judge: Judge, store: Path) -> Desk:
        """Open the desk of a judge that is there; whoever makes its folder in between finds mistakes before it does.

        Args:
            judge: What `build` returned.
            store: See `open_desk`.

        Raises:
            UserError: The store cannot be used.
        """
        answers = AnswerStore(self.store or store)
        return Desk(judge, answers, self.budget, self.max_attempts, self.keep_clips, self.gold_accuracy)
