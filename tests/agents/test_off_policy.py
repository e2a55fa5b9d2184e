"""What agents with a replay buffer have in common."""

from __future__ import annotations

import gymnasium as gym
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import train_settings


@pytest.mark.parametrize(
    ("agent", "env", "instead"),
    [
        ("sac", "CartPole-v1", "agent=dqn"),
        ("crossq", "CartPole-v1", "agent=dqn"),
        ("dqn", "Pendulum-v1", "sac or crossq"),
    ],
)
def test_an_agent_that_cannot_act_there_says_which_can(agent: str, env: str, instead: str) -> None:
    settings = train_settings(plain(compose("train", [f"agent={agent}"])))
    with pytest.raises(UserError, match=f"those of this environment are .*{instead}.* or agent=ppo"):
        settings.agent.config.build(DummyVecEnv([lambda: gym.make(env)]), 0, "cpu")


@pytest.mark.parametrize("agent", ["sac", "crossq", "dqn"])
def test_observations_of_several_parts_are_for_others(agent: str) -> None:
    config = train_settings(plain(compose("train", [f"agent={agent}"]))).agent.config
    words = gym.spaces.Dict({"map": gym.spaces.Box(0, 1, (3,)), "mission": gym.spaces.Box(0, 255, (8,))})
    actions = gym.spaces.Discrete(2) if agent == "dqn" else gym.spaces.Box(-1, 1, (2,))
    with pytest.raises(UserError, match=r"several parts \(map, mission\)\. Use agent=ppo"):
        config.check_spaces(words, actions)
    config.check_spaces(words["map"], actions)
