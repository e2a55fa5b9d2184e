"""Which programs of a round are the better ones, and what their writer is told of them: by success, or by looking.

By success, the task's check decides, in the heats of successive halving (Jamieson and Talwalkar 2016), as in Eureka (Ma
et al., ICLR 2024). By clips, somebody looks at films and names the best and the worst, as in ICPL (Yu et al. 2024): no
check is read, so none is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlmrl.workflows.search.clips import Clip
from vlmrl.workflows.search.preferences import Rater
from vlmrl.workflows.search.reflection import preference_reflection, read_trace, reflection

Score = tuple[float, float]  # share of steps at which the task is done, then the truth; means over seeds


@dataclass(frozen=True)
class Candidate:
    """A program.

    Attributes:
        id: First 12 characters of the SHA-256 of its text: two programs of the same text are one candidate.
        source: Its text.
        answer: The answer that it stood in.
        round: Where it first came, from 0 on.
    """

    id: str
    source: str
    answer: str
    round: int


class Trials(Protocol):
    """Trains with programs; what was done before is not done again."""

    def score(self, entry: Candidate, share: float) -> Score:
        """Train for a share of the steps with each of the seeds that programs are chosen by, and measure."""
        ...

    def clip(self, entry: Candidate) -> Clip:
        """Train for all of the steps, with the first of these seeds, and film."""
        ...

    def log(self, entry: Candidate) -> Path:
        """Return the log of the run over all of the steps, with the first of these seeds."""
        ...


class Selection(Protocol):
    """See this module.

    Attributes:
        best: The best program so far; None before any was trained to the end.
        first: The first one that was trained to the end.
        notes: What became of each program, by its name, ready for JSON.
    """

    best: Candidate | None
    first: Candidate | None
    notes: dict[str, dict[str, Any]]

    def choose(self, fresh: Sequence[Candidate]) -> None:
        """Train with the programs of a round and find the best so far."""
        ...

    def told(self) -> str:
        """Return what their writer is told of the best so far."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return how it was chosen, ready for JSON."""
        ...


class BySuccess:
    """The task's check decides.

    Args:
        trials: Trains.
        first_heat: Share of the steps that all programs of a round are trained for; the better half goes on.
    """

    def __init__(self, trials: Trials, first_heat: float):
        self.best: Candidate | None = None
        self.first: Candidate | None = None
        self.notes: dict[str, dict[str, Any]] = {}
        self._trials, self._first_heat = trials, first_heat
        self._best_score: Score = (-math.inf, -math.inf)

    def choose(self, fresh: Sequence[Candidate]) -> None:
        """See `Selection.choose`; of equals the first one stays."""
        going = list(fresh)
        if len(fresh) > 1 and self._first_heat < 1:
            scores = {entry.id: self._trials.score(entry, self._first_heat) for entry in fresh}
            for name, score in scores.items():
                self.notes[name] = {"first_heat": score}
            by_name = {entry.id: entry for entry in fresh}
            going = [by_name[name] for name in survivors(scores)]
        for entry in going:
            score = self._trials.score(entry, 1.0)
            self.notes.setdefault(entry.id, {})["selection"] = score
            self.first = self.first or entry
            if score > self._best_score:
                self.best, self._best_score = entry, score

    def told(self) -> str:
        """See `Selection.told`."""
        assert self.best is not None
        return reflection(read_trace(self._trials.log(self.best)))

    def summary(self) -> dict[str, Any]:
        """See `Selection.summary`."""
        return {"by": "success"}


class ByClips:
    """Somebody who looks at films decides; neither the task's check nor its truth is read here.

    Args:
        trials: Trains and films.
        rater: Looks.
    """

    def __init__(self, trials: Trials, rater: Rater):
        self.best: Candidate | None = None
        self.first: Candidate | None = None
        self.notes: dict[str, dict[str, Any]] = {}
        self._trials, self._rater = trials, rater
        self._worst: Candidate | None = None  # of the newest round
        self._history: list[str] = []
        self._rounds: list[dict[str, Any]] = []

    def choose(self, fresh: Sequence[Candidate]) -> None:
        """See `Selection.choose`; the best so far is compared with the new ones."""
        entries = [*([self.best] if self.best is not None else []), *fresh]
        if not fresh:
            return
        self.first = self.first or fresh[0]
        best, worst = self._rater.best_and_worst([self._trials.clip(entry) for entry in entries])
        self.best, self._worst = entries[best], entries[worst] if worst != best else None
        self._history.append(self.best.source)
        self._rounds.append({"best": self.best.id, "worst": self._worst.id if self._worst is not None else None})
        for entry in fresh:
            liked = "best" if entry is self.best else "worst" if entry is self._worst else "neither"
            self.notes[entry.id] = {"liked": liked}

    def told(self) -> str:
        """See `Selection.told`."""
        assert self.best is not None
        traces = [
            read_trace(self._trials.log(entry), success=False) if entry is not None else None
            for entry in (self.best, self._worst)
        ]
        assert traces[0] is not None
        worst_source = self._worst.source if self._worst is not None else ""
        return preference_reflection(traces[0], traces[1], worst_source, self._history)

    def summary(self) -> dict[str, Any]:
        """See `Selection.summary`."""
        return {"by": "clips", "rater": self._rater.name, "comparisons": self._rater.asked, "rounds": self._rounds}


def survivors(scores: dict[str, Score]) -> list[str]:
    """Return the better half of a heat, rounded up, best first; of equals, the one that came first."""
    order = sorted(scores, key=lambda name: scores[name], reverse=True)  # stable
    return order[: math.ceil(len(order) / 2)]
