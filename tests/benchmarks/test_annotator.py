"""The annotator's benchmark: its server, and learners whose texts are labelled."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.annotator import WORLDS, Labels, Server, make_learner


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Labels, "latency", 0.1)
    running = Server(("127.0.0.1", 0), Labels)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def ask(server: Server) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("POST", "/v1/chat/completions", b"{}")
    return connection


def test_whoever_leaves_before_the_answer_makes_no_noise(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    connection = ask(server)
    assert connection.sock is not None
    connection.sock.close()
    time.sleep(0.3)
    assert ask(server).getresponse().status == 200  # and the others are served
    assert capfd.readouterr().err == ""


def test_other_mistakes_are_printed(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Labels, "answer", object())  # which is no JSON
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server).getresponse()
    assert "TypeError" in capfd.readouterr().err


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_one_arm_has_its_texts_labelled(world: str) -> None:
    if world == "nethack":
        pytest.importorskip("nle", reason="needs NetHack: make test-nethack")
    arms: dict[bool, Any] = {
        asks: make_learner(world, asks, latency=0.0, news=0.1, n_envs=2, concurrency=2) for asks in (True, False)
    }

    def labels(arm: Any) -> float:
        assert arm(512) > 0
        return float(arm.annotations.figures()["annotator/labels"])

    try:
        assert any(labels(arms[True]) > 0 for _ in range(50))  # in its own time: a process is started, answers come
        assert labels(arms[False]) == 0
    finally:
        for arm in arms.values():
            arm.close()
