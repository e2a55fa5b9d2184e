"""`reward=vlm_preference` for real, and what of its settings is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workflows.test_train import COMMON, command, last, run
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.rows import Rows
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.evaluate import open_run
from vlmrl.workflows.run_folder import RunFolder

TINY = [
    "env=cartpole",
    "agent=dqn",
    "n_envs=2",
    "agent.learning_starts=200",
    "agent.gradient_steps=4",
    "agent.net_arch=[16]",
    "reward=vlm_preference",
    "judge=encoder",
    "reward.interact=300",
    "reward.queries=15",
    "reward.max_epochs=5",
    "log_interval=1",
    "checkpoint_every=400",
    "video=false",
]


def test_a_run_learns_its_reward_and_others_use_it(tmp_path: Path) -> None:
    output = run(tmp_path, *TINY, *COMMON, "total_timesteps=450")
    path = last(tmp_path)
    assert "judge encoder: compares two pictures" in output and "transitions rewarded again" in output
    asked = json.loads((path / "result.json").read_text())["preferences"]
    assert asked["questions"] == 30 == sum(asked["answers"].values())
    assert [(version["version"], version["step"]) for version in asked["versions"]] == [(1, 256), (2, 320)]
    assert asked["versions"][-1]["relabelled"] == asked["versions"][-1]["step"]
    assert asked["agrees_with_truth"] > 0.6  # the embedded encoder is right in about nine of ten
    columns = set(next(csv.reader((path / "progress.csv").open())))
    assert {"preference/version", "preference/accuracy", "preference/uncertainty", "preference/left"} <= columns

    # What was learned is there for others: for vlmrl.evaluate, and for another run that only uses it.
    _, parts, _ = open_run(RunFolder(path), "cpu")
    learned: Any = parts.model
    assert learned.version == 2
    weights = f"reward.weights={path / 'reward_model.safetensors'}"
    reward = settings("agent=dqn", weights, "reward.max_queries=0").reward.config.build(None, None)
    embeddings = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32)
    rows = Rows.from_arrays({"embeddings/front": embeddings})
    assert (reward(rows) == learned(rows)).all() and len(set(reward(rows).tolist())) == 5


def settings(*overrides: str) -> TrainConfig:
    return train_settings(plain(compose("train", ["env=cartpole", "reward=vlm_preference", *overrides])))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.max_queries=0"], "needs reward.weights="),
        (["keep=best"], "keep=last"),
        (["agent=dqn", "agent.buffer_size=1000000", "reward.input=cnn"], "agent.buffer_size=200000"),
        (["reward.segment=51"], "1 to 50"),
        (["reward.sampler=entrop"], "Did you mean 'entropy'"),
        (["judge.margin=-1"], "judge.margin is -1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides)


def test_a_run_from_before_there_were_judges_can_still_be_read() -> None:
    values = plain(compose("train", ["env=cartpole", "reward=clip"]))
    del values["judge"]
    old = train_settings(values)
    assert old.judge is None and train_settings({**values, **old.plain()}) == old


def test_an_unlearned_reward_cannot_be_audited(tmp_path: Path) -> None:
    result = command(tmp_path, "env=cartpole", "reward=vlm_preference", "progress_bar=false", module="vlmrl.audit")
    assert result.returncode == 2 and "learned nothing yet" in result.stderr and "Traceback" not in result.stderr
