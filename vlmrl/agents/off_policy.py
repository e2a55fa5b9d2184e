"""What the off-policy algorithms of Stable-Baselines3 and SB3-Contrib are given alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from vlmrl.agents.schedules import Schedule, step_size
from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Range, Share

if TYPE_CHECKING:
    from gymnasium import Space
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

    def check_spaces(self, observation_space: Space, action_space: Space) -> None:
        """See whether it can learn in environments with these spaces, before any of them is made.

        Raises:
            UserError: It cannot.
        """
        from gymnasium.spaces import Box, Dict, Discrete

        if not isinstance(action_space, Discrete if self.discrete_actions else Box):
            kind, others = ("choices", "sac or crossq") if self.discrete_actions else ("numbers", "dqn")
            raise UserError(
                f"The actions of this agent are {kind}, and those of this environment are {action_space}. Use "
                f"agent={others}, or agent=ppo, which takes both."
            )
        if isinstance(observation_space, Dict):
            raise UserError(
                f"This agent looks at one array, and an observation of this environment has several parts "
                f"({', '.join(observation_space)}). Use agent=ppo or recurrent_ppo."
            )


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
    from vlmrl.agents.buffers import replay_settings

    config.check_spaces(env.observation_space, env.action_space)
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
