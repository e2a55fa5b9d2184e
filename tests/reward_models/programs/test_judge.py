"""Programs that a model behind an endpoint writes: a real server on loopback, the judge's own client, its store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reward_models.programs.test_generate import fenced
from tests.reward_models.programs.toy import GOOD, TOY, recorded
from tests.reward_models.programs.writer_endpoint import MODEL, serve_writer
from vlmrl.errors import UserError
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.store import AnswerStore
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.process import measured_level
from vlmrl.reward_models.text2reward import ProgramReward, Text2RewardConfig

LEVEL = measured_level()
WORDS = Words(("an arm that points up",))
FAILING = GOOD.replace("np.square(state.angle)", "state.angle + np.ones(3)")
CHEATING = GOOD.replace("import", "").replace("up = ", "open('/etc/passwd')\n    up = ")


class Scene:
    """The toy, and a desk of a judge behind an endpoint."""

    abstraction, episode = TOY, "An episode has 10 steps."

    def __init__(self, folder: Path, url: str, **settings: Any):
        self._folder, self._judge = folder, OpenAIConfig(model=MODEL, base_url=url, **settings)

    def desk(self) -> Desk:
        return self._judge.open_desk(None, "cpu", self._folder / "answers.sqlite")

    def record(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return recorded(n)


def _build(scene: Scene, **settings: Any) -> ProgramReward:
    config = Text2RewardConfig(completions="judge", confinement=LEVEL, **settings)
    return config.build(WORDS, None, scene)  # type: ignore[arg-type]


def _script(*answers: str):
    """Answer by the length of the conversation: the first answer to the first question, and so on."""

    def script(body: dict[str, Any]) -> str:
        return answers[sum(message["role"] == "assistant" for message in body["messages"])]

    return script


def _said(body: dict[str, Any]) -> list[str]:
    contents = [message["content"] for message in body["messages"]]
    return [
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        for content in contents
    ]


def test_what_failed_goes_back_to_the_model_with_its_line(tmp_path: Path) -> None:
    with serve_writer(_script(fenced(CHEATING), fenced(FAILING), fenced(GOOD))) as endpoint:
        model = _build(Scene(tmp_path, endpoint.url))
        assert model.source.strip() == GOOD.strip()
        first, second, third = endpoint.requests
        assert [message["role"] for message in third["messages"]] == ["system", "user"] + ["assistant", "user"] * 2
        assert "state.angle" not in _said(first)[0] and "class State" in _said(first)[1]
        # What reading finds, with the line; what running finds, with numpy's own words.
        assert "line 3: the name 'open' is not defined" in _said(second)[-1]
        assert "line 3: ValueError: operands could not be broadcast" in _said(third)[-1]
        assert "up = np.exp(-state.angle + np.ones(3))" in _said(third)[-1]
        assert _said(third)[2] == fenced(CHEATING)
        assert '"from": "judge=openai"' in model.files["program.json"]
        # The same question again costs nothing, and comes to the same program; another sample is another question.
        assert _build(Scene(tmp_path, endpoint.url)).source == model.source and len(endpoint.requests) == 3
        _build(Scene(tmp_path, endpoint.url), sample=1)
        assert len(endpoint.requests) == 6
    # Nor does it need the endpoint any more.
    assert _build(Scene(tmp_path, endpoint.url, check=False)).source == model.source


def test_a_budget_ends_the_questions_and_says_so(tmp_path: Path) -> None:
    with serve_writer(_script(fenced(CHEATING), fenced(FAILING), fenced(GOOD))) as endpoint:
        with pytest.raises(UserError, match="wrote no reward program: budget.*recorded takes the programs"):
            _build(Scene(tmp_path, endpoint.url, max_calls=2))
        assert len(endpoint.requests) == 2
        store = AnswerStore(tmp_path / "answers.sqlite")
        assert (store.spent().calls, store.spent().prompt_tokens) == (2, 2000)
        store.close()
        # What was paid is kept: with one call more it goes on where it stopped.
        assert _build(Scene(tmp_path, endpoint.url, max_calls=3)).source.strip() == GOOD.strip()
        assert len(endpoint.requests) == 3


def test_a_model_that_never_gets_it_right_is_given_up(tmp_path: Path) -> None:
    with serve_writer(_script(*[fenced(FAILING)] * 5)) as endpoint:
        with pytest.raises(UserError, match="after 2 of 2 rounds(.|\n)*line 3: ValueError"):
            _build(Scene(tmp_path, endpoint.url), rounds=2)
        assert len(endpoint.requests) == 2


def test_an_endpoint_that_is_not_there_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with serve_writer(_script(fenced(GOOD))) as endpoint:
        pass
    with pytest.raises(UserError, match="nothing answers at .*Start the endpoint"):
        _build(Scene(tmp_path, endpoint.url))
    with pytest.raises(UserError, match="wrote no reward program.*reward.completions=recorded"):
        _build(Scene(tmp_path, endpoint.url, check=False, timeout_s=2.0, retries=0))
