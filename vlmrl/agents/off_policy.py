"""What the off-policy algorithms of Stable-Baselines3 and SB3-Contrib are given alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vlmrl.agents.schedules import Schedule, step_size

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


class OffPolicyConfig(Protocol):
    """The settings that they share."""

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def learning_rate_schedule(self) -> Schedule: ...  # noqa: D102

    @property
    def buffer_size(self) -> int: ...  # noqa: D102

    @property
    def learning_starts(self) -> int: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    @property
    def gamma(self) -> float: ...  # noqa: D102

    @property
    def train_freq(self) -> int: ...  # noqa: D102

    @property
    def gradient_steps(self) -> int: ...  # noqa: D102

    @property
    def n_steps(self) -> int: ...  # noqa: D102


def shared_arguments(config: OffPolicyConfig, env: VecEnv, seed: int, device: str) -> dict[str, Any]:
    """Return the arguments of an algorithm that do not depend on which one it is, its replay buffer among them.

    Args:
        config: Settings of the agent.
        env: Environments.
        seed: Seed of the networks, of exploration and of sampling.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
    """
    from vlmrl.agents.buffers import replay_settings

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
