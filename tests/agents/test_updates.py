"""The faster updates are those of Stable-Baselines3 and SB3-Contrib, up to rounding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import CrossQ
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import PointEnv
from vlmrl.agents.crossq import CrossqConfig
from vlmrl.agents.sac import SacConfig
from vlmrl.agents.updates import FastCrossQ, FastSAC
from vlmrl.commands import compose
from vlmrl.errors import UserError
from vlmrl.typed import typed


class NoiseEnv(gym.Env):
    """What it shows is noise around 0, so that no hidden unit is always on.

    Before a normalisation, the bias of one that is has no gradient but rounding, which Adam would make large.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (6,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.normal(size=6).astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        seen = self.np_random.normal(size=6).astype(np.float32)
        return seen, float(action.sum() + seen[0]), bool(seen[1] > 1), False, {}


def trained(algorithm: type[Any], updates: int, **settings: Any) -> BaseAlgorithm:
    """Fill a buffer at random, then take gradient steps on it."""
    model = algorithm(
        "MlpPolicy",
        gym.wrappers.TimeLimit(NoiseEnv(), 7),
        learning_starts=200,
        batch_size=32,
        policy_kwargs={"net_arch": [32, 32], "optimizer_kwargs": settings.pop("optimizer_kwargs", {})},
        seed=1,
        device="cpu",
        **settings,
    )
    model.learn(200)
    model._current_progress_remaining = 0.5
    model.train(updates, 32)
    return model


@pytest.mark.parametrize(
    ("fast", "plain", "settings"),
    [
        (FastSAC, SAC, {}),
        (FastSAC, SAC, {"ent_coef": 0.2, "target_update_interval": 3, "learning_rate": lambda left: 1e-3 * left}),
        (
            FastSAC,
            SAC,
            {"replay_buffer_class": NStepReplayBuffer, "replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.9}},
        ),
        (FastCrossQ, CrossQ, {}),
        (FastCrossQ, CrossQ, {"ent_coef": "auto_0.3", "policy_delay": 2}),
    ],
)
def test_after_some_updates_all_weights_and_losses_agree(
    fast: type[Any], plain: type[Any], settings: dict[str, Any]
) -> None:
    # Few: Adam divides even the smallest gradients by their size, so that what was rounding does not stay it for long.
    one, other = trained(fast, 6, **settings), trained(plain, 6, **settings)
    weights = other.policy.state_dict()
    for name, weight in one.policy.state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: name + text)
    for key in ("train/critic_loss", "train/actor_loss", "train/ent_coef", "train/n_updates"):
        np.testing.assert_allclose(one.logger.name_to_value[key], other.logger.name_to_value[key], rtol=1e-4)
    assert one._n_updates == other._n_updates == 6


def test_weights_that_were_updated_are_what_was_compared() -> None:
    """The test above could pass if nothing had moved."""
    before, after = trained(SAC, 1).policy.state_dict(), trained(SAC, 6).policy.state_dict()
    assert all((before[name] != after[name]).any() for name in before if name.endswith("weight"))


@pytest.mark.parametrize("config", [SacConfig, CrossqConfig])
def test_the_setting_chooses_it_and_either_class_loads_what_the_other_has_saved(config: type, tmp_path: Path) -> None:
    name = {SacConfig: "sac", CrossqConfig: "crossq"}[config]
    values = {key: value for key, value in compose("train", [f"agent={name}"]).agent.items() if key != "name"}
    env = DummyVecEnv([lambda: gym.wrappers.TimeLimit(PointEnv(), 7)])
    fast = typed(config, values | {"fast_update": True, "buffer_size": 300, "learning_starts": 100})
    plain = dataclasses.replace(fast, fast_update=False)
    assert issubclass(fast.algorithm(), plain.algorithm())
    assert fast.algorithm() is not plain.algorithm()
    model = fast.build(env, 0, "cpu").learn(110)
    for group in model.critic.optimizer.param_groups:
        assert group["fused"]
        assert group["betas"] == plain.build(env, 0, "cpu").critic.optimizer.param_groups[0]["betas"]
    model.save(tmp_path / "fast.zip")
    loaded = plain.algorithm().load(tmp_path / "fast.zip", env=env).learn(110)
    loaded.save(tmp_path / "plain.zip")
    fast.algorithm().load(tmp_path / "plain.zip", env=env).learn(110)


def test_state_dependent_noise_is_refused_at_start() -> None:
    values = {key: value for key, value in compose("train", ["agent=sac"]).agent.items() if key != "name"}
    with pytest.raises(UserError, match="agent.fast_update=true draws its own noise"):
        typed(SacConfig, values | {"fast_update": True, "use_sde": True})
