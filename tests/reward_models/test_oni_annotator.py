"""Who labels texts: once each, never in the way, whatever the server does. All of it over HTTP, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reward_models.label_endpoint import LabelServer, serve_labels
from vlmrl.judges import desk as desks
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.process import JudgeProcess
from vlmrl.judges.store import AnswerStore, Budget
from vlmrl.reward_models import oni_annotator
from vlmrl.reward_models.oni_annotator import Annotator
from vlmrl.reward_models.oni_labels import Item, LabelQuestions

QUESTIONS = LabelQuestions("get out", "a toy")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oni_annotator, "PATIENCE", 0.05)
    monkeypatch.setattr(desks, "PAUSE", 0.1)


@pytest.fixture(scope="module")
def running() -> Iterator[LabelServer]:
    with serve_labels() as server:
        yield server


@pytest.fixture
def server(running: LabelServer) -> LabelServer:
    """The server in its first state."""
    running.__dict__.update(LabelServer(url=running.url).__dict__)
    return running


@contextlib.contextmanager
def annotator(
    server: LabelServer, store: Path, questions: LabelQuestions = QUESTIONS, judge: Any = None, **settings: Any
) -> Iterator[Annotator]:
    base = {"model": "labeller", "base_url": server.url, "retries": 0, "timeout_s": 5, "deadline_s": 5, "check": False}
    config = OpenAIConfig(**{**base, **(judge or {})})
    desk = Desk(config.build(), AnswerStore(store), config.budget, attempts=None)
    made = Annotator(desk, questions, **settings)
    try:
        yield made
    finally:
        made.close()


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


def gather(asked: Annotator, n: int) -> dict[Item, float]:
    found: dict[Item, float] = {}

    def enough() -> bool:
        found.update(asked.collect())
        return len(found) >= n

    until(enough)
    return found


def items(*texts: str) -> dict[Item, float]:
    return {(text,): 1.0 for text in texts}


@pytest.mark.parametrize("prompt", ["word", "reason"])
def test_each_text_is_asked_about_once_and_a_second_run_asks_nothing(
    server: LabelServer, tmp_path: Path, prompt: Any
) -> None:
    questions = LabelQuestions("get out", "a toy", prompt)
    texts = [f"you find a key of {i}" for i in range(10)] + [f"a wall {i}" for i in range(10)]
    server.latency = 0.05
    with annotator(server, tmp_path / "a.sqlite", questions, workers=4) as asked:
        for _ in range(20):  # as they are met again and again
            asked.offer(items(*texts))
        found = gather(asked, 20)
        asked.offer(items(*texts))
        time.sleep(0.1)
        stats = asked.stats()
    assert set(server.texts.values()) == {1} and server.requests == 20
    assert 1 < server.most <= 4  # several at a time, and no more than allowed
    sure = 0.8 / 0.9 if prompt == "word" else 1.0
    for (text,), label in found.items():
        assert label == pytest.approx(sure if "key" in text else 1 - sure)
    assert asked.counts.labelled == 20 and asked.counts.dropped == 0
    assert 0 < stats["wait_s"] < 30 and stats["calls"] == 20

    with annotator(server, tmp_path / "a.sqlite", questions) as again:
        again.offer(items(*texts))
        assert dict(again.collect()) == found  # at once
        assert again.counts.known == 20
    assert server.requests == 20


def test_pairs_are_labelled_by_which_is_better(server: LabelServer, tmp_path: Path) -> None:
    pairs: dict[Item, float] = {("a key", "a wall"): 1, ("a wall", "gold"): 1, ("a wall", "a floor"): 1}
    with annotator(server, tmp_path / "a.sqlite") as asked:
        asked.offer(pairs)
        found = gather(asked, 3)
    assert found[("a key", "a wall")] > 0.9 and found[("a wall", "gold")] < 0.1


def test_the_queue_has_an_end_and_the_newest_stay(server: LabelServer, tmp_path: Path) -> None:
    server.mode = "silent"
    with annotator(server, tmp_path / "a.sqlite", workers=1, queue_size=3, selection="newest") as asked:
        asked.offer(items("first"))
        until(lambda: server.under_way == 1)  # the only worker has it
        asked.offer(items("a", "b", "c"))
        asked.offer(items("d", "e"))
        assert asked.counts.dropped == 2
        assert list(asked._queue) == [("c",), ("d",), ("e",)]
        assert asked._next() == ("e",)
        started = time.monotonic()
    assert time.monotonic() - started < 8  # a silent server does not hold up the end
    assert asked.counts.labelled == 0


def test_what_matters_most_is_asked_about_first(server: LabelServer, tmp_path: Path) -> None:
    server.mode = "silent"
    with annotator(server, tmp_path / "a.sqlite", workers=1) as asked:
        asked.offer(items("first"))
        until(lambda: server.under_way == 1)
        asked.offer({("rare",): 0.5, ("often",): 9.0, ("sometimes",): 3.0})
        assert asked._next() == ("often",)
        asked.offer({("rare",): 10.0})  # met again and again since
        assert asked._next() == ("rare",)
        asked.offer({("new",): 10.0})
        assert asked._next() == ("new",)


@pytest.mark.parametrize("mode", ["babble", "empty"])
def test_unreadable_answers_leave_a_text_without_a_label(server: LabelServer, tmp_path: Path, mode: str) -> None:
    reasoned = LabelQuestions("get out", "a toy", "reason")
    for questions, store in ((QUESTIONS, "a"), (reasoned, "b")):
        server.texts.clear()
        server.mode = mode
        with annotator(server, tmp_path / store, questions, attempts=3) as asked:
            asked.offer(items("a key", "a wall"))
            until(lambda: asked.counts.given_up == 2)  # noqa: B023
            asked.offer(items("a key", "a wall"))
            time.sleep(0.1)
            assert asked.collect() == [] and asked.alive  # it does answer
        assert server.texts == {"a key": 3, "a wall": 3}
        assert asked.counts.unreadable == 6
        server.mode = "babble once"
        server.texts.clear()
        with annotator(server, tmp_path / f"{store}2", questions, attempts=3) as asked:
            asked.offer(items("a key"))
            (label,) = gather(asked, 1).values()
        assert label > 0.5 and server.texts == {"a key": 2}


def test_a_server_that_fails_is_asked_again_when_it_is_back(server: LabelServer, tmp_path: Path) -> None:
    server.mode = "broken"
    with annotator(server, tmp_path / "a.sqlite", workers=2, attempts=2) as asked:
        texts = [f"a key {i}" for i in range(4)]
        asked.offer(items(*texts))
        until(lambda: asked.counts.failed >= 8)  # more often than attempts: an outage is no text's fault
        assert not asked.alive and asked.collect() == []
        server.mode = "fair"
        assert len(gather(asked, 4)) == 4
        assert asked.alive and asked.counts.given_up == 0


def test_a_server_that_is_killed_is_found_again(tmp_path: Path) -> None:
    with serve_labels() as first:
        port = int(first.url.split(":")[2].split("/")[0])
        manager = annotator(first, tmp_path / "a.sqlite", workers=2)
        asked = manager.__enter__()
        asked.offer(items("a key"))
        gather(asked, 1)
    try:
        asked.offer(items("a door", "a wall"))
        until(lambda: not asked.alive)
        with serve_labels(port) as second:
            found = gather(asked, 2)
            assert found[("a door",)] > 0.5 > found[("a wall",)]
            assert "a key" not in second.texts
    finally:
        manager.__exit__(None, None, None)


def test_a_spent_budget_ends_the_asking(server: LabelServer, tmp_path: Path) -> None:
    with annotator(server, tmp_path / "a.sqlite", judge={"max_calls": 3}, workers=1) as asked:
        asked.offer(items(*(f"a key {i}" for i in range(6))))
        gather(asked, 3)
        until(lambda: not asked.alive)
    assert server.requests == 3


def test_a_thread_that_ends_is_told_and_stops_nothing(
    server: LabelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with annotator(server, tmp_path / "a.sqlite", workers=1) as asked:
        asked._desk.store._database.execute("DROP TABLE questions")
        asked.offer(items("a key"))
        until(lambda: not asked.alive)
        assert "An annotator thread ended." in caplog.text
        asked.offer(items("a door"))
        assert asked.collect() == []


def test_a_judge_in_a_process_of_its_own_may_be_killed(
    server: LabelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge = JudgeProcess(OpenAIConfig(model="labeller", base_url=server.url, retries=0, check=False))
    judge.open(tmp_path / "a.sqlite", Budget(), workers=2)
    asked = Annotator(judge, QUESTIONS, workers=2)
    asked.offer(items("a key", "a wall"))
    assert set(gather(asked, 2)) == {("a key",), ("a wall",)}
    calls = asked.stats()["calls"]
    assert judge.pid is not None
    os.kill(judge.pid, signal.SIGKILL)
    asked.offer(items("a door", "a ladder", "a lamp"))
    until(lambda: not asked.alive)
    assert "the process of the judge has ended" in caplog.text
    asked.offer(items("a bell"))
    assert asked.collect() == []
    assert asked.stats()["calls"] == calls
    asked.close()
