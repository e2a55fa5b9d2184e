"""Mistakes with agent=appo are told at start, wherever one starts it."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from vlmrl.agents.appo.config import AppoConfig, require_sample_factory
from vlmrl.agents.appo.encoder import FeatureEncoder
from vlmrl.agents.appo.options import factory_options
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.train_appo import train_appo


def settings(*overrides: str) -> TrainConfig:
    given = ["env=cartpole", "reward=ground_truth", "agent=appo", *overrides]
    return train_settings({**plain(compose("train", given)), "run_dir": "nowhere"})


def agent(**changes: Any) -> AppoConfig:
    values = vars(settings().agent.config) | changes
    return AppoConfig(**values)


def test_where_sample_factory_is_missing_one_line_says_make_appo(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sample_factory" else find(name))
    for use in (require_sample_factory, agent().algorithm, lambda: train_appo(settings())):
        with pytest.raises(UserError, match="make appo"):
            use()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward=clip"], "reward=ground_truth or reward=oni"),
        (["reward=oni", "env=babyai", "reward.variant=embedding", "task=mission"], "reward.variant=embedding"),
        (["use_as=potential"], "use_as=potential"),
        (["keep=best"], "keep=best"),
        (["score_every=2"], "score_every=2"),
        (["n_envs=7"], "multiple"),
        (["agent.batch_size=1000"], "992"),
        (["agent.vtrace=true"], "normalize_returns=false"),
        (["agent.n_steps=1"], "agent.rnn=none"),
        (["agent.asynchronous=false", "n_envs=12", "agent.batch_size=512"], "multiple of n_envs"),
    ],
)
def test_what_cannot_be_trained_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides)


def test_what_can_be_trained_is_not() -> None:
    settings("agent.asynchronous=false", "n_envs=8", "agent.batch_size=512")
    settings("agent.vtrace=true", "agent.normalize_returns=false", "agent.rnn=lstm")
    settings("env=babyai", "reward=oni")


def test_a_device_that_sample_factory_cannot_choose_is_refused(tmp_path: Any) -> None:
    space = gym.spaces.Box(-1, 1, (3,))
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=1"):
        factory_options(agent(), space, tmp_path, 8, 100, 0, "cuda:1")
    assert factory_options(agent(), space, tmp_path, 8, 100, 0, "cuda")["device"] == "gpu"


def test_environments_are_shared_out_and_only_real_numbers_are_normalised(tmp_path: Any) -> None:
    space = gym.spaces.Dict({"glyphs": gym.spaces.Box(0, 9, (3, 3), np.int16), "speed": gym.spaces.Box(-1, 1, (2,))})
    options = factory_options(agent(n_workers=2), space, tmp_path, 6, 100, 5, "cpu")
    assert (options["num_workers"], options["num_envs_per_worker"], options["worker_num_splits"]) == (2, 3, 1)
    assert options["normalize_input_keys"] == ["speed"] and options["normalize_input"]
    assert options["seed"] == 5 and options["train_for_env_steps"] == 100


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Dict({"obs": gym.spaces.Box(-1, 1, (3,))}),
        gym.spaces.Dict({"obs": gym.spaces.Box(0, 255, (48, 64, 3), np.uint8)}),
        gym.spaces.Dict(
            {
                "direction": gym.spaces.Discrete(4),
                "image": gym.spaces.Box(0, 10, (7, 7, 3), np.uint8),
                "mission": gym.spaces.Box(0, 60, (20,), np.uint8),
            }
        ),
    ],
    ids=["vector", "picture", "grid"],
)
def test_every_kind_of_observation_becomes_features_that_depend_on_it(space: gym.spaces.Dict) -> None:
    class Settings:
        encoder_mlp_layers = (16, 12)
        features_dim = 24

    torch.manual_seed(0)
    space.seed(0)
    encoder = FeatureEncoder(Settings, space)
    assert encoder.get_out_size() == 12
    seen = [space.sample() for _ in range(5)]
    batch = {key: torch.as_tensor(np.stack([one[key] for one in seen])) for key in space.spaces}
    features = encoder({key: value.float() for key, value in batch.items()})
    assert features.shape == (5, 12)
    assert len(features.detach().unique(dim=0)) == 5
