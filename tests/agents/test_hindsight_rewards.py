"""Rewards that look at a whole episode, as it goes on or once it has ended."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.agents.test_buffers import SPACES, play
from tests.agents.test_checkpoints import SMALL, Stop
from tests.toys import BrightnessEncoder, CountingEnv, PixelReward, PointEnv
from vlmrl.agents import checkpoints
from vlmrl.agents.buffers import (
    RewardFillingNStepReplayBuffer,
    RewardFillingReplayBuffer,
    RewardFillingRolloutBuffer,
    attach_rewards,
    replay_settings,
)
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.envs.shaping import PotentialShaping
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.errors import UserError
from vlmrl.rows import Row, RowKey, Rows
from vlmrl.serving.scorer import LocalScorer


class LastPixels(PixelReward):
    """Every step of an episode earns what its last row shows; with `awaits_end` off the last of those known."""

    def __init__(self, awaits_end: bool = True):
        super().__init__()
        self.context, self.awaits_end = "episode", awaits_end
        self.asked: list[list[int]] = []

    def __call__(self, rows: Rows) -> np.ndarray:
        self.asked.append(rows.t.tolist())
        (view,) = rows["embeddings"].values()
        pixels = np.arctan2(view[:, 1], view[:, 0]) * 2 / np.pi * 255
        return np.full(len(rows), pixels[-1], dtype=np.float32)


class UnevenEnv(CountingEnv):
    """Episodes of `length` + 2 and `length` steps, in turns."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.base = getattr(self, "base", self.length)
        self.length = self.base + 2 * (self.episode % 2)  # the number is that of the episode before
        return super().reset(**kwargs)


def uneven(n_envs: int, length: int, model: PixelReward) -> RewardVecEnv:
    """Environment i begins with episodes one step longer than environment i - 1."""

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            return RowWriter(gym.wrappers.TimeLimit(UnevenEnv(length + i), length + i + 2), model.needs)

        return make

    return RewardVecEnv(
        DummyVecEnv([factory(i) for i in range(n_envs)]), LazyRewards(model, LocalScorer(model.encoder))
    )


def ends_at(episode: np.ndarray, length: int) -> np.ndarray:
    """Number of the last step of episodes of an `UnevenEnv`."""
    return length + 2 * (episode % 2 == 0)


def test_an_episode_is_kept_from_its_reset_on_while_it_runs() -> None:
    model = LastPixels(awaits_end=False)
    env = uneven(1, 3, model)
    env.reset()
    for t in range(1, 6):
        env.step(np.zeros((1, 1)))
        assert env.rewards.fill(env.keys) == pytest.approx(t, abs=1e-2)
        assert model.asked[-1] == list(range(t + 1))
    assert len(env.rewards) == 1  # the reset of the next episode; all of the first is forgotten
    assert env.rewards.pop_returns() == [pytest.approx(15, abs=0.1)]


def test_a_rollout_fills_episodes_that_still_run() -> None:
    env = uneven(2, 3, LastPixels(awaits_end=False))
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=4,
        batch_size=8,
        n_epochs=1,
        gamma=0.0,  # else SB3 adds the value of where a truncated episode stopped
        rollout_buffer_class=RewardFillingRolloutBuffer,
        device="cpu",
        policy_kwargs={"net_arch": [8]},
    )
    attach_rewards(model)
    model.learn(8)
    buffer = model.rollout_buffer
    np.testing.assert_allclose(buffer.rewards, np.full((4, 2), 4.0), atol=1e-2)  # what a rollout's last row shows
    model.learn(8, reset_num_timesteps=False)
    np.testing.assert_allclose(buffer.rewards[0, 0], 4 + 1, atol=1e-2)  # went on where it was, in the first environment


@settings(max_examples=15, deadline=None)
@given(
    n_envs=st.integers(1, 3),
    spare=st.integers(0, 4),
    length=st.integers(1, 4),
    bursts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_only_steps_of_ended_episodes_are_sampled(n_envs: int, spare: int, length: int, bursts: list[int]) -> None:
    """Any rhythm of adding and sampling; episodes of different lengths, a ring no larger than it must be."""
    env = uneven(n_envs, length, LastPixels())
    longest = length + n_envs - 1 + 2
    buffer = RewardFillingReplayBuffer((longest + spare) * n_envs, *SPACES, device="cpu", n_envs=n_envs)
    buffer.attach(env)
    observations, added = env.reset(), 0
    for steps in bursts:
        observations = play(env, buffer, observations, steps)
        added += steps
        if added < longest and buffer.pending >= min(added, buffer.buffer_size):
            with pytest.raises(RuntimeError, match="Raise learning_starts"):
                buffer.sample(8)
            continue
        for _ in range(2):  # the second time nothing is left to fill, and the same steps are sampled
            batch = buffer.sample(64)
            episode, t = batch.next_observations.numpy().T
            # Which environment it was is not in the batch: the reward itself says where its episode ended.
            end = np.round(batch.rewards[:, 0].numpy()).astype(int) - 10 * episode.astype(int)
            possible = {(int(e), int(ends_at(e, length + i))) for e in set(episode.tolist()) for i in range(n_envs)}
            assert set(zip(episode.astype(int).tolist(), end.tolist(), strict=True)) <= possible
            assert (t <= end).all()


@pytest.mark.parametrize("steps", [11, 14, 30])
def test_windows_of_several_steps_hold_rewards_of_ended_episodes(steps: int) -> None:
    env = uneven(1, 3, LastPixels())
    buffer = RewardFillingNStepReplayBuffer(12, *SPACES, device="cpu", n_steps=2, gamma=0.5)
    buffer.attach(env)
    play(env, buffer, env.reset(), steps)
    batch = buffer.sample(200)
    for (episode, t), total in zip(batch.observations.numpy(), batch.rewards[:, 0].numpy(), strict=True):
        end = ends_at(episode, 3)
        reward = 10 * episode + end
        assert total == pytest.approx(reward * (1.5 if t + 2 <= end else 1.0), abs=1e-2)


def test_steps_wait_for_the_oldest_running_episode_and_no_longer() -> None:
    env = uneven(2, 3, LastPixels())  # the first environment's episode ends at step 5, the second's at 6
    buffer = RewardFillingReplayBuffer(40, *SPACES, device="cpu", n_envs=2)
    buffer.attach(env)
    seen, observations = [], env.reset()
    for _ in range(9):
        observations = play(env, buffer, observations, 1)
        seen.append(buffer.pending)
        buffer.fill()
    assert seen == [1, 2, 3, 4, 5, 1, 2, 2, 3]  # step 5: the second still runs; 8: the first's second ends


def test_an_episode_that_is_cut_is_rewarded_by_what_there_was_of_it() -> None:
    model = LastPixels()
    env = uneven(1, 3, model)
    env.reset()
    keys = []
    for _ in range(2):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    with pytest.raises(RuntimeError, match="has not ended"):
        env.rewards.fill(np.concatenate(keys))
    env.reset()
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), [2, 2], atol=1e-2)
    assert model.asked == [[0, 1, 2]]
    assert env.rewards.pop_returns() == []  # that of half an episode is no return
    assert len(env.rewards) == 1


def test_an_ended_episode_may_be_asked_for_in_parts() -> None:
    rewards = LazyRewards(LastPixels(), LocalScorer(BrightnessEncoder()))
    for t in range(4):
        frame = np.full((8, 8, 3), t, dtype=np.uint8)
        rewards.observe([(RowKey(0, 0, t), Row(frames={"front": frame}, truncated=t == 3))])
    for t in (1, 2, 3):
        np.testing.assert_allclose(rewards.fill(np.array([(0, 0, t)], dtype=KEY_DTYPE)), [3], atol=1e-2)
    assert len(rewards) == 0


def test_a_buffer_that_is_too_small_says_so() -> None:
    env = uneven(1, 8, LastPixels())
    buffer = RewardFillingReplayBuffer(6, *SPACES, device="cpu")
    buffer.attach(env)
    with pytest.raises(RuntimeError, match="Raise buffer_size"):
        play(env, buffer, env.reset(), 7)


def test_a_buffer_is_saved_where_episodes_start() -> None:
    env = uneven(1, 3, LastPixels())
    buffer = RewardFillingReplayBuffer(20, *SPACES, device="cpu")
    buffer.attach(env)
    observations = play(env, buffer, env.reset(), 4)
    with pytest.raises(RuntimeError, match="saved where episodes start"):
        pickle.dumps(buffer)
    play(env, buffer, observations, 1)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(buffer)).rewards[:5, 0], 5, atol=1e-2)


def points(lengths: tuple[int, ...], model: LastPixels, limited: bool = True) -> RewardVecEnv:
    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env: gym.Env = PointEnv()
            if limited:
                env.spec = gym.envs.registration.EnvSpec("Point-v0", max_episode_steps=lengths[i])
                env = gym.wrappers.TimeLimit(env, lengths[i])
            return SeededEpisodes(RowWriter(env, model.needs), seed=5, index=i)

        return make

    rewards = LazyRewards(model, LocalScorer(model.encoder), RewardScale(enabled=True))
    return RewardVecEnv(DummyVecEnv([factory(i) for i in range(len(lengths))]), rewards)


def sac(lengths: tuple[int, ...], n_steps: int = 1, **changes: Any) -> SAC:
    kwargs = {"learning_starts": 40, "batch_size": 16, "buffer_size": 200, **replay_settings(n_steps, 0.9), **changes}
    model = SAC("MlpPolicy", points(lengths, LastPixels()), **copy.deepcopy({**kwargs, **SMALL}))
    attach_rewards(model)
    return model


@pytest.mark.parametrize(("lengths", "n_steps"), [((10, 10), 1), ((7, 12), 1), ((7, 12), 3)])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    tmp_path: Path, lengths: tuple[int, ...], n_steps: int
) -> None:
    """Where episodes never start together a checkpoint cuts them, and what waited for their end is rewarded."""
    whole = sac(lengths, n_steps)
    whole.learn(180, callback=checkpoints.CheckpointCallback(tmp_path / "whole", every=60, patience=12))
    parts = tmp_path / "parts"
    sac(lengths, n_steps).learn(180, callback=[checkpoints.CheckpointCallback(parts, every=60, patience=12), Stop(110)])
    np.random.seed(99)  # what happens in between must not matter
    torch.manual_seed(99)
    checkpoint = checkpoints.newest(parts)
    second = checkpoints.restore(SAC, checkpoint, points(lengths, LastPixels()), "cpu")
    second.learn(
        180 - second.num_timesteps,
        reset_num_timesteps=False,
        callback=checkpoints.CheckpointCallback(parts, every=60, patience=12),
    )
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[key]), key
    assert (whole.replay_buffer._filled, whole.replay_buffer._added) == (
        second.replay_buffer._filled,
        second.replay_buffer._added,
    )
    for field in ("observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(
            getattr(whole.replay_buffer, field), getattr(second.replay_buffer, field), err_msg=field
        )


def test_what_cannot_wait_for_the_end_is_refused_at_start() -> None:
    with pytest.raises(UserError, match=r"needs 24 transitions: raise agent.learning_starts \(20\)"):
        sac((7, 12), learning_starts=20)
    with pytest.raises(UserError, match=r"agent.buffer_size \(20\)"):
        sac((7, 12), buffer_size=20)
    assert sac((7, 12), learning_starts=22).learn(60).num_timesteps == 60  # as few as will do
    with pytest.raises(UserError, match="PPO learns from rollouts"):
        attach_rewards(PPO("MlpPolicy", points((5,), LastPixels()), rollout_buffer_class=RewardFillingRolloutBuffer))
    unlimited = SAC(
        "MlpPolicy", points((5,), LastPixels(), limited=False), **replay_settings(1, 0.9), **copy.deepcopy(SMALL)
    )
    with pytest.raises(UserError, match="have no limit"):
        attach_rewards(unlimited)
    model = LastPixels()
    with pytest.raises(UserError, match="must reward each at once"):
        ModelRewardWrapper(PointEnv(), model)
    with pytest.raises(UserError, match="by what follows"):
        LazyRewards(model, LocalScorer(model.encoder), shaping=PotentialShaping(0.9))
    with pytest.raises(UserError, match="compares steps"):
        LazyRewards(LastPixels(False), LocalScorer(model.encoder), every=2, between="interpolate")
    with pytest.raises(ValueError, match="wait=True"):
        RewardVecEnv(points((5,), model).venv, LazyRewards(model, LocalScorer(model.encoder)), wait=True)
    model.context = 0
    with pytest.raises(ValueError, match="must be 'episode'"):
        LazyRewards(model, LocalScorer(model.encoder))
