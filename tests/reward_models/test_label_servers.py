"""The annotator against servers that others wrote, with a tiny language model behind them that the test makes.

`make test-judges` runs it with the server of transformers; vLLM's is tested where it is installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.llm_servers import KINDS, Kind, serving
from benchmarks.tiny_llm import ABOUT, GOAL, helps, make, texts
from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.judges.base import Message, TextQuestion
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import ChoiceWay, OpenAIConfig
from vlmrl.judges.store import AnswerStore
from vlmrl.reward_models.oni_annotator import Annotator
from vlmrl.reward_models.oni_labels import Item, LabelQuestions, PromptName

prepare_torchvision()
pytest.importorskip("transformers", reason="needs vlmrl[judges]: make test-judges")
TEXTS = texts(12, seed=7)  # none of which the model was taught


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llm"))


@dataclass
class Server:
    """One that runs: what it is, its address, and what its model is called."""

    kind: Kind
    url: str
    model: str


@pytest.fixture(scope="module", params=list(KINDS))
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    kind = KINDS[request.param]
    if missing := kind.missing():
        pytest.skip(missing)
    with serving(request.param, folder) as url:
        yield Server(kind, url, str(folder))


def annotator(server: Server, store: Path, prompt: PromptName, **settings: Any) -> Annotator:
    config = OpenAIConfig(
        model=server.model, base_url=server.url, choices=server.kind.choices, timeout_s=60, retries=0, **settings
    )
    desk = Desk(config.build(), AnswerStore(store), config.budget, attempts=None)
    return Annotator(desk, LabelQuestions(GOAL, ABOUT, prompt), workers=4)


def gather(asked: Annotator, n: int, seconds: float = 120) -> dict[Item, float]:
    found: dict[Item, float] = {}
    deadline = time.monotonic() + seconds
    while len(found) < n:
        assert time.monotonic() < deadline, f"{len(found)} labels of {n}; {asked.stats()}"
        found.update(asked.collect())
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("prompt", ["word", "reason"])
def test_labels_come_from_a_server_that_others_wrote(server: Server, tmp_path: Path, prompt: PromptName) -> None:
    asked = annotator(server, tmp_path / "answers.sqlite", prompt)
    try:
        asked.offer(dict.fromkeys(((text,) for text in TEXTS), 1.0))
        labels = gather(asked, len(TEXTS))
        stats = asked.stats()
        spent = asked._desk.spent
    finally:
        asked.close()
    wrong = [text for (text,), label in labels.items() if (label > 0.5) != helps(text)]
    assert not wrong
    assert stats["calls"] == stats["labelled"] == len(TEXTS) and stats["unreadable"] == 0
    soft = any(0 < label < 1 for label in labels.values())
    assert soft == (prompt == "word" and server.kind.tells_logprobs)  # how likely "yes" was, where the server tells
    written = spent.completion_tokens / spent.calls
    assert written <= 2 if prompt == "word" else written > 10


def test_a_server_can_keep_a_model_to_the_words(server: Server) -> None:
    if server.kind.choices == "words":
        pytest.skip("this server cannot")

    def share_read(choices: ChoiceWay) -> float:
        judge = OpenAIConfig(model=server.model, base_url=server.url, choices=choices).build()
        question = TextQuestion(
            (Message("user", ("What does the newt say?",)),), temperature=2.0, max_tokens=2, choices=("yes", "no")
        )
        try:
            answers = [judge.model.complete(replace(question, seed=seed)) for seed in range(20)]
        finally:
            judge.close()
        return sum(not answer.is_error for answer in answers) / len(answers)

    assert share_read("words") < 0.5  # what it was never taught, and hot: it babbles
    assert share_read(server.kind.choices) == 1
