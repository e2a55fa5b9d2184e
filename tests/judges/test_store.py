"""The answer store: what is kept, what is not, several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.judges.clips import clip, comparison
from tests.patience import PATIENCE
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Comparison, Message, TextQuestion, clip_digest
from vlmrl.judges.ground_truth import GroundTruthJudge
from vlmrl.judges.raters import agreement, distrusted, gold_scores, vote
from vlmrl.judges.store import AnswerStore, Budget


class Priced:
    name, fingerprint = "model", "1"

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return 0.01 * (prompt_tokens + completion_tokens)


def test_what_comes_out_is_what_went_in(store: AnswerStore) -> None:
    answer = Answer(None, ("a", "b"), "j", "m", "raw", 0.7, True, {"1": -0.1}, 2, 3, 4, 0.5, 6.0)
    question = TextQuestion((Message("user", ("look", clip(0.5)[0])),), seed=3)
    store.add_question("k", question, GroundTruthJudge())
    store.add_answer("k", answer)
    store.add_answer("k", Answer("left"))  # the first one stays
    assert store.answers(["k", "other"]) == {"k": answer}
    assert store.questions()[0].answer == answer
    with pytest.raises(ValueError, match="An error is not kept"):
        store.add_answer("e", Answer("error", error="x"))


def test_clips_are_kept_to_the_pixel(store: AnswerStore) -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (frames, 9, 7, 3), dtype=np.uint8) for frames in (5, 1))
    store.add_clips(Comparison("go", left, right))
    for kept in (left, right):
        np.testing.assert_array_equal(store.clip(clip_digest(kept)), kept)
    assert store.clip(b"none") is None and store.kept_clips() == {clip_digest(left), clip_digest(right)}


def test_a_request_is_entered_before_it_is_made(store: AnswerStore) -> None:
    model: Any = Priced()
    question = TextQuestion((Message("user", ("hello",)),), max_tokens=10)
    entry = store.reserve(model, question, Budget(calls=2))
    assert isinstance(entry, int) and store.spent().calls == 1 and store.spent().completion_tokens == 10
    store.settle(entry, "k", Answer(None, ("hi",), calls=1, prompt_tokens=50, completion_tokens=5, cost=0.55))
    assert (store.spent().prompt_tokens, store.spent().completion_tokens, store.spent().cost) == (50, 5, 0.55)
    assert store.reserve(model, question, Budget(tokens=100)) == "55 of 100 tokens are spent, and a call may take 60"
    refused = store.reserve(model, question, Budget(cost=1.0))
    assert refused == "0.55 of 1 in money is spent, and a call may take 0.6"
    assert isinstance(store.reserve(model, question, Budget(calls=2, tokens=115, cost=1.15)), int)
    assert store.reserve(model, question, Budget(calls=2)) == "2 of 2 calls are spent"
    assert store.reply("k") == Answer(None, ("hi",), calls=1, prompt_tokens=50, completion_tokens=5, cost=0.55)
    store.forget_reply("k")
    assert store.reply("k") is None and store.spent().prompt_tokens == 100


def test_several_processes_share_one_budget(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    code = f"""
from tests.judges.test_store import Priced
from vlmrl.judges.base import Answer, Message, TextQuestion
from vlmrl.judges.store import AnswerStore, Budget
store, made = AnswerStore({str(path)!r}), 0
question = TextQuestion((Message("user", ("hello",)),))
for k in range(60):
    entry = store.reserve(Priced(), question, Budget(calls=100))
    if isinstance(entry, int):
        made += 1
        store.settle(entry, str(k), Answer(None, ("hi",), calls=1))
print(made)
"""
    command = [sys.executable, "-c", code]
    workers = [
        subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    made = [int(worker.communicate(timeout=PATIENCE)[0]) for worker in workers]
    assert sum(made) == 100
    store = AnswerStore(path)
    assert store.spent().calls == 100
    store.close()


def test_files_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("hello " * 1000)
    with pytest.raises(UserError, match="cannot be used"):
        AnswerStore(tmp_path / "text.sqlite")
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE embeddings (a)")
    other.commit()
    other.close()
    with pytest.raises(UserError, match="no answer store"):
        AnswerStore(tmp_path / "other.sqlite")
    with pytest.raises(UserError, match="There is no answer store"):
        AnswerStore(tmp_path / "none.sqlite", create=False)


def test_ratings_are_replaced_and_taken_back(store: AnswerStore) -> None:
    store.add_question("k", comparison(0, 1), GroundTruthJudge())
    store.rate("k", "ann", "left", 1.0)
    store.rate("k", "ann", "tie", 2.0)
    assert store.ratings() == {"k": {"ann": "tie"}} == store.ratings(["k"])
    assert store.take_back("bob") is None
    assert store.take_back("ann") == "k" and store.ratings() == {}


def test_agreement_is_cohens_kappa() -> None:
    # Cohen's own arithmetic by hand: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5, kappa 0.4.
    table = [("left", "left")] * 20 + [("left", "right")] * 5 + [("right", "left")] * 10 + [("right", "right")] * 15
    ratings: Any = {str(i): {"a": one, "b": two} for i, (one, two) in enumerate(table)}
    ratings["skipped"] = {"a": "abstain", "b": "left"}
    found = agreement(ratings, "a", "b")
    assert (found.n, found.observed) == (50, 0.7) and found.kappa == pytest.approx(0.4)
    assert np.isnan(agreement({"k": {"a": "left", "b": "left"}}, "a", "b").kappa)  # no chance to disagree
    assert np.isnan(agreement(ratings, "a", "c").observed)


def test_control_questions_and_votes() -> None:
    ratings: Any = {str(i): {"good": "left", "bad": "right" if i else "left"} for i in range(6)}
    gold: Any = dict.fromkeys(ratings, "left")
    assert gold_scores(ratings, gold) == {"good": (6, 6), "bad": (1, 6)}
    assert distrusted(ratings, gold, 0.8) == {"bad"}
    assert distrusted(dict(list(ratings.items())[:4]), gold, 0.8) == set()  # too few to say
    assert vote({"a": "left"}, 2) is None
    assert vote({"a": "left"}, 1) == ("left", None)
    assert vote({"a": "left", "b": "right"}, 2) == ("abstain", None)
    assert vote({"a": "left", "b": "right", "c": "left"}, 3) == ("left", 2 / 3)
    assert vote({"a": "abstain", "b": "abstain", "c": "left"}, 3) == ("abstain", None)
