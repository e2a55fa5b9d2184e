"""A judge in a process of its own: the same answers, and no harm from how it ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.judges.clips import clip
from tests.judges.endpoint import MODEL, Endpoint
from vlmrl.errors import UserError
from vlmrl.judges.base import Message, TextQuestion
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.process import JudgeProcess
from vlmrl.judges.store import AnswerStore, Budget


def question(k: int) -> TextQuestion:
    content = ("Clip 1", clip(0.9)[0], "Clip 2", clip(k / 100)[0], "Which is redder? Answer with one word: 1 or 2.")
    return TextQuestion((Message("user", content),), max_tokens=1, choices=("1", "2"))


@pytest.fixture
def judge(endpoint: Endpoint, tmp_path: Path) -> Iterator[JudgeProcess]:
    made = JudgeProcess(OpenAIConfig(model=MODEL, base_url=endpoint.url))
    made.open(tmp_path / "answers.sqlite", Budget(calls=12), workers=4)
    yield made
    made.close()


def test_it_answers_as_a_desk_here_does(endpoint: Endpoint, judge: JudgeProcess, tmp_path: Path) -> None:
    questions = [question(k) for k in range(8)]
    assert judge.known(questions) == [None] * 8
    with ThreadPoolExecutor(4) as threads:  # several ask at once
        answers = [
            answer for part in threads.map(judge.ask, [questions[:2], questions[2:5], questions[5:]]) for answer in part
        ]
    assert judge.known(questions) == answers
    assert judge.spent.calls == 8
    here = Desk(
        OpenAIConfig(model=MODEL, base_url=endpoint.url).build(), AnswerStore(tmp_path / "here.sqlite"), attempts=None
    )
    for there, answer in zip(answers, here.ask(questions), strict=True):
        assert (there.texts, there.logprobs, there.calls) == (answer.texts, answer.logprobs, answer.calls)
    here.close()


def test_what_it_logs_comes_out_here(judge: JudgeProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answers = judge.ask([question(k) for k in range(20)])
    assert sum(answer.error.startswith("budget: ") for answer in answers) == 8
    assert "The judge is asked no more" in caplog.text


def test_mistakes_are_told_here(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing answers at"):
        JudgeProcess(OpenAIConfig(model=MODEL, base_url="http://127.0.0.1:9/v1"))
    made = JudgeProcess(OpenAIConfig(model=MODEL, base_url=endpoint.url))
    (tmp_path / "no.sqlite").write_text("not a database, though it is long enough to be taken for one" * 9)
    with pytest.raises(UserError, match=r"no\.sqlite"):
        made.open(tmp_path / "no.sqlite", Budget(), workers=1)
    made.close()


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_who_waits_learns_that_it_has_ended(endpoint: Endpoint, judge: JudgeProcess, how: str) -> None:
    endpoint.mode = "stall"
    ended: list[ConnectionError] = []

    def ask(k: int) -> None:
        try:
            judge.ask([question(k)])
        except ConnectionError as error:
            ended.append(error)

    threads = [threading.Thread(target=ask, args=(k,), daemon=True) for k in range(3)]
    for thread in threads:
        thread.start()
    while not endpoint.under_way:
        time.sleep(0.01)
    spent = judge.spent
    if how == "killed":
        assert judge.pid is not None
        os.kill(judge.pid, signal.SIGKILL)
    else:
        judge.close()
    for thread in threads:
        thread.join(20.0)
    assert len(ended) == 3
    with pytest.raises(ConnectionError):
        judge.known([question(1)])
    assert judge.spent == spent
    judge.close()  # once more does no harm


def test_it_ends_with_a_parent_that_is_killed(endpoint: Endpoint) -> None:
    code = f"""
import time
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.process import JudgeProcess
if __name__ == "__main__":
    print(JudgeProcess(OpenAIConfig(model={MODEL!r}, base_url={endpoint.url!r})).pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert not psutil.wait_procs([child], timeout=20.0)[1]
