"""What several people's ratings of a comparison make together, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmrl.judges.base import PREFERENCES, Answer, Verdict
from vlmrl.judges.store import AnswerStore

MIN_GOLD = 5  # control questions after which a person's accuracy counts

Ratings = Mapping[str, Mapping[str, Verdict]]
"""{key of the question: {person: verdict}}."""


@dataclass(frozen=True)
class Agreement:
    """How far two people agree on the questions that both have answered with left, right or tie.

    Attributes:
        raters: Who.
        n: Questions that both answered.
        observed: Share on which they say the same; NaN where n is 0.
        kappa: Cohen's kappa, (observed - expected) / (1 - expected), where `expected` is what two people would reach
            who answered by chance with the frequencies of these two (Cohen 1960, "A Coefficient of Agreement for
            Nominal Scales"); NaN where expected is 1 or n is 0.
    """

    raters: tuple[str, str]
    n: int
    observed: float
    kappa: float


def agreement(ratings: Ratings, one: str, other: str) -> Agreement:
    """Compare two people."""
    pairs = [
        (by[one], by[other]) for by in ratings.values() if by.get(one) in PREFERENCES and by.get(other) in PREFERENCES
    ]
    n = len(pairs)
    if n == 0:
        return Agreement((one, other), 0, float("nan"), float("nan"))
    observed = sum(a == b for a, b in pairs) / n
    left, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(left[verdict] * right[verdict] for verdict in left) / n**2
    kappa = (observed - expected) / (1 - expected) if expected < 1 else float("nan")
    return Agreement((one, other), n, observed, kappa)


def gold_scores(ratings: Ratings, gold: Mapping[str, Verdict]) -> dict[str, tuple[int, int]]:
    """Return {person: (control questions answered right, control questions answered)}; skipped ones do not count."""
    scores: dict[str, tuple[int, int]] = {}
    for key, right in gold.items():
        for rater, verdict in ratings.get(key, {}).items():
            if verdict in PREFERENCES:
                hits, n = scores.get(rater, (0, 0))
                scores[rater] = (hits + (verdict == right), n + 1)
    return scores


def distrusted(ratings: Ratings, gold: Mapping[str, Verdict], min_accuracy: float) -> set[str]:
    """Return the people who are not counted: below `min_accuracy` in at least `MIN_GOLD` control questions."""
    scores = gold_scores(ratings, gold)
    return {rater for rater, (hits, n) in scores.items() if n >= MIN_GOLD and hits / n < min_accuracy}


def vote(ratings: Mapping[str, Verdict], wanted: int) -> tuple[Verdict, float | None] | None:
    """Return what people say together, and the share of them that says so (None of one alone); None while too few have.

    More than half of those who answered decide; "abstain" where no verdict has as many, or where as many skipped.
    """
    if len(ratings) < wanted:
        return None
    verdict, votes = Counter(ratings.values()).most_common(1)[0]
    if 2 * votes <= len(ratings) or verdict not in PREFERENCES:
        return "abstain", None
    return verdict, votes / len(ratings) if len(ratings) > 1 else None


def from_ratings(store: AnswerStore, keys: Sequence[str], judge: str, min_accuracy: float) -> dict[str, Answer]:
    """Return {key: answer} of those questions that enough trusted people have rated.

    Args:
        store: Where the ratings are.
        keys: Questions.
        judge: Name of the judge that put them to people.
        min_accuracy: See `distrusted`.
    """
    stored = {entry.key: entry for entry in store.questions("comparison", waiting=True)}
    gold = {key: entry.gold for key, entry in stored.items() if entry.gold is not None}
    out = distrusted(store.ratings(), gold, min_accuracy) if gold and min_accuracy > 0 else set()
    answers = {}
    for key, by in store.ratings(keys).items():
        voted = vote({rater: verdict for rater, verdict in by.items() if rater not in out}, stored[key].raters or 1)
        if voted is not None:
            raw = ", ".join(f"{rater}: {verdict}" for rater, verdict in by.items())
            answers[key] = Answer(voted[0], judge=judge, model="people", raw=raw, confidence=voted[1])
    return answers
