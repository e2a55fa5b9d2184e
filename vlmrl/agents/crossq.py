"""CrossQ: soft actor-critic with batch renormalisation in place of target networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.noise import NoiseType, action_noise
from vlmrl.agents.off_policy import OffPolicyConfig, shared_arguments
from vlmrl.agents.sac import check_ent_coef
from vlmrl.typed import Count, Positive

if TYPE_CHECKING:
    from sb3_contrib import CrossQ
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class CrossqConfig(OffPolicyConfig):
    """Settings of `agent=crossq`, named and meant as in SB3-Contrib's `CrossQ`; `configs/agent/crossq.yaml` has values.

    Source: Bhatt, Palenicek, Belousov, Argus, Amiranashvili, Brox, Peters: "CrossQ: Batch Normalization in Deep
    Reinforcement Learning for Greater Sample Efficiency and Simplicity", 2024 (arXiv 1902.05605). A reward from
    pictures makes every step dear, so what learns from fewer of them is worth the dearer update.

    Attributes:
        policy_delay: Steps of the critics for each step of the actor.
        ent_coef: Entropy coefficient: a number, "auto" (learned), or "auto_0.1" (learned from 0.1 on).
        net_arch: Width of each hidden layer of the actor.
        critic_arch: Width of each hidden layer of the critics.
        noise_type: What is added to actions in training: "none", "normal" or "ornstein-uhlenbeck", which pushes the
            same way for a while.
        noise_std: Size of the noise; actions go from -1 to 1.
        noise_dt: Time step of the Ornstein-Uhlenbeck process: the larger, the sooner it changes.
        fast_update: Take the gradient steps of `vlmrl.agents.updates`: the same up to rounding, and sooner done.
    """

    policy_delay: Count
    ent_coef: str
    net_arch: tuple[Count, ...]
    critic_arch: tuple[Count, ...]
    noise_type: NoiseType = "none"  # runs from before there was any can be read
    noise_std: Positive = 0.5
    noise_dt: Positive = 0.01
    fast_update: bool = False

    def __post_init__(self) -> None:
        check_ent_coef(self.ent_coef)

    def build(self, env: VecEnv, seed: int, device: str) -> CrossQ:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from vlmrl.agents.buffers import attach_rewards

        # SB3-Contrib's own betas hold only where nothing is said of the optimiser.
        optimizer = {"optimizer_kwargs": {"fused": True, "betas": (0.5, 0.999)}} if self.fast_update else {}
        model = self.algorithm()(
            **shared_arguments(self, env, seed, device),
            policy_delay=self.policy_delay,
            action_noise=action_noise(self.noise_type, self.noise_std, self.noise_dt, env),
            ent_coef=self.ent_coef if self.ent_coef.startswith("auto") else float(self.ent_coef),
            policy_kwargs={"net_arch": {"pi": list(self.net_arch), "qf": list(self.critic_arch)}, **optimizer},
        )
        attach_rewards(model)
        return model

    def algorithm(self) -> type[CrossQ]:
        """Return the class, which loads what it has saved; both classes load what the other has."""
        if self.fast_update:
            from vlmrl.agents.updates import FastCrossQ

            return FastCrossQ
        from sb3_contrib import CrossQ

        return CrossQ
