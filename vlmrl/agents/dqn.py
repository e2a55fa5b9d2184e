"""Deep Q-learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vlmrl.agents.off_policy import OffPolicyConfig, shared_arguments
from vlmrl.typed import Count, Positive, Share

if TYPE_CHECKING:
    from stable_baselines3 import DQN
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class DqnConfig(OffPolicyConfig):
    """Settings of `agent=dqn`, named and meant as in Stable-Baselines3's `DQN`; `configs/agent/dqn.yaml` has values.

    Attributes:
        tau: Share of the network that flows into its target at each target update, 0 to 1; 1 copies it.
        target_update_interval: Transitions between target updates.
        exploration_fraction: Share of the run over which random actions get rarer, 0 to 1.
        exploration_initial_eps: Share of random actions at the start, 0 to 1.
        exploration_final_eps: Share of random actions after that, 0 to 1.
        max_grad_norm: Length to which gradients are cut.
        net_arch: Width of each hidden layer.
    """

    discrete_actions: ClassVar[bool] = True

    tau: Share
    target_update_interval: Count
    exploration_fraction: Share
    exploration_initial_eps: Share
    exploration_final_eps: Share
    max_grad_norm: Positive
    net_arch: tuple[Count, ...]

    def build(self, env: VecEnv, seed: int, device: str) -> DQN:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from stable_baselines3 import DQN

        from vlmrl.agents.buffers import attach_rewards

        model = DQN(
            **shared_arguments(self, env, seed, device),
            tau=self.tau,
            target_update_interval=self.target_update_interval,
            exploration_fraction=self.exploration_fraction,
            exploration_initial_eps=self.exploration_initial_eps,
            exploration_final_eps=self.exploration_final_eps,
            max_grad_norm=self.max_grad_norm,
            policy_kwargs={"net_arch": list(self.net_arch)},
        )
        attach_rewards(model)
        return model

    def algorithm(self) -> type[DQN]:
        """Return the class, which loads what it has saved."""
        from stable_baselines3 import DQN

        return DQN
