"""What PPO of Stable-Baselines3 and recurrent PPO of SB3-Contrib are given alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmrl.agents.schedules import Schedule, step_size
from vlmrl.typed import Count, Positive, Share

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class OnPolicyConfig:
    """The settings that they share, named and meant as in Stable-Baselines3.

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
        features_dim: Width of what the parts of an observation that is a dict are made into, see
            `vlmrl.agents.features`; means nothing where observations are vectors.
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
    features_dim: Count = 128


def shared_arguments(
    config: OnPolicyConfig, env: VecEnv, seed: int, device: str, suffix: str = "Policy"
) -> dict[str, Any]:
    """Return the arguments that `PPO` and SB3-Contrib's `RecurrentPPO` take alike.

    Args:
        config: Settings of the agent.
        env: Environments.
        seed: Seed of the networks, of exploration and of sampling.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        suffix: End of the policy's name, "Policy" or "LstmPolicy".
    """
    from vlmrl.agents.features import policy_for

    policy, features = policy_for(env.observation_space, config.features_dim, suffix)
    return {
        "policy": policy,
        "env": env,
        "learning_rate": step_size(config.learning_rate, config.learning_rate_schedule),
        "n_steps": config.n_steps,
        "batch_size": config.batch_size,
        "n_epochs": config.n_epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_range,
        "ent_coef": config.ent_coef,
        "vf_coef": config.vf_coef,
        "max_grad_norm": config.max_grad_norm,
        "policy_kwargs": {"net_arch": list(config.net_arch)} | features,
        "seed": seed,
        "device": device,
    }
