from __future__ import annotations

import copy
import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import CrossQ
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import BrightnessEncoder, PointEnv
from vlmrl.agents import checkpoints
from vlmrl.agents.buffers import (
    RewardFillingDictRolloutBuffer,
    RewardFillingReplayBuffer,
    RewardFillingRolloutBuffer,
    attach_rewards,
    replay_settings,
)
from vlmrl.agents.features import policy_for
from vlmrl.agents.recurrent import RewardFillingRecurrentPPO
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.serving.scorer import LocalScorer


class Discrete(gym.ActionWrapper):
    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(2)

    def action(self, action: int) -> np.ndarray:
        return np.array([2.0 * action - 1], dtype=np.float32)


class Parts(gym.ObservationWrapper):
    """The point in a dict, beside a word."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        words = gym.spaces.Box(0, 2, (3,), np.uint8)
        self.observation_space = gym.spaces.Dict({"point": env.observation_space, "mission": words})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"point": observation, "mission": np.array([1 + (observation[0] > 0), 0, 0], np.uint8)}


def environments(lengths: tuple[int, ...], name: str = "") -> RewardVecEnv:
    model = ClipReward("bright", encoder=BrightnessEncoder())

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env = Discrete(PointEnv()) if name == "dqn" else PointEnv()
            env = gym.wrappers.TimeLimit(Parts(env) if "dict" in name else env, lengths[i])
            return SeededEpisodes(RowWriter(env, model.needs, at_reset=False), seed=5, index=i)

        return make

    rewards = LazyRewards(model, LocalScorer(model.encoder), RewardScale(enabled=True))
    return RewardVecEnv(DummyVecEnv([factory(i) for i in range(len(lengths))]), rewards)


class Stop(BaseCallback):
    """Ends a run that was meant to be longer."""

    def __init__(self, at: int):
        super().__init__()
        self._at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self._at


SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 1}
ROLLOUTS = {"n_steps": 10, "batch_size": 20, "n_epochs": 2}
MAKERS = {
    "sac": (
        SAC,
        {"learning_starts": 30, "batch_size": 16, "buffer_size": 200, "replay_buffer_class": RewardFillingReplayBuffer},
    ),
    "sac, noise": (
        SAC,
        {
            "learning_starts": 30,
            "batch_size": 16,
            "buffer_size": 200,
            "replay_buffer_class": RewardFillingReplayBuffer,
            "action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1), dt=0.1),
        },
    ),
    "crossq": (
        CrossQ,
        {"learning_starts": 30, "batch_size": 16, "buffer_size": 200, "replay_buffer_class": RewardFillingReplayBuffer},
    ),
    "sac, 3 steps": (SAC, {"learning_starts": 30, "batch_size": 16, "buffer_size": 200, **replay_settings(3, 0.9)}),
    "dqn": (
        DQN,
        {
            "learning_starts": 30,
            "batch_size": 16,
            "buffer_size": 200,
            "train_freq": 2,
            "replay_buffer_class": RewardFillingReplayBuffer,
        },
    ),
    "ppo": (PPO, {**ROLLOUTS, "rollout_buffer_class": RewardFillingRolloutBuffer}),
    "ppo, dict": (PPO, {**ROLLOUTS, "rollout_buffer_class": RewardFillingDictRolloutBuffer}),
    "recurrent": (RewardFillingRecurrentPPO, ROLLOUTS),
    "recurrent, dict": (RewardFillingRecurrentPPO, ROLLOUTS),
}


def build(name: str, lengths: tuple[int, ...]) -> BaseAlgorithm:
    cls, kwargs = MAKERS[name]
    env, kwargs = environments(lengths, name), copy.deepcopy({**kwargs, **SMALL})
    policy, features = policy_for(env.observation_space, 8, "LstmPolicy" if "recurrent" in name else "Policy")
    kwargs["policy_kwargs"] |= features | ({"lstm_hidden_size": 8} if "recurrent" in name else {})
    model = cls(policy, env, **kwargs)
    attach_rewards(model)
    return model


@pytest.mark.parametrize("lengths", [(10, 10), (7, 12)], ids=["together", "apart"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    tmp_path: Path, name: str, lengths: tuple[int, ...]
) -> None:
    whole = build(name, lengths)
    whole.learn(400, callback=checkpoints.CheckpointCallback(tmp_path / "whole", every=100, patience=12))

    first = build(name, lengths)
    first.learn(400, callback=[checkpoints.CheckpointCallback(tmp_path / "parts", every=100, patience=12), Stop(260)])
    del first
    np.random.seed(99)  # what happens in between must not matter
    torch.manual_seed(99)
    checkpoint = checkpoints.newest(tmp_path / "parts")
    step = int(checkpoint.path.name)
    assert 100 <= step <= 260
    second = checkpoints.restore(MAKERS[name][0], checkpoint, environments(lengths, name), "cpu")
    assert second.num_timesteps == step
    second.learn(
        400 - step,
        reset_num_timesteps=False,
        callback=checkpoints.CheckpointCallback(tmp_path / "parts", every=100, patience=12),
    )

    assert second.num_timesteps == whole.num_timesteps
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[key]), key
    if hasattr(whole, "replay_buffer"):
        for field in ("observations", "actions", "rewards", "dones", "timeouts"):
            np.testing.assert_array_equal(
                getattr(whole.replay_buffer, field), getattr(second.replay_buffer, field), err_msg=field
            )


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    model = build("sac", (7, 12))
    model.learn(60)
    checkpoint = checkpoints.save_at_end(model, tmp_path)
    assert checkpoint.path.name == "60"
    longer = checkpoints.restore(SAC, checkpoint, environments((7, 12)), "cpu")
    longer.learn(40, reset_num_timesteps=False)
    assert longer.num_timesteps == 100
    assert longer.replay_buffer._added == 50  # vector steps of two environments, the first run's among them


def test_a_full_disk_leaves_the_checkpoint_before_it_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("sac", (10, 10))
    model.learn(100)
    before = checkpoints.save(model, tmp_path)
    content = {path.name: path.read_bytes() for path in before.path.iterdir()}
    model.learn(100, reset_num_timesteps=False)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(model, tmp_path)
    assert checkpoints.newest(tmp_path) == before
    assert {path.name: path.read_bytes() for path in (tmp_path / "last").iterdir()} == content
    assert not list(tmp_path.glob("*.draft"))


def test_old_checkpoints_are_forgotten(tmp_path: Path) -> None:
    model = build("ppo", (10, 10))
    for _ in range(3):
        model.learn(20, reset_num_timesteps=False)
        checkpoints.save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["40", "60", "last"]
    assert (tmp_path / "last").resolve().name == "60"


def test_a_broken_checkpoint_and_none_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoints.newest(tmp_path)
    model = build("sac", (10, 10))
    model.learn(40)
    checkpoint = checkpoints.save(model, tmp_path)
    checkpoint.replay.write_bytes(checkpoint.replay.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        checkpoints.restore(SAC, checkpoint, environments((10, 10)), "cpu")


def test_cut_episodes_do_not_reach_into_the_next_one() -> None:
    model = build("sac, 3 steps", (7, 12))
    model.learn(60)
    buffer = model.replay_buffer
    newest = (buffer.pos - 1) % buffer.buffer_size
    assert not buffer.dones[newest].all()
    checkpoints._cut(model, checkpoints._reward_env(model))
    assert (buffer.dones[newest] * (1 - buffer.timeouts[newest]) == 0).all()  # still bootstraps
    assert buffer.dones[newest].all()
