"""Soft actor-critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.noise import NoiseType, action_noise
from vlmrl.agents.off_policy import OffPolicyConfig, shared_arguments
from vlmrl.errors import UserError
from vlmrl.typed import Count, Positive, Share

if TYPE_CHECKING:
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class SacConfig(OffPolicyConfig):
    """Settings of `agent=sac`, named and meant as in Stable-Baselines3's `SAC`; `configs/agent/sac.yaml` has values.

    Attributes:
        tau: Share of the critics that flows into their targets at each update, 0 to 1.
        ent_coef: Entropy coefficient: a number, "auto" (learned), or "auto_0.1" (learned from 0.1 on).
        use_sde: Explore with state-dependent noise.
        net_arch: Width of each hidden layer of actor and critics.
        noise_type: What is added to actions in training: "none", "normal" or "ornstein-uhlenbeck", which pushes the
            same way for a while.
        noise_std: Size of the noise; actions go from -1 to 1.
        noise_dt: Time step of the Ornstein-Uhlenbeck process: the larger, the sooner it changes.
        fast_update: Take the gradient steps of `vlmrl.agents.updates`: the same up to rounding, and sooner done.
    """

    tau: Share
    ent_coef: str
    use_sde: bool
    net_arch: tuple[Count, ...]
    noise_type: NoiseType = "none"  # runs from before there was any can be read
    noise_std: Positive = 0.5
    noise_dt: Positive = 0.01
    fast_update: bool = False

    def __post_init__(self) -> None:
        check_ent_coef(self.ent_coef)
        if self.fast_update and self.use_sde:
            raise UserError(
                "agent.fast_update=true draws its own noise, and agent.use_sde=true wants state-dependent noise; take "
                "one of them."
            )

    def build(self, env: VecEnv, seed: int, device: str) -> SAC:
        """Make the algorithm.

        Args:
            env: Environments; those of a `RewardVecEnv` leave their rewards to its buffer.
            seed: Seed of the networks, of exploration and of sampling.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
        """
        from vlmrl.agents.buffers import attach_rewards

        optimizer = {"optimizer_kwargs": {"fused": True}} if self.fast_update else {}
        model = self.algorithm()(
            **shared_arguments(self, env, seed, device),
            tau=self.tau,
            action_noise=action_noise(self.noise_type, self.noise_std, self.noise_dt, env),
            ent_coef=self.ent_coef if self.ent_coef.startswith("auto") else float(self.ent_coef),
            use_sde=self.use_sde,
            policy_kwargs={"net_arch": list(self.net_arch), **optimizer},
        )
        attach_rewards(model)
        return model

    def algorithm(self) -> type[SAC]:
        """Return the class, which loads what it has saved; both classes load what the other has."""
        if self.fast_update:
            from vlmrl.agents.updates import FastSAC

            return FastSAC
        from stable_baselines3 import SAC

        return SAC


def check_ent_coef(ent_coef: str) -> None:
    """Refuse what is no entropy coefficient.

    Raises:
        UserError: `ent_coef` is not a number, "auto" or "auto_<first value>".
    """
    if ent_coef == "auto":
        return
    try:
        float(ent_coef.removeprefix("auto_"))
    except ValueError:
        raise UserError(f"agent.ent_coef is '{ent_coef}'; it must be a number, auto, or auto_<first value>.") from None
