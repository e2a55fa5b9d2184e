from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.toys import CountingEnv, PixelReward
from vlmrl.agents.buffers import (
    RewardFillingNStepReplayBuffer,
    RewardFillingReplayBuffer,
    RewardFillingRolloutBuffer,
    attach_rewards,
)
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.serving.scorer import LocalScorer

SPACES = (CountingEnv.observation_space, CountingEnv.action_space)


def counting(n_envs: int, length: int = 5, ends: str = "truncated") -> RewardVecEnv:
    model = PixelReward()

    def make() -> gym.Env:
        return RowWriter(CountingEnv(length, ends), model.needs, at_reset=False)

    return RewardVecEnv(DummyVecEnv([make] * n_envs), LazyRewards(model, LocalScorer(model.encoder)))


def play(env: RewardVecEnv, buffer: RewardFillingReplayBuffer, observations: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        actions = np.zeros((env.num_envs, 1), dtype=np.float32)
        following, rewards, dones, infos = env.step(actions)
        stored = following.copy()
        for i in np.flatnonzero(dones):
            stored[i] = infos[i]["terminal_observation"]
        buffer.add(observations, stored, actions, rewards, dones, infos)
        observations = following
    return observations


def truth(next_observations: torch.Tensor) -> np.ndarray:
    """What `PixelReward` gives for arriving at these observations (episode, t)."""
    return (10 * next_observations[:, 0] + next_observations[:, 1]).numpy() % 256


@settings(max_examples=25, deadline=None)
@given(
    n_envs=st.integers(1, 3),
    size=st.integers(4, 12),
    lag=st.integers(0, 3),
    length=st.integers(1, 6),
    bursts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_no_transition_is_sampled_unfilled(n_envs: int, size: int, lag: int, length: int, bursts: list[int]) -> None:
    """Ring wrap, lag, episode ends and any rhythm of adding and sampling."""
    env = counting(n_envs, length)
    buffer = RewardFillingReplayBuffer(size * n_envs, *SPACES, device="cpu", n_envs=n_envs, lag=lag)
    buffer.attach(env)
    observations = env.reset()
    added = 0
    for steps in bursts:
        observations = play(env, buffer, observations, steps)
        added += steps
        if min(added, size) <= lag:
            with pytest.raises(RuntimeError, match="Raise learning_starts"):
                buffer.sample(8)
            continue
        batch = buffer.sample(64)
        np.testing.assert_allclose(batch.rewards[:, 0].numpy(), truth(batch.next_observations), atol=1e-2)


def test_transitions_within_the_lag_are_not_sampled() -> None:
    env = counting(1, length=100)
    buffer = RewardFillingReplayBuffer(50, *SPACES, device="cpu", lag=4)
    buffer.attach(env)
    play(env, buffer, env.reset(), 20)
    times = buffer.sample(2000).next_observations[:, 1].numpy()
    assert times.min() == 1
    assert times.max() == 16


def test_without_lag_sampling_draws_what_sb3_draws() -> None:
    env = counting(2, length=7)
    ours = RewardFillingReplayBuffer(40, *SPACES, device="cpu", n_envs=2)
    theirs = ReplayBuffer(40, *SPACES, device="cpu", n_envs=2)
    ours.attach(env)
    play(env, ours, env.reset(), 30)
    for name in ("observations", "next_observations", "actions", "dones", "timeouts", "pos", "full"):
        setattr(theirs, name, getattr(ours, name))
    np.random.seed(0)
    first = ours.sample(16)
    theirs.rewards = ours.rewards
    np.random.seed(0)
    second = theirs.sample(16)
    for a, b in zip(first[:5], second[:5], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("steps", [9, 14, 37])
def test_n_step_windows_are_filled_and_stop_at_the_end_of_an_episode(steps: int, lag: int) -> None:
    env = counting(1, length=6)
    gamma = 0.5
    buffer = RewardFillingNStepReplayBuffer(12, *SPACES, device="cpu", n_steps=3, gamma=gamma, lag=lag)
    buffer.attach(env)
    play(env, buffer, env.reset(), steps)
    batch = buffer.sample(200)
    for observation, total in zip(batch.observations.numpy(), batch.rewards[:, 0].numpy(), strict=True):
        episode, t = observation
        ahead = [10 * episode + t + k for k in (1, 2, 3) if t + k <= 6]
        # The newest window in the buffer may be shorter; without a lag SB3 bootstraps at the newest transition.
        sums = [sum(gamma**k * reward for k, reward in enumerate(ahead[:n])) for n in range(1, len(ahead) + 1)]
        newest = 6 * episode + t + len(ahead) > steps - (0 if lag else 0)
        assert any(np.isclose(total, s, atol=1e-2) for s in (sums if newest else sums[-1:]))


def test_a_saved_buffer_is_filled_and_carries_no_environments() -> None:
    env = counting(1)
    buffer = RewardFillingReplayBuffer(20, *SPACES, device="cpu")
    buffer.attach(env)
    play(env, buffer, env.reset(), 8)
    copy = pickle.loads(pickle.dumps(buffer))
    np.testing.assert_allclose(copy.rewards[:8, 0], truth(torch.from_numpy(copy.next_observations[:8, 0])), atol=1e-2)
    assert copy._source is None
    assert copy.observations.shape == buffer.observations.shape
    assert (
        len(pickle.dumps(buffer)) < len(pickle.dumps(RewardFillingReplayBuffer(10_000, *SPACES, device="cpu"))) + 20_000
    )
    play(env, copy, env.reset(), 30)  # goes on, round the ring
    assert copy.full


def test_sac_sees_true_rewards_through_vec_normalize() -> None:
    env = VecNormalize(counting(2), norm_obs=True, norm_reward=False)
    model = SAC(
        "MlpPolicy",
        env,
        learning_starts=10,
        batch_size=8,
        replay_buffer_class=RewardFillingReplayBuffer,
        buffer_size=60,
        policy_kwargs={"net_arch": [8]},
        device="cpu",
        seed=0,
    )
    attach_rewards(model)
    model.learn(150)
    buffer = model.replay_buffer
    assert buffer is not None and buffer.full
    buffer.sample(1)
    raw = env.unnormalize_obs(env.normalize_obs(buffer.next_observations))  # stored raw, as SB3 does
    np.testing.assert_allclose(buffer.rewards, (10 * raw[..., 0] + raw[..., 1]) % 256, atol=0.05)


@pytest.mark.parametrize("ends", ["truncated", "terminated"])
def test_ppo_bootstraps_truncations_and_only_those(ends: str) -> None:
    """SB3 adds gamma * V(terminal) before the buffer sees the reward; the fill must add to that, not replace it."""
    gamma = 0.9
    env = counting(2, length=4, ends=ends)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=8,
        batch_size=16,
        n_epochs=1,
        gamma=gamma,
        learning_rate=0.0,
        device="cpu",
        seed=0,
        policy_kwargs={"net_arch": [8]},
        rollout_buffer_class=RewardFillingRolloutBuffer,
    )
    attach_rewards(model)
    seen = {}

    class Keep(RewardFillingRolloutBuffer):
        def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
            super().compute_returns_and_advantage(last_values, dones)
            seen["rewards"], seen["observations"] = self.rewards.copy(), self.observations.copy()

    model.rollout_buffer.__class__ = Keep
    model.learn(16)
    for i in range(2):
        for step in range(8):
            episode, t = seen["observations"][step, i]
            expected = 10 * episode + t + 1
            if t == 3 and ends == "truncated":
                with torch.no_grad():
                    terminal = torch.tensor([[episode, 4.0]])
                    expected += gamma * float(model.policy.predict_values(terminal))
            np.testing.assert_allclose(seen["rewards"][step, i], expected, atol=1e-2)


def test_a_buffer_that_cannot_fill_is_refused() -> None:
    model = SAC("MlpPolicy", counting(1), buffer_size=10, device="cpu", policy_kwargs={"net_arch": [8]})
    with pytest.raises(ValueError, match="ReplayBuffer cannot fill rewards"):
        attach_rewards(model)
