"""Answered comparisons, as a reward model learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmrl.judges.base import Verdict

TARGETS = {"left": 1.0, "right": 0.0, "tie": 0.5}

Columns = Mapping[str, np.ndarray]  # of a clip: what is kept of each of its L steps, in the form of `Rows.arrays`


@dataclass
class AnsweredPairs:
    """Pairs of clips of one length and what was answered, in the order in which answers came.

    Every so many answers one is held out: never learned from, by no version.

    Args:
        held_out: Share of the answers, 0 to 0.5.
    """

    held_out: float = 0.2
    _left: list[Columns] = field(default_factory=list)
    _right: list[Columns] = field(default_factory=list)
    _targets: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, left: Columns, right: Columns, verdict: Verdict) -> None:
        """Take in an answer, "left", "right" or "tie"; the others are no preferences (KeyError)."""
        self._targets.append(TARGETS[verdict])
        self._left.append(left)
        self._right.append(right)

    @property
    def targets(self) -> np.ndarray:
        """What was answered, (n,) float32: 1 for left, 0 for right, 0.5 for a tie."""
        return np.array(self._targets, dtype=np.float32)

    @property
    def is_held_out(self) -> np.ndarray:
        """Which answers are held out, (n,) bool. They lie evenly among the others, so that every round has some."""
        steps = np.arange(len(self) + 1) * self.held_out
        return np.floor(steps[1:]) > np.floor(steps[:-1])

    def steps(self, first: int = 0) -> dict[str, np.ndarray]:
        """Return what is kept of the steps of both clips from answer `first` on, {name: (n, 2, L, ...)}, left first."""
        return {
            name: np.stack(
                [[left[name], right[name]] for left, right in zip(self._left, self._right, strict=True)][first:]
            )
            for name in (self._left[0] if self._left else ())
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, for a checkpoint."""
        return {"left": self._left, "right": self._right, "targets": self._targets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._left, self._right = list(state["left"]), list(state["right"])
        self._targets = list(state["targets"])
