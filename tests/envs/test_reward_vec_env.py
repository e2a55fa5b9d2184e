from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from tests.toys import CountingEnv, PixelReward
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.rows import Row, RowKey, Rows
from vlmrl.serving.scorer import LocalScorer


def vec_env(
    n_envs: int, context: int = 0, wait: bool = False, vec: type = DummyVecEnv, **kwargs: object
) -> RewardVecEnv:
    model = PixelReward(context)

    def make() -> gym.Env:
        return RowWriter(CountingEnv(**kwargs), model.needs, at_reset=context != 0)  # type: ignore[arg-type]

    rewards = LazyRewards(model, LocalScorer(model.encoder))
    return RewardVecEnv(vec([make] * n_envs), rewards, wait)


@pytest.mark.parametrize("ends", ["truncated", "terminated"])
@pytest.mark.parametrize("vec", [DummyVecEnv, SubprocVecEnv])
def test_the_last_row_of_an_episode_is_its_true_last_frame(ends: str, vec: type) -> None:
    env = vec_env(2, wait=True, vec=vec, length=3, ends=ends)
    env.reset()
    seen = [env.step(np.zeros((2, 1)))[1] for _ in range(7)]
    env.close()
    # Pixels are 10 * episode + t: were the picture taken after the automatic reset, 3 would read 10.
    expected = np.array([1, 2, 3, 11, 12, 13, 21], dtype=np.float32)
    np.testing.assert_allclose(seen, np.stack([expected, expected], axis=1), atol=1e-3)


def test_a_reward_with_context_does_not_look_across_episodes() -> None:
    env = vec_env(1, context=1, wait=True, length=3)
    env.reset()
    seen = np.concatenate([env.step(np.zeros((1, 1)))[1] for _ in range(6)])
    np.testing.assert_allclose(seen, np.ones(6), atol=1e-3)


def test_lazy_rewards_equal_waiting_ones_and_leave_no_row_behind() -> None:
    now, later = vec_env(3, wait=True, length=4), vec_env(3, length=4)
    now.reset()
    later.reset()
    at_once, keys = [], []
    for _ in range(12):
        at_once.append(now.step(np.zeros((3, 1)))[1])
        placeholder = later.step(np.zeros((3, 1)))[1]
        assert not placeholder.any()
        keys.append(later.keys.copy())
    filled = later.rewards.fill(np.concatenate(keys))
    np.testing.assert_array_equal(filled, np.concatenate(at_once))
    assert len(later.rewards) == 0
    np.testing.assert_allclose(later.rewards.pop_returns(), np.repeat([10.0, 50.0, 90.0], 3), atol=1e-2)


def test_a_reset_in_the_middle_forgets_the_episode_once_its_rewards_are_out() -> None:
    env = vec_env(1, length=5)
    env.reset()
    keys = []
    for _ in range(2):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    env.reset()
    env.step(np.zeros((1, 1)))
    keys.append(env.keys.copy())
    np.testing.assert_allclose(env.rewards.fill(np.concatenate(keys)), [1, 2, 11], atol=1e-3)
    assert len(env.rewards) == 0
    assert env.rewards.pop_returns() == []


def test_rewards_are_filled_once_and_in_order() -> None:
    env = vec_env(1, length=5)
    env.reset()
    env.step(np.zeros((1, 1)))
    first = env.keys.copy()
    env.step(np.zeros((1, 1)))
    with pytest.raises(RuntimeError, match="next reward is that of t = 1"):
        env.rewards.fill(env.keys)
    env.rewards.fill(first)
    with pytest.raises(RuntimeError, match="next reward is that of t = 2"):
        env.rewards.fill(first)


def test_a_reward_that_is_not_finite_is_an_error_that_says_where() -> None:
    class Broken(PixelReward):
        def __call__(self, rows):  # noqa: ANN001, ANN204
            return np.where(rows.t == 2, np.nan, 0.0)

    rewards = LazyRewards(Broken(), LocalScorer(PixelReward().encoder))
    frame = {"front": np.zeros((8, 8, 3), dtype=np.uint8)}
    rewards.observe([(RowKey(4, 0, 1), Row(frames=frame)), (RowKey(4, 0, 2), Row(frames=frame))])
    with pytest.raises(FloatingPointError, match="Broken gave nan at environment 4, episode 0, t = 2"):
        rewards.fill(np.array([(4, 0, 1), (4, 0, 2)], dtype=KEY_DTYPE))


def test_the_scale_is_fixed_by_the_first_rewards() -> None:
    scale = RewardScale(enabled=True, centre=True)
    first = scale(np.array([0.2, 0.3, 0.4], dtype=np.float32))
    np.testing.assert_allclose([first.mean(), first.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(scale(np.array([0.3], dtype=np.float32)), [0.0], atol=1e-6)
    assert RewardScale(enabled=True)(np.full(3, 0.5, dtype=np.float32)).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_every_kth_frame_and_the_last_are_drawn_and_held(every: int, context: int) -> None:
    drawn = []

    class Counted(CountingEnv):
        def render(self) -> np.ndarray:
            drawn.append((self.episode, self.t))
            return super().render()

    model = PixelReward()
    model.context = context
    model.__class__ = Held

    def make() -> gym.Env:
        return RowWriter(Counted(length=5), model.needs, at_reset=context != 0, every=every)

    env = RewardVecEnv(DummyVecEnv([make]), LazyRewards(model, LocalScorer(model.encoder)))
    env.reset()
    keys = []
    for _ in range(10):
        env.step(np.zeros((1, 1)))
        keys.append(env.keys.copy())
    shown = [t if (t - 1) % every == 0 or t == 5 else 1 + (t - 1) // every * every for t in range(1, 6)]
    # In two fills that part an episode: what is held must survive from one to the next.
    filled = np.concatenate([env.rewards.fill(np.concatenate(keys[:3])), env.rewards.fill(np.concatenate(keys[3:]))])
    np.testing.assert_allclose(filled, [*shown, *(10 + t for t in shown)], atol=1e-2)
    assert sorted(set(drawn) - {(e, 0) for e in range(3)}) == [(e, t) for e in range(2) for t in sorted(set(shown))]
    assert len(env.rewards._held) == 0


class Held(PixelReward):
    """Pixels of each row, whatever the context."""

    def __call__(self, rows: Rows) -> np.ndarray:
        (view,) = rows["embeddings"].values()
        return (np.arctan2(view[:, 1], view[:, 0]) * 2 / np.pi * 255).astype(np.float32)
