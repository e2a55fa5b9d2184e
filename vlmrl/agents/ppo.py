"""Proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.schedules import Schedule, step_size
from vlmrl.typed import Count, Positive, Share

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class PpoConfig:
    """Settings of `agent=ppo`, named and meant as in Stable-Baselines3's `PPO`; `configs/agent/ppo.yaml` has values.

    Attributes:
        learning_rate: Step size.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of the run.
        n_steps: Steps of each environment between updates.
        batch_size: Transitions a gradient step.
        n_epochs: Passes over the transitions of an update.
        gamma: Discount a step, 0 to 1.
        gae_lambda: Bias-variance trade-off of generalised advantage estimation, 0 to 1.
        clip_range: Largest change of an action's probability ratio that an update gains from.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Length to which gradients are cut.
        net_arch: Width of each hidden layer of actor and critic.
    """

    learning_rate: Positive
    learning_rate_schedule: Schedule
    n_steps: Count
    batch_size: Count
    n_epochs: Count
    gamma: Share
    gae_lambda: Share
    clip_range: Positive
    ent_coef: float
    vf_coef: float
    max_grad_norm: Positive
    net_arch: tuple[Count, ...]

    def build(self, env: VecEnv, seed: int, device: str) -> PPO:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from stable_baselines3 import PPO

        from vlmrl.agents.buffers import RewardFillingRolloutBuffer, attach_rewards

        model = PPO(
            "MlpPolicy",
            env,
            learning_rate=step_size(self.learning_rate, self.learning_rate_schedule),
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            clip_range=self.clip_range,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            max_grad_norm=self.max_grad_norm,
            policy_kwargs={"net_arch": list(self.net_arch)},
            rollout_buffer_class=RewardFillingRolloutBuffer,
            seed=seed,
            device=device,
        )
        attach_rewards(model)
        return model

    def algorithm(self) -> type[PPO]:
        """Return the class, which loads what it has saved."""
        from stable_baselines3 import PPO

        return PPO
