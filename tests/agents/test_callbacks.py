"""The lines that say how training stands: a few, however long or short it is."""

from __future__ import annotations

import gymnasium as gym
import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv
from tqdm import tqdm

from tests.toys import PixelReward, PointEnv
from vlmrl.agents.buffers import RewardFillingReplayBuffer, RewardFillingRolloutBuffer, attach_rewards
from vlmrl.agents.callbacks import RewardLog, progress_header
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.serving.scorer import LocalScorer

LINES = 5


def environments(number: int) -> RewardVecEnv:
    model = PixelReward()
    rewards = LazyRewards(model, LocalScorer(model.encoder))
    return RewardVecEnv(
        DummyVecEnv([lambda: RowWriter(gym.wrappers.TimeLimit(PointEnv(), 12), model.needs)] * number), rewards
    )


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_few_steps_that_are_left_print_few_lines(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = environments(2)
    if agent == "ppo":
        model = PPO(
            "MlpPolicy", env, n_steps=50, batch_size=50, n_epochs=1, rollout_buffer_class=RewardFillingRolloutBuffer
        )
    else:
        model = SAC("MlpPolicy", env, learning_starts=1000, replay_buffer_class=RewardFillingReplayBuffer)
    attach_rewards(model)
    said: list[str] = []
    monkeypatch.setattr(tqdm, "write", said.append)
    model.learn(200, callback=RewardLog(env.rewards, LINES))
    assert said[0] == progress_header()
    assert len(said) == 1 + LINES
    del said[:]
    model.learn(20, callback=RewardLog(env.rewards, LINES), reset_num_timesteps=False)
    steps = [int(line.split()[0]) for line in said[1:]]
    assert len(steps) == LINES
    assert steps[-1] == model.num_timesteps == (300 if agent == "ppo" else 220)  # a rollout is taken whole
