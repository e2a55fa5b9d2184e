from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import CountingEnv, PixelReward
from vlmrl.agents.buffers import RewardFillingReplayBuffer, RewardFillingRolloutBuffer, attach_rewards
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.shaping import PotentialShaping
from vlmrl.errors import UserError
from vlmrl.rows import Rows
from vlmrl.serving.scorer import LocalScorer


class Squared(PixelReward):
    """The square of the pixels: a line between two of its rewards is not what it gives between them."""

    def __call__(self, rows: Rows) -> np.ndarray:
        return super().__call__(rows) ** 2


def environments(
    n_envs: int, every: int, lengths: tuple[int, ...] = (7,), shaping: PotentialShaping | None = None
) -> RewardVecEnv:
    model = Squared()
    rewards = LazyRewards(model, LocalScorer(model.encoder), shaping=shaping, every=every, between="interpolate")

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env = CountingEnv(lengths[i % len(lengths)])
            return RowWriter(env, model.needs, at_reset=rewards.reads_reset, every=every)

        return make

    return RewardVecEnv(DummyVecEnv([factory(i) for i in range(n_envs)]), rewards)


def lines(episode: int, length: int, every: int) -> np.ndarray:
    """Rewards of a whole episode, (length,)."""
    drawn = sorted({*range(1, length + 1, every), length})
    return np.interp(np.arange(1, length + 1), drawn, [(10.0 * episode + t) ** 2 for t in drawn])


@settings(max_examples=30, deadline=None)
@given(
    every=st.integers(1, 5),
    length=st.integers(1, 9),
    bursts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_asked_for_after_the_lag_rewards_lie_on_the_lines(every: int, length: int, bursts: list[int]) -> None:
    """Whatever the rhythm in which they are asked for."""
    env = environments(1, every, (length,))
    env.reset()
    keys: list[np.ndarray] = []
    filled: list[float] = []
    for steps in bursts:
        for _ in range(steps):
            env.step(np.zeros((1, 1)))
            keys.append(env.keys.copy())
        ready = len(keys) - env.rewards.lag
        if ready > len(filled):
            filled.extend(env.rewards.fill(np.concatenate(keys[len(filled) : ready])))
    expected = np.concatenate([lines(episode, length, every) for episode in range(len(keys) // length + 1)])
    np.testing.assert_allclose(filled, expected[: len(filled)], rtol=1e-3, atol=1e-2)


def test_where_the_next_frame_has_not_come_the_last_is_held_and_the_line_goes_on_from_there() -> None:
    env = environments(1, every=3)  # frames at t = 1, 4, 7
    env.reset()
    keys = []
    for _ in range(7):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
        if len(keys) == 2:
            np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), [1, 1], atol=1e-2)
    # The line from 1 (t = 1) to 16 (t = 4) has 11 at t = 3; then 16 to 49.
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys[2:])), [11, 16, 27, 38, 49], atol=5e-2)
    assert not env.rewards._drawn and not env.rewards._anchor and len(env.rewards) == 0
    np.testing.assert_allclose(env.rewards.pop_returns(), [143], atol=0.2)


def test_a_cut_episode_holds_its_last_frame() -> None:
    env = environments(1, every=3)
    env.reset()
    keys = []
    for _ in range(2):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    env.reset()
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), [1, 1], atol=1e-2)
    assert len(env.rewards) == 0 and not env.rewards._drawn


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("every", [2, 4])
def test_a_replay_buffer_samples_what_is_known(every: int, shaped: bool) -> None:
    lengths = (7, 5)
    gamma = 0.5
    env = environments(2, every, lengths, PotentialShaping(gamma) if shaped else None)
    space = (CountingEnv.observation_space, CountingEnv.action_space)
    buffer = RewardFillingReplayBuffer(80, *space, device="cpu", n_envs=2)
    buffer.attach(env)
    assert buffer.lag == every - 1
    observations = env.reset()
    for step in range(60):
        actions = np.zeros((2, 1), dtype=np.float32)
        following, rewards, dones, infos = env.step(actions)
        stored = following.copy()
        for i in np.flatnonzero(dones):
            stored[i] = infos[i]["terminal_observation"]
        buffer.add(observations, stored, actions, rewards, dones, infos)
        observations = following
        if step < buffer.lag + buffer.window:
            continue
        buffer.sample(4)
        slots = np.arange(max(0, step + 1 - 40), step + 1 - buffer.lag) % 40
        for i, length in enumerate(lengths):
            for (episode, t), reward in zip(
                buffer.next_observations[slots, i].astype(int), buffer.rewards[slots, i], strict=True
            ):
                line = lines(episode, length, every)
                expected = line[t - 1]
                if shaped:
                    before = (10.0 * episode) ** 2 if t == 1 else line[t - 2]
                    expected = -1 + gamma * line[t - 1] - before
                assert np.isclose(reward, expected, rtol=2e-3, atol=0.5), (episode, t, reward, expected)


def test_a_rollout_holds_what_it_cannot_know_and_the_next_one_goes_on() -> None:
    env = environments(1, every=3)
    space = (CountingEnv.observation_space, CountingEnv.action_space)
    buffer = RewardFillingRolloutBuffer(3, *space, device="cpu")
    buffer.attach(env)
    env.reset()
    seen = []
    for _ in range(2):
        buffer.reset()
        for _ in range(3):
            _, rewards, dones, _ = env.step(np.zeros((1, 1)))
            none = torch.zeros(1)
            buffer.add(np.zeros((1, 2)), np.zeros((1, 1)), rewards, np.zeros(1), none, none)
        buffer.compute_returns_and_advantage(torch.zeros(1), dones)
        seen.append(buffer.rewards[:, 0].copy())
    np.testing.assert_allclose(seen, [[1, 1, 1], [16, 16, 16]], atol=2e-2)


def test_learning_waits_for_rewards_or_says_so_at_start() -> None:
    def model(learning_starts: int, buffer_size: int) -> SAC:
        return SAC(
            "MlpPolicy",
            environments(2, every=5),
            learning_starts=learning_starts,
            buffer_size=buffer_size,
            replay_buffer_class=RewardFillingReplayBuffer,
            policy_kwargs={"net_arch": [8]},
            device="cpu",
        )

    for learning_starts, buffer_size in ((7, 100), (100, 9)):
        with pytest.raises(UserError, match="needs 10 transitions"):
            attach_rewards(model(learning_starts, buffer_size))
    enough = model(8, 100)
    attach_rewards(enough)
    enough.learn(20)


def test_what_cannot_be_interpolated_is_refused() -> None:
    model = PixelReward(context=1)
    with pytest.raises(UserError, match="PixelReward compares steps .* between=hold"):
        LazyRewards(model, LocalScorer(model.encoder), every=2, between="interpolate")
    env = environments(1, every=2)
    with pytest.raises(ValueError, match="some steps later"):
        RewardVecEnv(env.venv, env.rewards, wait=True)
