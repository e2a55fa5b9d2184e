"""Learners whose rewards come from elsewhere learn what they would have learned here, whatever happens there."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import BrightnessConfig, BrightnessEncoder, PointEnv
from vlmrl.agents.buffers import RewardFillingReplayBuffer, RewardFillingRolloutBuffer, attach_rewards
from vlmrl.agents.callbacks import RewardLog
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.serving.local import LocalConfig
from vlmrl.serving.process import ProcessConfig
from vlmrl.serving.settings import Service
from vlmrl.serving.thread import ThreadConfig

N_ENVS = 2
MAKERS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]] = {
    "sac": (
        SAC,
        {"learning_starts": 40, "batch_size": 16, "buffer_size": 200, "replay_buffer_class": RewardFillingReplayBuffer},
    ),
    "ppo": (PPO, {"n_steps": 25, "batch_size": 10, "n_epochs": 2, "rollout_buffer_class": RewardFillingRolloutBuffer}),
}


def build(agent: str, service: Service, lag: int) -> BaseAlgorithm:
    model = ClipReward("bright", encoder=service.encoder)

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env = gym.wrappers.TimeLimit(PointEnv(), 12)
            return SeededEpisodes(RowWriter(env, model.needs, at_reset=False), seed=5, index=i)

        return make

    rewards = LazyRewards(model, service.scorer(), RewardScale(enabled=True), delay=lag)
    env = RewardVecEnv(DummyVecEnv([factory(i) for i in range(N_ENVS)]), rewards)
    cls, settings = MAKERS[agent]
    algorithm = cls("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, device="cpu", seed=1, **settings)
    attach_rewards(algorithm)
    return algorithm


def same(first: BaseAlgorithm, second: BaseAlgorithm) -> bool:
    pairs = zip(first.policy.state_dict().values(), second.policy.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Moody(BrightnessEncoder):
    """Takes its time, and never the same."""

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        time.sleep(random.uniform(0, 0.02))
        return super().encode_images(frames)


class MoodyConfig:
    def build(self, device: str) -> Moody:
        return Moody()


@pytest.mark.parametrize("agent", MAKERS)
def test_timing_never_changes_numbers(agent: str) -> None:
    lag = 8 if agent == "sac" else 0
    here = LocalConfig(batch_size=8).build(BrightnessConfig(), "cpu")
    reference = build(agent, here, lag)
    reference.learn(200)
    for _ in range(2):
        moody = ThreadConfig(batch_size=8).build(MoodyConfig(), "cpu")
        algorithm = build(agent, moody, lag)
        algorithm.learn(200)
        moody.close()
        assert same(reference, algorithm)


class Kill(BaseCallback):
    """Kills the scorer's process at some steps, as an operating system does that runs out of memory."""

    def __init__(self, service: Service, steps: tuple[int, ...]):
        super().__init__()
        self._service, self._steps = service, steps

    def _on_step(self) -> bool:
        if self.num_timesteps in self._steps:
            os.kill(self._service._engine.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        return True


def test_a_scorer_that_is_killed_in_mid_training_changes_nothing() -> None:
    undisturbed = build("sac", LocalConfig(batch_size=8).build(BrightnessConfig(), "cpu"), lag=8)
    undisturbed.learn(240)
    service = ProcessConfig(batch_size=8).build(BrightnessConfig(seconds=0.005), "cpu")
    algorithm = build("sac", service, lag=8)
    algorithm.learn(240, callback=Kill(service, (30, 100, 202)))
    assert service._engine.restarts == 3
    for buffer in (undisturbed.replay_buffer, algorithm.replay_buffer):  # type: ignore[attr-defined]
        buffer._fill(buffer._added)
    np.testing.assert_array_equal(
        undisturbed.replay_buffer.actions,  # type: ignore[attr-defined]
        algorithm.replay_buffer.actions,  # type: ignore[attr-defined]
    )
    np.testing.assert_allclose(
        undisturbed.replay_buffer.rewards,  # type: ignore[attr-defined]
        algorithm.replay_buffer.rewards,  # type: ignore[attr-defined]
        atol=1e-5,
    )
    service.close()
    assert same(undisturbed, algorithm)


class Keep(KVWriter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def test_how_the_scorer_keeps_up_is_logged() -> None:
    service = ThreadConfig(batch_size=8).build(BrightnessConfig(seconds=0.01), "cpu")
    algorithm = build("sac", service, lag=8)
    keep = Keep()
    algorithm.set_logger(Logger(None, [keep]))
    algorithm.learn(200, callback=RewardLog(algorithm.env.rewards, lines=0), log_interval=4)  # type: ignore[union-attr]
    service.close()
    row = keep.rows[-1]
    assert 1 <= row["reward/queue_depth"] <= 16  # a batch fills while, at times, another is encoded
    assert row["reward/age_s"] > 0.01  # no younger than it takes to encode
    assert row["reward/wait_s"] >= 0
    assert row["reward/restarts"] == row["reward/reused"] == 0


def test_numbers_that_are_not_finite_name_model_prompt_and_step() -> None:
    service = ThreadConfig(batch_size=4).build(BrightnessConfig(nan_above=120), "cpu")
    algorithm = build("ppo", service, lag=0)
    with pytest.raises(UserError, match=r"Encoder brightness .*not finite.*RowKey\(env=\d, episode=\d.*\['bright'\]"):
        algorithm.learn(50)
    service.close()


def test_a_lag_that_leaves_nothing_to_learn_from_is_found_at_start() -> None:
    service = LocalConfig().build(BrightnessConfig(), "cpu")
    with pytest.raises(UserError, match="raise agent.learning_starts"):
        build("sac", service, lag=50)
