"""Proximal policy optimisation of policies that remember."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.on_policy import OnPolicyConfig, shared_arguments
from vlmrl.typed import Count

if TYPE_CHECKING:
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class RecurrentPpoConfig(OnPolicyConfig):
    """Settings of `agent=recurrent_ppo`, named and meant as in SB3-Contrib's `RecurrentPPO`.

    `configs/agent/recurrent_ppo.yaml` has values. Those below come on top of `OnPolicyConfig`'s.

    Attributes:
        lstm_hidden_size: Numbers that an LSTM remembers.
        n_lstm_layers: Its layers.
        enable_critic_lstm: Whether the critic has an LSTM of its own; without one it sees the present alone.
    """

    lstm_hidden_size: Count
    n_lstm_layers: Count
    enable_critic_lstm: bool

    def build(self, env: VecEnv, seed: int, device: str) -> RecurrentPPO:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from vlmrl.agents.buffers import attach_rewards

        arguments = shared_arguments(self, env, seed, device, "LstmPolicy")
        arguments["policy_kwargs"] |= {
            "lstm_hidden_size": self.lstm_hidden_size,
            "n_lstm_layers": self.n_lstm_layers,
            "enable_critic_lstm": self.enable_critic_lstm,
        }
        model = self.algorithm()(**arguments)
        attach_rewards(model)
        return model

    def algorithm(self) -> type[RecurrentPPO]:
        """Return the class, which loads what it has saved."""
        from vlmrl.agents.recurrent import RewardFillingRecurrentPPO

        return RewardFillingRecurrentPPO
