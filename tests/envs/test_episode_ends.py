"""Models that end episodes: what learners, logs and evaluation see of it."""

from __future__ import annotations

import csv
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from tests.toys import BrightnessEncoder, CountingEnv, PixelReward, PointEnv
from vlmrl.agents.buffers import RewardFillingReplayBuffer, attach_rewards
from vlmrl.envs.episode_ends import EndableMonitor
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.envs.shaping import PotentialShaping
from vlmrl.envs.tasks import Task, TaskReward, above
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.errors import UserError
from vlmrl.reward_models.clip_contrastive import ClipContrastiveReward
from vlmrl.rows import Rows
from vlmrl.serving.scorer import LocalScorer


class Reached(PixelReward):
    """1 from pixel `limit` of each episode on, and then the episode ends; pixels are 10 * episode + t."""

    requires_sync = True

    def __init__(self, limit: int):
        super().__init__()
        self.limit = limit

    def __call__(self, rows: Rows) -> np.ndarray:
        return (np.round(super().__call__(rows)) % 10 >= self.limit).astype(np.float32)

    def ends(self, rewards: np.ndarray) -> np.ndarray:
        return rewards >= 1


class Readable(CountingEnv):
    def simulator_state(self) -> dict[str, np.ndarray]:
        return {"t": np.float32(self.t)}


TASK = Task("late", "g", "b", predicate=lambda state: {"late": above(state["t"], 2, 10)}, rule="end")


def environments(
    n_envs: int, limit: int, length: int = 6, monitor: Path | None = None, vec: type = DummyVecEnv, **kwargs: bool
) -> RewardVecEnv:
    model = Reached(limit)

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env = gym.wrappers.TimeLimit(Readable(1000), length)
            env = EndableMonitor(TaskReward(env, TASK), str(monitor / str(i)) if monitor else None)
            return SeededEpisodes(RowWriter(env, model.needs, at_reset=False), seed=0, index=i)

        return make

    venv = vec([factory(i) for i in range(n_envs)])
    return RewardVecEnv(venv, LazyRewards(model, LocalScorer(model.encoder)), **{"wait": True, **kwargs})


@pytest.mark.parametrize("vec", [DummyVecEnv, SubprocVecEnv])
def test_the_episode_really_ends(tmp_path: Path, vec: type) -> None:
    env = environments(2, limit=3, monitor=tmp_path, vec=vec)
    np.testing.assert_array_equal(env.reset(), [[0, 0]] * 2)
    for episode in range(2):
        for t in (1, 2, 3):
            observations, rewards, dones, infos = env.step(np.zeros((2, 1), dtype=np.float32))
            assert rewards.tolist() == [t == 3] * 2 and dones.tolist() == [t == 3] * 2
        np.testing.assert_array_equal(observations, [[episode + 1, 0]] * 2)  # the next one has begun
        for info in infos:
            np.testing.assert_array_equal(info["terminal_observation"], [episode, 3])
            assert info["TimeLimit.truncated"] is False
            assert info["episode"]["l"] == 3
            assert info["is_success"] and np.isclose(info["predicate_fraction"], 2 / 3)
        assert env.at_start and env.episodes.tolist() == [episode + 1] * 2
    assert env.rewards.pop_returns() == [1.0] * 4
    assert len(env.rewards) == 0
    env.close()
    # The truth of a step at t is 1 from t = 2 on, and 0.9 before.
    rows = list(csv.DictReader((tmp_path / "1.monitor.csv").read_text().splitlines()[1:]))
    assert [(float(row["r"]), int(row["l"])) for row in rows] == [(2.9, 3)] * 2


def test_success_at_the_last_step_is_a_termination() -> None:
    env = environments(1, limit=6, length=6)
    env.reset()
    for _ in range(6):
        _, rewards, dones, infos = env.step(np.zeros((1, 1), dtype=np.float32))
    assert rewards[0] == 1 and dones[0] and infos[0]["TimeLimit.truncated"] is False
    assert env.episodes.tolist() == [1]
    env.step(np.zeros((1, 1), dtype=np.float32))
    assert env.rewards.pop_returns() == [1.0]


def test_without_success_the_limit_truncates() -> None:
    env = environments(1, limit=9, length=4)
    env.reset()
    for _ in range(4):
        _, _, dones, infos = env.step(np.zeros((1, 1), dtype=np.float32))
    assert dones[0] and infos[0]["TimeLimit.truncated"]


def test_policies_are_measured_on_full_length() -> None:
    env = environments(1, limit=3, length=6, wait=False, end_episodes=False)
    env.reset()
    keys = []
    for t in range(1, 7):
        _, _, dones, _ = env.step(np.zeros((1, 1), dtype=np.float32))
        keys.append(env.keys.copy())
        assert dones[0] == (t == 6)
    np.testing.assert_array_equal(env.rewards.fill(np.concatenate(keys)), [0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="use wait=True"):
        environments(1, limit=3, wait=False)


def test_sac_does_not_bootstrap_from_success() -> None:
    env = environments(2, limit=3)
    model = SAC(
        "MlpPolicy", env, buffer_size=100, learning_starts=10, batch_size=8, device="cpu", seed=0,
        replay_buffer_class=RewardFillingReplayBuffer, policy_kwargs={"net_arch": [8]},
    )  # fmt: skip
    attach_rewards(model)
    model.learn(60)
    buffer = model.replay_buffer
    times = buffer.next_observations[: buffer.pos, :, 1]
    np.testing.assert_array_equal(buffer.rewards[: buffer.pos], times == 3)
    np.testing.assert_array_equal(buffer.dones[: buffer.pos], times == 3)
    assert not buffer.timeouts.any()
    assert [episode["l"] for episode in model.ep_info_buffer] == [3] * 20


def test_ppo_does_not_bootstrap_from_success() -> None:
    env = environments(1, limit=3)
    model = PPO("MlpPolicy", env, n_steps=6, batch_size=6, n_epochs=1, device="cpu", seed=0)
    model.learn(6)
    np.testing.assert_array_equal(model.rollout_buffer.rewards[:, 0], [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(model.rollout_buffer.episode_starts[:, 0], [1, 0, 0, 1, 0, 0])


def test_one_environment_and_any_library() -> None:
    env = ModelRewardWrapper(CountingEnv(6), Reached(2))
    for _ in range(2):
        env.reset()
        assert [env.step(np.zeros(1))[1:4] for _ in range(2)] == [(0.0, False, False), (1.0, True, False)]
    assert env._rewards.pop_returns() == [1.0, 1.0]


def test_the_contrastive_reward_ends_where_it_is_one() -> None:
    encoder = BrightnessEncoder()
    with pytest.raises(UserError, match=r"reward.threshold=0.5"):
        ClipContrastiveReward("bright", "dark", encoder=encoder, ends_episode=True)
    model = ClipContrastiveReward("bright", "dark", threshold=0.5, encoder=encoder, ends_episode=True)
    assert model.requires_sync
    assert not ClipContrastiveReward("bright", "dark", threshold=0.5, encoder=encoder).requires_sync
    env = ModelRewardWrapper(gym.wrappers.TimeLimit(PointEnv(), 100), model)
    env.reset(seed=3)
    position = env.unwrapped.position
    steps = 0
    while True:
        observation, reward, terminated, truncated, _ = env.step(np.array([1.0 if position < 0.5 else 0.1]))
        steps += 1
        assert terminated == (reward == 1) == (observation[0] > 0.5)  # as bright as dark is half way
        if terminated:
            break
        assert not truncated
    assert steps < 12


def test_what_does_not_go_with_it_is_refused() -> None:
    model = Reached(3)
    with pytest.raises(UserError, match="ends episodes and cannot wait"):
        LazyRewards(model, LocalScorer(model.encoder), every=2, between="interpolate")
    with pytest.raises(UserError, match="would end its episodes"):
        LazyRewards(model, LocalScorer(model.encoder), shaping=PotentialShaping(0.9))


def test_observations_of_several_parts() -> None:
    class Parts(gym.ObservationWrapper):
        observation_space = gym.spaces.Dict({"own": CountingEnv.observation_space})

        def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            return {"own": observation}

    model = Reached(2)
    venv = DummyVecEnv([lambda: RowWriter(Parts(CountingEnv(6)), model.needs, at_reset=False)])
    env = RewardVecEnv(venv, LazyRewards(model, LocalScorer(model.encoder)), wait=True)
    env.reset()
    env.step(np.zeros((1, 1)))
    observations, _, dones, infos = env.step(np.zeros((1, 1)))
    assert dones[0]
    np.testing.assert_array_equal(observations["own"], [[1, 0]])
    np.testing.assert_array_equal(infos[0]["terminal_observation"]["own"], [0, 2])
