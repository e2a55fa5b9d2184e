"""What an audit finds out about one reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.workflows.audit.candidates import Candidate
from vlmrl.workflows.audit.scores import Control, Figure, Figures, Judge
from vlmrl.workflows.audit.states import LabelledStates
from vlmrl.workflows.audit.verdict import Verdict, fails


@dataclass(frozen=True)
class Audited:
    """A reward, what it gave, and what came of it.

    Attributes:
        candidate: The reward.
        states: The states, as its encoder saw them.
        judge: Measured them.
        scores: (n,) float32, its reward of each state.
        figures: How well they tell states apart.
        controls: What it was held against; empty but for the best of each encoder.
        verdict: None but for the best of each encoder.
    """

    candidate: Candidate
    states: LabelledStates
    judge: Judge
    scores: np.ndarray
    figures: Figures
    controls: tuple[Control, ...] = ()
    verdict: Verdict | None = None

    @property
    def doubtful(self) -> bool:
        """Whether one should look closer before training on it."""
        return self.verdict is not None and self.verdict.word != "GOOD"

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        candidate = self.candidate
        values: dict[str, Any] = {
            "letter": candidate.letter,
            "encoder": candidate.encoder,
            "goal": list(candidate.words.goal) if candidate.words is not None else [],
            "alpha": candidate.alpha,
            **self.figures.plain(),
        }
        if self.verdict is not None:
            values |= self.verdict.plain() | {
                "controls": [control.plain() | {"fails": fails(control)} for control in self.controls]
            }
        return values


def cell(figure: Figure | None) -> str:
    """Write a figure and its interval, short enough for six of them in a line."""
    if figure is None:
        return "-"
    low, high = (f"{bound:.2f}".replace("0.", ".") for bound in (figure.low, figure.high))
    return f"{figure.value:.2f} [{low}, {high}]"
