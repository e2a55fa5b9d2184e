"""What the off-policy algorithms of Stable-Baselines3 and SB3-Contrib are given alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from vlmrl.agents.schedules import Schedule, step_size
from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Range, Share

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """The settings that they share, named and meant as in Stable-Baselines3.

    Attributes:
        learning_rate: Step size of all networks.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of the run.
        buffer_size: Transitions kept, over all environments.
        learning_starts: Transitions taken at random before learning starts.
        batch_size: Transitions a gradient step.
        gamma: Discount a step, 0 to 1.
        train_freq: Steps of the vector of environments between updates.
        gradient_steps: Gradient steps an update; -1 takes as many as transitions came.
        n_steps: Rewards summed up before bootstrapping; 1 is the plain algorithm.
        discrete_actions: Whether it chooses among actions; else it gives numbers.
    """

    discrete_actions: ClassVar[bool] = False

    learning_rate: Positive
    learning_rate_schedule: Schedule
    buffer_size: Count
    learning_starts: Natural
    batch_size: Count
    gamma: Share
    train_freq: Count
    gradient_steps: Annotated[int, Range(-1)]
    n_steps: Count


def shared_arguments(config: OffPolicyConfig, env: VecEnv, seed: int, device: str) -> dict[str, Any]:
    """Return the arguments of an algorithm that do not depend on which one it is, its replay buffer among them.

    Args:
        config: Settings of the agent.
        env: Environments.
        seed: Seed of the networks, of exploration and of sampling.
        device: "auto", "cpu", "cuda" or "cuda:<n>".

    Raises:
        UserError: It cannot act in these environments.
    """
    from gymnasium.spaces import Box, Discrete

    from vlmrl.agents.buffers import replay_settings

    if not isinstance(env.action_space, Discrete if config.discrete_actions else Box):
        kind, others = ("choices", "sac, crossq") if config.discrete_actions else ("numbers", "dqn")
        raise UserError(
            f"The actions of this agent are {kind}, and those of this environment are {env.action_space}. Use "
            f"agent={others.replace(', ', ' or ')}, or agent=ppo, which takes both."
        )
    return {
        "policy": "MlpPolicy",
        "env": env,
        "learning_rate": step_size(config.learning_rate, config.learning_rate_schedule),
        "buffer_size": config.buffer_size,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "train_freq": config.train_freq,
        "gradient_steps": config.gradient_steps,
        "seed": seed,
        "device": device,
        **replay_settings(config.n_steps, config.gamma),
    }
