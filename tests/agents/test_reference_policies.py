"""Policies that come with the suite: small, without what only training needs, and acting as the algorithm did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import CrossQ
from stable_baselines3 import DQN, PPO, SAC, TD3

from vlmrl.agents import reference_policies
from vlmrl.agents.reference_policies import FOLDER, LIMIT, available, find, publish
from vlmrl.errors import UserError


def small(algorithm: type, width: int = 8) -> Any:
    env = "CartPole-v1" if algorithm in (PPO, DQN) else "Pendulum-v1"
    kwargs: dict[str, Any] = {} if algorithm is PPO else {"buffer_size": 8}
    return algorithm("MlpPolicy", env, device="cpu", seed=0, policy_kwargs={"net_arch": [width, width]}, **kwargs)


@pytest.mark.parametrize("algorithm", [PPO, DQN, SAC, TD3, CrossQ])
def test_it_acts_as_the_algorithm_does(algorithm: type, tmp_path: Path) -> None:
    model = small(algorithm)
    publish(model, "toy", "stand_up", {"steps": 7}, tmp_path)
    policy = find("toy", "stand_up", tmp_path).load()
    observations = np.random.default_rng(0).uniform(-1, 1, (16, *model.observation_space.shape)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    np.testing.assert_array_equal(policy.predict(observations, deterministic=True)[0], expected)
    assert policy.action_space == model.action_space and policy.observation_space == model.observation_space
    assert json.loads((tmp_path / "toy_stand_up.json").read_text())["steps"] == 7
    whole = tmp_path / "whole.zip"
    model.save(whole)
    assert (tmp_path / "toy_stand_up.pth").stat().st_size < whole.stat().st_size / 2


def test_what_is_missing_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no reference policy for env=toy task=up. There is none yet. .*vlmrl.train"):
        find("toy", "up", tmp_path)
    publish(small(PPO), "toy", "down", {}, tmp_path)
    with pytest.raises(UserError, match="There are: env=toy task=down"):
        find("toy", "up", tmp_path)
    assert list(available(tmp_path)) == ["toy/down"]


def test_a_large_one_is_refused_and_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(small(PPO), "toy", "up", {"which": "first"}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(reference_policies, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"takes 0\.\d MB, and a reference policy may take 0.0 MB.*net_arch"):
        publish(small(PPO, width=128), "toy", "up", {"which": "second"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_those_of_the_suite_load_and_fit_their_environment() -> None:
    """Nothing to check until the first one is published; from then on, each."""
    from vlmrl.commands import compose, plain
    from vlmrl.workflows.build import build_parts
    from vlmrl.workflows.config.train import train_settings
    from vlmrl.workflows.evaluate import spaces
    from vlmrl.workflows.policies import open_policy

    assert {path.stem for path in FOLDER.glob("*.pth")} == {path.stem for path in FOLDER.glob("*.json")}
    for reference in available().values():
        assert reference.weights.stat().st_size <= LIMIT
        values = plain(compose("train", [f"env={reference.env}", f"task={reference.task}", "reward=ground_truth"]))
        parts = build_parts(train_settings(values), "cpu")
        open_policy("reference", *spaces(parts.env), env=reference.env, task=reference.task)
        assert "/" not in json.loads(reference.card.read_text())["command"]
