"""The page over HTTP: who is asked what, who is let in, what is stored."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image

from tests.judges.clips import clip, comparison
from vlmrl.errors import UserError
from vlmrl.judges.base import Comparison
from vlmrl.judges.ground_truth import GroundTruthConfig
from vlmrl.judges.human import HumanConfig
from vlmrl.judges.store import AnswerStore
from vlmrl.workflows.config.label import LabelConfig, label_settings
from vlmrl.workflows.label.desk import LabelDesk, turned
from vlmrl.workflows.label.http import animate, make_app
from vlmrl.workflows.label.run import listen, read_token, store_of

PAIRS = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.3), (0.1, 0.7)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    answers = AnswerStore(tmp_path / "answers.sqlite")
    yield answers
    answers.close()


def put(store: AnswerStore, **settings: Any) -> list[str]:
    desk = HumanConfig(**settings).open_desk(None, "cpu", store.path)
    keys = desk.submit([comparison(*pair, frames=3) for pair in PAIRS])
    desk.close()
    return keys


def client(store: AnswerStore, token: str = "", **settings: Any) -> TestClient:
    return TestClient(make_app(LabelDesk(store, **settings), fps=10, token=token))


def redder(page: TestClient, question: dict[str, Any]) -> str:
    """Look at both clips, and say on which side the redder one is."""
    reds = []
    for side in ("left", "right"):
        picture = Image.open(io.BytesIO(page.get(f"/clip/{question[side]}.png").content))
        reds.append(np.asarray(picture.convert("RGB"))[..., 0].mean())
    return "left" if reds[0] > reds[1] else "right"


def test_what_is_seen_is_what_is_stored(store: AnswerStore) -> None:
    keys, page = put(store), client(store)
    state = page.get("/api/next", params={"rater": "ann"}).json()
    seen = []
    while (question := state["question"]) is not None:
        seen.append(question["key"])
        assert question["goal"] == "a red picture"
        answer = {"key": question["key"], "rater": "ann", "verdict": redder(page, question), "seconds": 1.5}
        state = page.post("/api/rate", json=answer).json()
    assert seen == keys
    assert state["progress"] == {"done": 4, "left": 0, "total": 4, "settled": 4}
    stored = [store.ratings()[key]["ann"] for key in keys]
    assert stored == ["left", "right", "left", "right"]  # although sides are drawn
    assert {turned(key, str(rater)) for key in keys for rater in range(8)} == {True, False}


def test_two_raters_and_their_agreement(store: AnswerStore) -> None:
    keys = put(store, raters=2, gold_gap=0.5)
    desk = LabelDesk(store)
    for rater, verdicts in {"ann": ["left", "right", "left", "tie"], "bob": ["left", "right", "right", "tie"]}.items():
        for key, verdict in zip(keys, verdicts, strict=True):
            given = {"left": "right", "right": "left"}.get(verdict, verdict) if turned(key, rater) else verdict
            desk.rate(key, rater, given, 1.0)  # type: ignore[arg-type]
    report = client(store).get("/api/report").json()
    assert report["raters"][0] == {"rater": "ann", "rated": 4, "gold": 3, "gold_right": 2}
    (pair,) = report["pairs"]
    assert (pair["raters"], pair["n"], pair["observed"]) == (["ann", "bob"], 4, 0.75)
    # Three people are not asked where two were wanted, but for control questions.
    third = desk.progress("eve")
    assert third.left == 3 and third.settled == 4


def test_undo_takes_back_what_is_not_used(store: AnswerStore) -> None:
    put(store)
    page = client(store)
    assert page.post("/api/undo", json={"rater": "ann"}).status_code == 409
    first = page.get("/api/next", params={"rater": "ann"}).json()["question"]
    page.post("/api/rate", json={"key": first["key"], "rater": "ann", "verdict": "tie"})
    assert page.post("/api/undo", json={"rater": "ann"}).json()["question"] == first
    assert store.ratings() == {}
    page.post("/api/rate", json={"key": first["key"], "rater": "ann", "verdict": "left"})
    trainer = HumanConfig().open_desk(None, "cpu", store.path)
    trainer.submit([comparison(*PAIRS[0], frames=3)])
    assert len(trainer.collect()) == 1
    trainer.close()
    refused = page.post("/api/undo", json={"rater": "ann"})
    assert refused.status_code == 409 and "in use" in refused.json()["detail"]


def test_an_experts_answers_are_control_questions(store: AnswerStore) -> None:
    keys = put(store)
    page = client(store, expert="boss")
    shown = page.get("/api/next", params={"rater": "boss"}).json()["question"]
    page.post("/api/rate", json={"key": shown["key"], "rater": "boss", "verdict": redder(page, shown)})
    assert [entry.gold for entry in store.questions()] == ["left", None, None, None]
    assert client(store).get("/api/next", params={"rater": "ann"}).json()["question"]["key"] == keys[0]


def test_everything_that_was_kept_can_be_labelled_again(store: AnswerStore) -> None:
    for pair, keep in zip(PAIRS, (True, False, True, False), strict=True):
        desk = GroundTruthConfig(keep_clips=keep).open_desk(None, "cpu", store.path)
        desk.ask([comparison(*pair)])
        desk.close()
    assert LabelDesk(store).progress("ann").left == 0
    desk_of_all = LabelDesk(store, everything=True)
    assert desk_of_all.progress("ann").left == 2


def test_bad_requests_are_refused(store: AnswerStore) -> None:
    (key, *_) = put(store)
    page = client(store)
    for body in (
        {"key": "unknown", "rater": "ann", "verdict": "left"},
        {"key": key, "rater": "", "verdict": "left"},
        {"key": key, "rater": "ann", "verdict": "error"},
        {"key": key, "rater": "ann", "verdict": "left", "seconds": -1},
    ):
        assert page.post("/api/rate", json=body).status_code in (404, 422)
    for path in ("/clip/zz.png", "/clip/00.png", "/../pyproject.toml", "/run.py", "/openapi.json"):
        assert page.get(path).status_code == 404
    assert store.ratings() == {}


def test_without_the_token_nothing_is_shown(store: AnswerStore) -> None:
    (key, *_) = put(store)
    page = client(store, token="open-sesame")
    for path in ("/", "/api/next?rater=ann", "/api/report", "/?token=wrong"):
        assert page.get(path).status_code == 401
    assert page.post("/api/rate", json={"key": key, "rater": "ann", "verdict": "left"}).status_code == 401
    assert page.get("/api/report", headers={"Authorization": "Bearer open-sesame"}).status_code == 200
    opened = page.get("/?token=open-sesame")
    assert opened.status_code == 200 and "token" not in str(opened.url)  # led on to the plain address, with a cookie
    assert page.get("/api/next?rater=ann").status_code == 200


def test_other_names_for_this_machine_are_refused(store: AnswerStore) -> None:
    page = client(store)
    assert page.get("/").status_code == 200
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert "default-src 'self'" in page.get("/").headers["content-security-policy"]
    for file in ("/", "/page.js", "/page.css"):
        assert "//" not in page.get(file).text.replace("// ", "")  # nothing from outside


def test_clips_move_without_loss() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    picture: Any = Image.open(io.BytesIO(animate(frames, 10)))
    assert (picture.n_frames, picture.info["loop"]) == (4, 0)
    for i, frame in enumerate(frames):
        picture.seek(i)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), frame)
        assert picture.info["duration"] == (700 if i == 3 else 100)
    assert Image.open(io.BytesIO(animate(clip(0.5), 10))).size == (8, 8)


def settings(**values: Any) -> LabelConfig:
    plain = {
        "run": None,
        "store": None,
        "questions": "waiting",
        "expert": None,
        "export": None,
        "fps": 10,
        "host": "127.0.0.1",
    }
    return label_settings({**plain, "port": 0, "token_file": None, **values})


def test_mistakes_at_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Give either run="):
        settings()
    with pytest.raises(UserError, match="host=0.0.0.0 lets other machines in"):
        settings(store="a", host="0.0.0.0")
    (tmp_path / "short").write_text("abc\n")
    with pytest.raises(UserError, match="take at least 8"):
        read_token(str(tmp_path / "short"))
    with pytest.raises(UserError, match="cannot be read"):
        read_token(str(tmp_path / "none"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"total_timesteps": 1, "judge": {"name": "encoder"}}))
    with pytest.raises(UserError, match="its judge is encoder"):
        store_of(settings(run=str(tmp_path)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="Take another port"):
            listen("127.0.0.1", taken.getsockname()[1])


def test_clips_of_different_sizes_are_shown(store: AnswerStore) -> None:
    desk = HumanConfig().open_desk(None, "cpu", store.path)
    desk.submit([Comparison("go", clip(0.1, 3, 8), clip(0.2, 5, 12))])
    desk.close()
    page = client(store)
    question = page.get("/api/next", params={"rater": "ann"}).json()["question"]
    sizes = {Image.open(io.BytesIO(page.get(f"/clip/{question[side]}.png").content)).size for side in ("left", "right")}
    assert sizes == {(8, 8), (12, 12)}
