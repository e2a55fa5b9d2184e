"""The protocol against a real server on loopback, well-behaved and not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.judges.clips import clip, comparison
from tests.judges.endpoint import MODEL, Endpoint, pictures_of
from tests.patience import PATIENCE
from vlmrl.errors import UserError
from vlmrl.judges import desk as desks
from vlmrl.judges.base import Message, TextQuestion
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.store import AnswerStore

PAIRS = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.3), (0.1, 0.7)]


def config(endpoint: Endpoint, **settings: Any) -> OpenAIConfig:
    return OpenAIConfig(model=MODEL, base_url=endpoint.url, **settings)


def desk(endpoint: Endpoint, store: AnswerStore, **settings: Any) -> Desk:
    made = config(endpoint, **settings)
    return Desk(made.build(), store, made.budget, made.max_attempts)


@pytest.mark.parametrize("prompt", ["analyse", "single", "critique"])
def test_each_prompt_brings_the_models_verdict(endpoint: Endpoint, store: AnswerStore, prompt: str) -> None:
    answers = desk(endpoint, store, prompt=prompt).ask([comparison(*pair, frames=3) for pair in PAIRS])
    assert [answer.verdict for answer in answers] == ["left", "right", "left", "right"]
    assert all(answer.consistent and answer.model == MODEL for answer in answers)
    assert all(answer.confidence is not None and answer.confidence > 0.9 for answer in answers)
    calls = 4 if prompt == "analyse" else 2
    assert [answer.calls for answer in answers] == [calls] * 4
    assert store.spent().calls == len(endpoint.requests) == 4 * calls
    assert store.spent().prompt_tokens == 400 * calls


def test_the_model_sees_the_very_pixels_of_evenly_spaced_frames(endpoint: Endpoint, store: AnswerStore) -> None:
    question = comparison(0.5, 0.1, frames=7)
    question.left[:, 0, 0, 2] = np.arange(7)
    desk(endpoint, store, prompt="single", swap=False, frames_per_clip=3).ask([question])
    left, right = pictures_of(endpoint.requests[0])
    np.testing.assert_array_equal(left, question.left[[0, 3, 6]])
    np.testing.assert_array_equal(right, question.right[[0, 3, 6]])


def test_a_judge_that_always_takes_the_first_gives_no_preference(endpoint: Endpoint, store: AnswerStore) -> None:
    endpoint.mode = "first"
    answers = desk(endpoint, store).ask([comparison(*pair) for pair in PAIRS])
    assert [(answer.verdict, answer.consistent) for answer in answers] == [("abstain", False)] * 4
    fooled = Desk(config(endpoint, swap=False).build(), store).ask([comparison(0.1, 0.9)])
    assert fooled[0].verdict == "left"


def test_what_was_answered_is_never_asked_again(endpoint: Endpoint, tmp_path: Path) -> None:
    questions = [comparison(*pair) for pair in PAIRS]
    first = AnswerStore(tmp_path / "a.sqlite")
    desk(endpoint, first).ask(questions[:3])
    first.close()
    asked = len(endpoint.requests)
    again = AnswerStore(tmp_path / "a.sqlite")
    answers = desk(endpoint, again).ask(questions[:3])
    assert [answer.verdict for answer in answers] == ["left", "right", "left"] and len(endpoint.requests) == asked
    desk(endpoint, again, temperature=0.5).ask(questions[:1])
    assert len(endpoint.requests) > asked  # other parameters are another question


def test_a_run_that_is_killed_repeats_no_request(endpoint: Endpoint, tmp_path: Path) -> None:
    code = f"""
import os, sys
from tests.judges.clips import comparison
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.store import AnswerStore
made = OpenAIConfig(model={MODEL!r}, base_url={endpoint.url!r}, concurrency=1)
judge = made.build()
complete, asked = judge.model.complete, []
def killed(question):
    asked.append(question)
    if len(asked) == 7:  # in the middle of the second comparison
        os._exit(9)
    return complete(question)
judge.model.complete = killed
Desk(judge, AnswerStore({str(tmp_path / "a.sqlite")!r}), made.budget).ask([comparison(*pair) for pair in {PAIRS!r}])
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=PATIENCE)
    assert result.returncode == 9 and len(endpoint.requests) == 6
    store = AnswerStore(tmp_path / "a.sqlite")
    answers = desk(endpoint, store).ask([comparison(*pair) for pair in PAIRS])
    assert [answer.verdict for answer in answers] == ["left", "right", "left", "right"]
    bodies = [str(body) for body in endpoint.requests]
    assert len(bodies) == len(set(bodies)) == 16
    store.close()


def test_a_limited_endpoint_is_waited_for(endpoint: Endpoint, store: AnswerStore) -> None:
    endpoint.mode, endpoint.failures, endpoint.retry_after = "limited", 3, 0.4
    start = time.monotonic()
    (answer,) = desk(endpoint, store, prompt="single", swap=False).ask([comparison(0.9, 0.1)])
    assert answer.verdict == "left" and answer.calls == 4 and store.spent().calls == 4
    assert 1.2 <= time.monotonic() - start < 10  # thrice what it asked for


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("broken", "InternalServerError"),
        ("stall", "APITimeoutError|no reply within"),
        ("babble", "unreadable"),
        ("html", "no chat completion"),
        ("empty", "no chat completion"),
        ("refuse", "I would rather not"),
        ("limited", "RateLimitError"),
    ],
)
@pytest.mark.parametrize("prompt", ["single", "critique"])
def test_what_goes_wrong_is_an_error_and_never_a_preference(
    endpoint: Endpoint, store: AnswerStore, mode: str, said: str, prompt: str
) -> None:
    endpoint.mode, endpoint.failures = mode, 10**6
    settings = {"prompt": prompt, "retries": 0, "timeout_s": 0.3, "deadline_s": 0.4, "attempts": 9}
    asked = desk(endpoint, store, **settings)
    (answer,) = asked.ask([comparison(0.9, 0.1)])
    assert answer.verdict == "error" and not answer.is_preference
    assert any(part in answer.error for part in said.split("|")), answer.error
    assert not store.answers([entry.key for entry in store.questions()])
    endpoint.mode = "fair"
    assert asked.ask([comparison(0.9, 0.1)])[0].verdict == "left"  # asked again, and no reply was kept that spoils it


def test_an_endpoint_that_dies_is_left_alone(
    endpoint: Endpoint, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "PAUSE", 0.2)
    asked = desk(endpoint, store, prompt="single", swap=False, retries=0, concurrency=1)
    endpoint.mode = "broken"
    questions = [comparison(0.9, k / 100) for k in range(20)]
    answers = asked.ask(questions)
    assert [answer.verdict for answer in answers] == ["error"] * 20 and len(endpoint.requests) == 5
    assert answers[-1].error.startswith("down: ")
    endpoint.mode = "fair"
    time.sleep(0.25)
    assert {answer.verdict for answer in asked.ask(questions)} == {"left"}


def test_errors_are_asked_again_so_many_times(endpoint: Endpoint, store: AnswerStore) -> None:
    asked = desk(endpoint, store, prompt="single", swap=False, retries=0, attempts=3)
    endpoint.mode = "babble"
    (key,) = asked.submit([comparison(0.9, 0.1)])
    for _ in range(2):
        assert asked.collect() == [] and asked.pending == 1
        asked.submit([])
    ((settled, answer),) = asked.collect()
    assert settled == key and answer.is_error and asked.pending == 0 and len(endpoint.requests) == 3
    assert "given up after 3 attempts" in asked.ask([comparison(0.9, 0.1)])[0].error
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    "limit", [{"max_calls": 5}, {"max_total_tokens": 900}, {"max_cost": 0.05, "prompt_price": 100.0}]
)
def test_a_spent_budget_ends_the_asking_and_nothing_else(
    endpoint: Endpoint, store: AnswerStore, limit: dict[str, Any]
) -> None:
    asked = desk(endpoint, store, prompt="single", swap=False, max_tokens=20, **limit)
    keys = asked.submit([comparison(0.9, k / 100) for k in range(20)])
    answers = dict(asked.collect())
    assert list(answers) == keys  # in the order of the questions
    preferred = sum(answer.verdict == "left" for answer in answers.values())
    assert 0 < preferred == len(endpoint.requests) < 20
    assert {answer.error.split(":")[0] for answer in answers.values() if answer.is_error} == {"budget"}
    assert asked.exhausted
    spent = store.spent()
    assert spent.calls <= limit.get("max_calls", 99) and spent.cost <= limit.get("max_cost", 9)
    assert spent.prompt_tokens + spent.completion_tokens <= limit.get("max_total_tokens", 9999)
    assert not store.failures(keys)  # nothing was wrong with the questions


def test_no_more_questions_at_a_time_than_allowed(endpoint: Endpoint, store: AnswerStore) -> None:
    desk(endpoint, store, prompt="single", concurrency=3).ask([comparison(0.9, k / 100) for k in range(12)])
    assert 2 <= endpoint.most <= 3


def test_closing_ends_requests_of_other_threads_and_allows_no_more(endpoint: Endpoint, store: AnswerStore) -> None:
    """The threads ask one after another, so that one would begin its request after those under way were cancelled."""
    endpoint.mode = "stall"
    judge = config(endpoint, prompt="single", swap=False).build()
    asked = Desk(judge, store, config(endpoint).budget, attempts=None)
    ended: list[BaseException] = []

    def ask(k: int) -> None:
        try:
            asked.ask([comparison(0.9, k / 100)])
        except CancelledError as error:
            ended.append(error)

    threads = [threading.Thread(target=ask, args=(k,), daemon=True) for k in range(3)]
    for thread in threads:
        thread.start()
    while not endpoint.under_way:
        time.sleep(0.01)
    judge.close()
    for thread in threads:
        thread.join(20.0)
    assert not any(thread.is_alive() for thread in threads)
    assert len(ended) == 3


def test_text_questions(endpoint: Endpoint, store: AnswerStore) -> None:
    content = ("Clip 1", clip(0.9)[0], "Clip 2", clip(0.1)[0], "Which is redder? Answer with one word: 1 or 2.")
    question = TextQuestion((Message("user", content),), choices=("1", "2"), n=3, seed=4)
    endpoint.one_at_a_time = True
    (answer,) = desk(endpoint, store).ask([question])
    assert answer.verdict is None and answer.texts == ("1", "1", "1") and answer.calls == 3
    assert [body["seed"] for body in endpoint.requests] == [4, 5, 6]
    assert answer.logprobs is not None and sum(np.exp(list(answer.logprobs.values()))) == pytest.approx(1)
    (free,) = desk(endpoint, store).ask([replace(question, choices=(), n=1)])
    assert free.texts == ("1",) and free.logprobs is None


@pytest.mark.parametrize(
    ("way", "field", "value"),
    [
        ("structured_outputs", "structured_outputs", {"choice": ["1", "2"]}),
        ("guided_choice", "guided_choice", ["1", "2"]),
        ("grammar", "grammar", 'root ::= "1" | "2"'),
    ],
)
def test_ways_to_hold_an_endpoint_to_one_word(
    endpoint: Endpoint, store: AnswerStore, way: Any, field: str, value: Any
) -> None:
    content = ("Clip 1", clip(0.9)[0], "Clip 2", clip(0.1)[0], "Answer with one word")
    question = TextQuestion((Message("user", content),), choices=("1", "2"))
    desk(endpoint, store, choices=way, extra_body={"top_k": 1}).ask([question])
    assert endpoint.requests[0][field] == value and endpoint.requests[0]["top_k"] == 1


@pytest.mark.parametrize(
    ("refused", "code"), [("response_format", 400), ("logprobs", 422), ("max_tokens", 400), ("temperature", 422)]
)
def test_what_an_endpoint_refuses_is_left_out(endpoint: Endpoint, store: AnswerStore, refused: str, code: int) -> None:
    endpoint.refuses, endpoint.refusal = (refused,), code
    prompt = "critique" if refused == "response_format" else "single"
    asked = desk(endpoint, store, prompt=prompt, concurrency=1)
    answers = asked.ask([comparison(*pair) for pair in PAIRS])
    assert [answer.verdict for answer in answers] == ["left", "right", "left", "right"]
    assert len(endpoint.requests) == 9  # one was refused


def test_mistakes_at_start(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        OpenAIConfig(model="m").build()
    with pytest.raises(UserError, match="name of a model"):
        OpenAIConfig()
    with pytest.raises(UserError, match="nothing answers"):
        OpenAIConfig(model="m", base_url="http://127.0.0.1:9/v1").build()
    OpenAIConfig(model="m", base_url="http://127.0.0.1:9/v1", check=False).build()
    endpoint.key = "right"
    monkeypatch.setenv("MY_KEY", "wrong")
    with pytest.raises(UserError, match="refuses the key in MY_KEY"):
        config(endpoint, api_key_env="MY_KEY").build()
    monkeypatch.setenv("MY_KEY", "right")
    config(endpoint, api_key_env="MY_KEY").build()
    with pytest.raises(UserError, match="no price"):
        OpenAIConfig(model="m", max_cost=1.0)
