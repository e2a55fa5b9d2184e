"""Who is shown which comparison, and what becomes of what they say."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.judges.base import Verdict
from vlmrl.judges.raters import agreement, gold_scores
from vlmrl.judges.store import AnswerStore, Stored

TURNED: dict[Verdict, Verdict] = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Shown:
    """A comparison as one person sees it.

    Attributes:
        key: Of the question.
        goal: The sentence.
        left: Digest of the clip on the left, hex.
        right: Digest of the clip on the right.
    """

    key: str
    goal: str
    left: str
    right: str


@dataclass(frozen=True)
class Progress:
    """How far one person is.

    Attributes:
        done: Comparisons that this person has rated.
        left: Comparisons that this person can still rate.
        total: Comparisons of which somebody's rating is or was wanted.
        settled: Comparisons of these that have enough ratings.
    """

    done: int
    left: int
    total: int
    settled: int


class LabelDesk:
    """Hands out comparisons of an answer store and takes ratings.

    Which clip is shown on the left is drawn for each person and comparison, so that a liking for one side cancels out;
    what is stored is turned back.

    Args:
        store: Where questions and ratings are.
        everything: Show every comparison whose clips were kept, and not only those that were put to people.
        expert: A person whose ratings are the right answers of control questions for the others.
    """

    def __init__(self, store: AnswerStore, everything: bool = False, expert: str | None = None):
        self._store = store
        self._everything = everything
        self._expert = expert

    def next(self, rater: str) -> Shown | None:
        """Return what a person should look at next, or None where nothing is left."""
        questions = self._for(rater)
        return self.shown(questions[0], rater) if questions else None

    def find(self, key: str, rater: str) -> Shown | None:
        """Return a comparison as a person sees it, or None where there is none of this key."""
        return next((self.shown(entry, rater) for entry in self._questions() if entry.key == key), None)

    def rate(self, key: str, rater: str, verdict: Verdict, seconds: float) -> None:
        """Take a rating.

        Args:
            key: Of the question.
            rater: Who.
            verdict: As the person saw it; "abstain" skips.
            seconds: For how long they looked.

        Raises:
            UserError: There is no such comparison here.
        """
        entry = next((entry for entry in self._questions() if entry.key == key), None)
        if entry is None:
            raise UserError("This comparison is not among those that are asked here.")
        stored = TURNED.get(verdict, verdict) if turned(key, rater) else verdict
        self._store.rate(key, rater, stored, seconds)
        if rater == self._expert and stored != "abstain":
            self._store.set_gold(key, stored)

    def undo(self, rater: str) -> Shown | None:
        """Take back a person's newest rating; None where there is none, or it is in use already."""
        key = self._store.take_back(rater)
        return None if key is None else self.find(key, rater)

    def clip(self, digest: bytes) -> np.ndarray | None:
        """Return a clip, (T, H, W, 3) uint8 RGB, or None where there is none of this digest."""
        return self._store.clip(digest)

    def progress(self, rater: str) -> Progress:
        """Say how far a person is."""
        questions, ratings = self._questions(), self._store.ratings()
        done = sum(rater in ratings.get(entry.key, {}) for entry in questions)
        settled = sum(self._is_settled(entry, len(ratings.get(entry.key, {}))) for entry in questions)
        return Progress(done, len(self._for(rater)), len(questions), settled)

    def report(self) -> dict[str, Any]:
        """Say how people did in control questions, and how far they agree with each other.

        Returns:
            {"raters": [{rater, rated, gold, gold_right}], "pairs": [{raters, n, observed, kappa}]}; a number that is
            not defined is None.
        """
        keys = {entry.key for entry in self._questions()}
        ratings = {key: by for key, by in self._store.ratings().items() if key in keys}
        gold = {entry.key: entry.gold for entry in self._questions() if entry.gold is not None}
        scores = gold_scores(ratings, gold)
        names = sorted({rater for by in ratings.values() for rater in by})
        raters = []
        for name in names:
            right, asked = (0, 0) if name == self._expert else scores.get(name, (0, 0))
            rated = sum(name in by for by in ratings.values())
            raters.append({"rater": name, "rated": rated, "gold": asked, "gold_right": right})
        pairs = [asdict(agreement(ratings, one, other)) for one, other in combinations(names, 2)]
        for pair in pairs:
            pair |= {name: None for name in ("observed", "kappa") if math.isnan(pair[name])}
        return {"raters": raters, "pairs": pairs}

    def shown(self, entry: Stored, rater: str) -> Shown:
        """Return a comparison as a person sees it."""
        assert entry.left is not None and entry.right is not None
        left, right = (entry.right, entry.left) if turned(entry.key, rater) else (entry.left, entry.right)
        return Shown(entry.key, entry.goal, left.hex(), right.hex())

    def _questions(self) -> list[Stored]:
        questions = self._store.questions("comparison", waiting=not self._everything)
        if not self._everything:
            return questions
        kept = self._store.kept_clips()
        return [entry for entry in questions if entry.left in kept and entry.right in kept]

    def _for(self, rater: str) -> list[Stored]:
        """Return what a person can still rate: control questions among it, as often as they come."""
        ratings = self._store.ratings()
        return [
            entry
            for entry in self._questions()
            if rater not in (by := ratings.get(entry.key, {}))
            and (entry.gold is not None or not self._is_settled(entry, len(by)))
        ]

    def _is_settled(self, entry: Stored, ratings: int) -> bool:
        """Whether no further rating is wanted; where everything is shown, everybody is asked everything."""
        if self._everything:
            return False
        return entry.answer is not None or ratings >= (entry.raters or 1)


def turned(key: str, rater: str) -> bool:
    """Return whether a person sees this comparison the other way round."""
    return hashlib.sha256(f"{key} {rater}".encode()).digest()[0] % 2 == 1
