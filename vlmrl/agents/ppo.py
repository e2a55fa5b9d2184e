"""Proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.on_policy import OnPolicyConfig, shared_arguments

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class PpoConfig(OnPolicyConfig):
    """Settings of `agent=ppo`, all of them those of `OnPolicyConfig`; `configs/agent/ppo.yaml` has values."""

    def build(self, env: VecEnv, seed: int, device: str) -> PPO:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from gymnasium.spaces import Dict
        from stable_baselines3 import PPO

        from vlmrl.agents.buffers import RewardFillingDictRolloutBuffer, RewardFillingRolloutBuffer, attach_rewards

        parts = isinstance(env.observation_space, Dict)
        model = PPO(
            **shared_arguments(self, env, seed, device),
            rollout_buffer_class=RewardFillingDictRolloutBuffer if parts else RewardFillingRolloutBuffer,
        )
        attach_rewards(model)
        return model

    def algorithm(self) -> type[PPO]:
        """Return the class, which loads what it has saved."""
        from stable_baselines3 import PPO

        return PPO
