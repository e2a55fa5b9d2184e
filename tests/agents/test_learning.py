"""The reward of pictures drives the truth up, through the whole vector path."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import BrightnessEncoder, PointEnv
from vlmrl.agents.ppo import PpoConfig
from vlmrl.agents.sac import SacConfig
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.reward_models.clip import ClipReward
from vlmrl.serving.scorer import LocalScorer

AGENTS = {
    "sac": (
        SacConfig(
            learning_rate=3e-3,
            learning_rate_schedule="constant",
            buffer_size=5000,
            learning_starts=200,
            batch_size=64,
            tau=0.02,
            gamma=0.9,
            train_freq=1,
            gradient_steps=1,
            n_steps=1,
            ent_coef="auto",
            use_sde=False,
            net_arch=(32,),
        ),
        2000,
    ),
    "ppo": (
        PpoConfig(
            learning_rate=3e-3,
            learning_rate_schedule="constant",
            n_steps=100,
            batch_size=100,
            n_epochs=10,
            gamma=0.9,
            gae_lambda=0.95,
            clip_range=0.2,
            ent_coef=0.0,
            vf_coef=0.5,
            max_grad_norm=0.5,
            net_arch=(32,),
        ),
        6000,
    ),
}


def environments(goal: str, every: int) -> RewardVecEnv:
    model = ClipReward(goal, encoder=BrightnessEncoder())

    def factory(i: int):  # noqa: ANN202
        def make() -> gym.Env:
            env = Monitor(gym.wrappers.TimeLimit(PointEnv(), 20))
            return SeededEpisodes(RowWriter(env, model.needs, at_reset=False, every=every), seed=0, index=i)

        return make

    rewards = LazyRewards(model, LocalScorer(model.encoder), RewardScale(enabled=True, centre=True))
    return RewardVecEnv(DummyVecEnv([factory(i) for i in range(4)]), rewards)


@pytest.mark.parametrize(("goal", "every", "right"), [("bright", 1, True), ("dark", 1, False), ("bright", 3, True)])
@pytest.mark.parametrize("agent", AGENTS)
def test_the_point_goes_where_the_words_say(agent: str, goal: str, every: int, right: bool) -> None:
    """The truth is the point's position; its picture is bright on the right. Nothing but the picture is rewarded."""
    config, steps = AGENTS[agent]
    model = config.build(environments(goal, every), seed=0, device="cpu")
    model.learn(steps)
    # 20 steps of at most 0.1 from a random start: at the goal from step 10 on, the mean is 0.75 or better.
    truth = np.mean([episode["r"] for episode in list(model.ep_info_buffer)[-20:]]) / 20
    assert truth > 0.75 if right else truth < 0.25, truth
