"""Every transition that is kept has the reward of the newest version, wherever it lies in the ring."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.agents.test_buffers import SPACES, play, truth
from tests.toys import BrightnessEncoder, CountingEnv, PixelReward
from vlmrl.agents.buffers import RewardFillingNStepReplayBuffer, RewardFillingReplayBuffer
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.shaping import PotentialShaping, RewardBonus
from vlmrl.errors import UserError
from vlmrl.rows import Row, RowKey, Rows
from vlmrl.serving.scorer import LocalScorer


class Versioned:
    """Rewards the pixel's value times the version."""

    context = 0
    requires_sync = False

    def __init__(self, field: str = "embeddings"):
        self.needs = self.retains = frozenset({field})
        self.encoder = BrightnessEncoder()
        self.version = 1
        self._pixels = PixelReward()

    def prepare(self, key: RowKey, row: Row) -> Row:
        return replace(row, frames={"front": row.frames["front"][:2, :2]}) if row.frames else row

    def refresh(self) -> None: ...

    def to(self, device: str) -> object:
        return self

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> object:
        return self

    def __call__(self, rows: Rows) -> np.ndarray:
        if "frames" in self.retains:
            assert rows["frames"]["front"].shape[1:] == (2, 2, 3)
            pixels = rows["frames"]["front"][:, 0, 0, 0].astype(np.float32)
        else:
            pixels = self._pixels(rows)
        return self.version * pixels


def versioned(n_envs: int, length: int, field: str = "embeddings", scale: RewardScale | None = None) -> RewardVecEnv:
    model = Versioned(field)

    def make() -> gym.Env:
        return RowWriter(CountingEnv(length), model.needs, at_reset=False)

    scorer = LocalScorer(model.encoder) if field == "embeddings" else None
    return RewardVecEnv(DummyVecEnv([make] * n_envs), LazyRewards(model, scorer, scale))


@settings(max_examples=25, deadline=None)
@given(
    n_envs=st.integers(1, 3),
    size=st.integers(4, 12),
    lag=st.integers(0, 3),
    length=st.integers(1, 6),
    bursts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    field=st.sampled_from(["embeddings", "frames"]),
)
def test_what_is_sampled_has_the_newest_version(
    n_envs: int, size: int, lag: int, length: int, bursts: list[int], field: str
) -> None:
    """Ring wrap, lag, episode ends and any rhythm of adding, sampling and learning."""
    env = versioned(n_envs, length, field)
    model: Any = env.rewards.model
    buffer = RewardFillingReplayBuffer(size * n_envs, *SPACES, device="cpu", n_envs=n_envs, lag=lag)
    buffer.attach(env)
    observations, added = env.reset(), 0
    for steps in bursts:
        observations = play(env, buffer, observations, steps)
        added += steps
        model.version += 1
        # More than these where the ring was full of steps that waited: then they are filled to make room.
        assert n_envs * max(min(added, size) - lag, 0) <= buffer.relabel() <= n_envs * min(added, size)
        if min(added, size) > lag:
            batch = buffer.sample(64)
            expected = model.version * truth(batch.next_observations)
            np.testing.assert_allclose(batch.rewards[:, 0].numpy(), expected, rtol=1e-3, atol=5e-2)


def test_windows_of_several_rewards_are_of_one_version() -> None:
    env = versioned(1, length=6)
    buffer = RewardFillingNStepReplayBuffer(12, *SPACES, device="cpu", n_steps=3, gamma=0.5)
    buffer.attach(env)
    observations = play(env, buffer, env.reset(), 30)
    buffer.sample(4)
    before = buffer.sample(1)
    assert before.rewards.shape == (1, 1)
    env.rewards.model.version = 10  # type: ignore[attr-defined]
    buffer.relabel()
    play(env, buffer, observations, 1)
    batch = buffer.sample(200)
    for observation, total in zip(batch.observations.numpy(), batch.rewards[:, 0].numpy(), strict=True):
        episode, t = observation
        ahead = [10 * (10 * episode + t + k) for k in (1, 2, 3) if t + k <= 6]
        sums = [sum(0.5**k * reward for k, reward in enumerate(ahead[:n])) for n in range(1, len(ahead) + 1)]
        assert any(np.isclose(total, s, rtol=1e-3, atol=0.1) for s in sums)


def test_each_version_has_one_scale_which_all_that_is_kept_fixes() -> None:
    env = versioned(1, length=50, scale=RewardScale(enabled=True, centre=True))
    buffer = RewardFillingReplayBuffer(20, *SPACES, device="cpu")
    buffer.attach(env)
    observations = play(env, buffer, env.reset(), 30)
    buffer.sample(4)
    env.rewards.model.version = 7  # type: ignore[attr-defined]
    buffer.relabel()
    assert abs(buffer.rewards.mean()) < 1e-3 and np.isclose(buffer.rewards.std(), 1, atol=1e-3)
    scale = env.rewards.scale
    kept = 7 * np.arange(11, 31)
    assert np.isclose(scale.mean, kept.mean(), rtol=1e-3) and np.isclose(scale.std, kept.std(), rtol=1e-3)
    play(env, buffer, observations, 1)
    buffer.fill()
    assert np.isclose(buffer.rewards[10, 0], (7 * 31 - kept.mean()) / kept.std(), rtol=1e-3)


@pytest.mark.parametrize("field", ["embeddings", "frames"])
def test_what_is_retained_is_saved_and_read(field: str) -> None:
    for steps in (8, 30):
        env = versioned(2, length=7, field=field)
        buffer = RewardFillingReplayBuffer(24, *SPACES, device="cpu", n_envs=2)
        buffer.attach(env)
        observations = play(env, buffer, env.reset(), steps)
        copy = pickle.loads(pickle.dumps(buffer))
        copy.attach(env)
        play(env, copy, observations, 3)
        env.rewards.model.version = 3  # type: ignore[attr-defined]
        copy.relabel()
        batch = copy.sample(100)
        np.testing.assert_allclose(
            batch.rewards[:, 0].numpy(), 3 * truth(batch.next_observations), rtol=1e-3, atol=5e-2
        )


def test_pictures_lie_in_a_memory_map() -> None:
    env = versioned(1, 5, "frames")
    buffer = RewardFillingReplayBuffer(10, *SPACES, device="cpu")
    buffer.attach(env)
    play(env, buffer, env.reset(), 4)
    buffer.fill()
    (pictures,) = buffer._retained.values()
    assert isinstance(pictures, np.memmap) and pictures.shape == (10, 1, 2, 2, 3)


def test_what_cannot_be_rewarded_again_is_refused_at_start() -> None:
    model = Versioned()
    scorer = LocalScorer(model.encoder)
    with pytest.raises(UserError, match="use_as=reward"):
        LazyRewards(model, scorer, shaping=PotentialShaping(0.9))
    with pytest.raises(UserError, match="use_as=bonus adds a reward that stays"):
        LazyRewards(model, scorer, shaping=RewardBonus())
    with pytest.raises(UserError, match="between=hold"):
        LazyRewards(model, scorer, every=2, between="interpolate")
    LazyRewards(model, scorer, every=2, between="hold")
