from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import CountingEnv, PixelReward
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.shaping import PotentialShaping, RewardBonus, Shaping, potential_caveat
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.errors import UserError
from vlmrl.serving.scorer import LocalScorer

numbers = st.floats(-10, 10)


@given(
    steps=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30),
    start=numbers,
    gamma=st.floats(0, 1),
    weight=st.floats(0.1, 5),
    terminated=st.booleans(),
)
def test_the_discounted_sum_telescopes(
    steps: list[tuple[float, float]], start: float, gamma: float, weight: float, terminated: bool
) -> None:
    rewards, potentials = (np.array(column) for column in zip(*steps, strict=True))
    ends = np.zeros(len(steps), dtype=bool)
    ends[-1] = terminated
    shaped = PotentialShaping(gamma, weight)(rewards, potentials, ends, start)
    discounts = gamma ** np.arange(len(steps))
    last = 0.0 if terminated else gamma ** len(steps) * potentials[-1]
    expected = discounts @ rewards + weight * (last - start)
    assert np.isclose(discounts @ shaped.astype(np.float64), expected, atol=1e-3)


def optimal_actions(transitions: np.ndarray, rewards: np.ndarray, terminal: np.ndarray, gamma: float) -> np.ndarray:
    """Value iteration in a finite MDP; (S, A) bool, the actions that are optimal.

    Args:
        transitions: (S, A, S) probabilities.
        rewards: (S, A, S).
        terminal: (S,) bool; nothing is earned from there on.
        gamma: Discount.
    """
    values = np.zeros(len(transitions))
    for _ in range(2000):
        q = (transitions * (rewards + gamma * np.where(terminal, 0.0, values))).sum(axis=2)
        values = q.max(axis=1)
    return q >= q.max(axis=1, keepdims=True) - 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_the_optimal_policies_of_an_mdp_with_a_terminal_state_are_unchanged(seed: int) -> None:
    """Random MDPs and potentials as large as the rewards; without the rule for terminal states they change."""
    rng = np.random.default_rng(seed)
    n, gamma = 6, 0.9
    transitions = rng.dirichlet(np.full(n, 0.3), size=(n, 3))
    rewards = rng.normal(size=(n, 3, n))
    terminal = np.arange(n) == n - 1
    potentials = 5 * rng.normal(size=n)
    shaping = PotentialShaping(gamma, weight=2.0)
    shaped = np.stack(
        [
            [[shaping(rewards[s, a, [t]], potentials[[t]], terminal[[t]], potentials[s])[0] for t in range(n)]
             for a in range(3)]
            for s in range(n)
        ]
    )  # fmt: skip
    own = optimal_actions(transitions, rewards, terminal, gamma)[~terminal]
    np.testing.assert_array_equal(own, optimal_actions(transitions, shaped, terminal, gamma)[~terminal])
    naive = rewards + 2.0 * (gamma * potentials - potentials[:, None, None])
    if seed == 0:
        assert (own != optimal_actions(transitions, naive, terminal, gamma)[~terminal]).any()


def counting(
    ends: str, shaping: Shaping, context: int = 0, wait: bool = False, scale: RewardScale | None = None
) -> RewardVecEnv:
    model = PixelReward(context)
    rewards = LazyRewards(model, LocalScorer(model.encoder), scale, shaping)

    def make() -> gym.Env:
        return RowWriter(CountingEnv(4, ends), model.needs, at_reset=rewards.reads_reset)

    return RewardVecEnv(DummyVecEnv([make]), rewards, wait)


@settings(max_examples=20, deadline=None)
@given(bursts=st.lists(st.integers(1, 5), min_size=1, max_size=4), terminated=st.booleans())
def test_rewards_of_rows_are_shaped_in_any_rhythm(bursts: list[int], terminated: bool) -> None:
    """Phi at step t of episode e is 10 e + t, and the environment gives -1 a step."""
    gamma = 0.5
    env = counting("terminated" if terminated else "truncated", PotentialShaping(gamma, 2.0))
    env.reset()
    filled: list[float] = []
    for steps in bursts:
        keys = []
        for _ in range(steps):
            env.step(np.zeros((1, 1)))
            keys.append(env.keys.copy())
        filled.extend(env.rewards.fill(np.concatenate(keys)))
    expected = []
    for step in range(sum(bursts)):
        episode, t = step // 4, step % 4 + 1
        arrived = 0.0 if terminated and t == 4 else 10 * episode + t
        expected.append(-1 + 2 * (gamma * arrived - (10 * episode + t - 1)))
    np.testing.assert_allclose(filled, expected, atol=1e-2)
    # What is reported is the model's own reward, unshaped.
    np.testing.assert_allclose(
        env.rewards.pop_returns(), [10 + 40 * episode for episode in range(sum(bursts) // 4)], atol=1e-2
    )
    if sum(bursts) % 4 == 0:
        assert not env.rewards._potential


def test_a_reward_that_compares_steps_can_be_a_potential_too_and_it_is_said_what_of() -> None:
    assert "looks at 1 earlier steps as well, so that the same state has" in potential_caveat(PixelReward(context=1))
    assert potential_caveat(PixelReward()) == ""
    env = counting("truncated", PotentialShaping(0.5), context=1, wait=True)
    env.reset()
    seen = [float(env.step(np.zeros((1, 1)))[1][0]) for _ in range(3)]
    # Phi is the change since the row before: 0 at the reset, 1 afterwards.
    np.testing.assert_allclose(seen, [-1 + 0.5, -1 - 0.5, -1 - 0.5], atol=1e-2)


class Delta(PixelReward):
    no_potential = "it is a change. Take kind=probability."


def test_a_reward_that_is_no_potential_is_refused_at_start_and_added_all_the_same() -> None:
    model = Delta()
    with pytest.raises(UserError, match="of Delta it is none: it is a change. Take kind=probability"):
        LazyRewards(model, LocalScorer(model.encoder), shaping=PotentialShaping(0.9))
    LazyRewards(model, LocalScorer(model.encoder), shaping=RewardBonus())


def test_potentials_are_scaled_and_the_environments_reward_is_not() -> None:
    scale = RewardScale(enabled=True)
    env = counting("truncated", PotentialShaping(1.0), scale=scale)
    env.reset()
    keys = []
    for _ in range(4):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    spread = np.std([1, 2, 3, 4])
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), -1 + np.full(4, 1 / spread), atol=1e-2)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_one_environment_and_any_library(ends: str) -> None:
    env = ModelRewardWrapper(CountingEnv(2, ends), PixelReward(), shaping=PotentialShaping(0.9))
    env.reset()
    first, last = (env.step(np.zeros(1)) for _ in range(2))
    assert np.isclose(first[1], -1 + 0.9 * 1, atol=1e-2)
    assert np.isclose(last[1], -1 + (0.0 if ends == "terminated" else 0.9 * 2) - 1, atol=1e-2)
    assert last[4]["original_reward"] == -1


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_a_bonus_is_added_to_what_the_environment_gives_scaled_and_weighted(ends: str) -> None:
    env = counting(ends, RewardBonus(0.5), scale=RewardScale(enabled=True))
    env.reset()
    keys = []
    for _ in range(4):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    expected = -1 + 0.5 * np.arange(1, 5) / np.std([1, 2, 3, 4])  # the model gives t at step t of the first episode
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), expected, atol=1e-2)
    np.testing.assert_allclose(env.rewards.pop_returns(), [10], atol=1e-2)  # what is reported is the model's own


def test_a_bonus_beside_one_environment_of_any_library() -> None:
    env = ModelRewardWrapper(CountingEnv(2, "terminated"), PixelReward(), shaping=RewardBonus(3.0))
    env.reset()
    assert [float(env.step(np.zeros(1))[1]) for _ in range(2)] == pytest.approx([-1 + 3 * 1, -1 + 3 * 2], abs=1e-2)
