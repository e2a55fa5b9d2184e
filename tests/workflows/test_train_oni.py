"""`reward=oni` for real: a run with recorded labels, one with a server that labels, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from tests.reward_models.label_endpoint import serve_labels
from tests.workflows.test_train import COMMON, last, run
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.reward_models.oni_labels import read_table
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.evaluate import open_run
from vlmrl.workflows.run_folder import RunFolder

pytest.importorskip("minigrid")  # of vlmrl[dev]

TINY = [
    "env=minigrid",
    "reward=oni",
    "n_envs=2",
    "agent.n_steps=64",
    "agent.batch_size=64",
    "agent.n_epochs=2",
    "agent.net_arch=[16]",
    "log_interval=1",
    "video=false",
    "total_timesteps=256",
    "env.max_episode_steps=40",
]


def test_a_run_with_recorded_labels_needs_nobody(tmp_path: Path) -> None:
    output = run(tmp_path, *TINY, *COMMON, "reward.intrinsic_coef=0.5", "reward.variant=classification")
    assert "recorded labels, aim: do the mission" in output and "r by classification" in output
    path = last(tmp_path)
    with (path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        sum(float(row["reward/intrinsic"] or 0) for row in rows) > 0
        and 0 < float(rows[-1]["reward/labelled_share"]) < 1
    )
    assert float(rows[-1]["annotator/accuracy"]) > 0.8
    # What the episodes are said to have earned is both parts together.
    assert float(rows[-1]["rollout/ep_vlm_rew_mean"]) > float(rows[-1]["rollout/ep_rew_mean"])
    annotations = json.loads((path / "result.json").read_text())["annotations"]
    assert annotations["variant"] == "classification" and annotations["texts"] > 3
    _, parts, _ = open_run(RunFolder(path), "cpu")
    model = parts.model
    assert model.version == annotations["version"] >= 1  # type: ignore[attr-defined]
    assert model.opinion("you pick up the yellow key") == 1  # type: ignore[attr-defined]
    table = read_table(path / "labels.json")
    assert (
        table.label_of("you pick up the red key; you see lava") == 1
    )  # the labels of a run are a table like any other


def test_a_run_asks_a_server_once_and_another_seed_uses_its_labels(tmp_path: Path) -> None:
    asked = [
        "reward.labels=judge",
        "judge=openai",
        "judge.model=labeller",
        "judge.store=answers.sqlite",
        "judge.retries=0",
        "goal='find your way out'",
        "task=none",
        "total_timesteps=256",
    ]
    with serve_labels() as server:
        run(tmp_path, *TINY, *COMMON, *asked, f"judge.base_url={server.url}")
        result = json.loads((last(tmp_path) / "result.json").read_text())["annotations"]
        assert set(server.texts.values()) == {1}
        assert 0 < result["labels"] <= result["texts"] and result["calls"] == server.requests
        labels = read_table(last(tmp_path) / "labels.json")
        assert labels.goal == "find your way out"
        for text, label in labels.labels.items():
            assert math.isclose(label, 0.8 / 0.9 if "key" in text or "door" in text else 0.1 / 0.9, abs_tol=1e-9)
    # The server is gone. What it labelled for one seed is used by another, and training is what it was.
    output = run(
        tmp_path,
        *TINY,
        *COMMON,
        *asked,
        "judge.base_url=http://127.0.0.1:9/v1",
        "judge.check=false",
        "judge.timeout_s=1",
        "seed=1",
    )
    assert "trained for 256 steps" in output
    again = json.loads((last(tmp_path) / "result.json").read_text())["annotations"]
    assert again["known"] > 0 and again["labelled"] == 0


def test_what_is_refused_is_refused_at_start() -> None:
    def settings(*overrides: str) -> TrainConfig:
        return train_settings(plain(compose("train", ["env=minigrid", "reward=oni", *overrides])))

    for override, said in (
        ("keep=best", "keep=best compares"),
        ("reward.variant=motif", "reward.preferences=<file>"),
        ("reward.labels=judge", "judge=encoder answers no questions about texts"),
    ):
        with pytest.raises(UserError, match=said):
            settings(override)
    assert settings("reward.labels=judge", "judge=openai").asks_judge
    assert settings("env=nethack").reward.config.table == "nethack"
    with pytest.raises(UserError, match="no labels come with the suite for 'cartpole'"):
        settings("env=cartpole").reward.config.build(None, None)
