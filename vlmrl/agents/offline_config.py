"""What the learners of recorded data are given alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Positive, Range

if TYPE_CHECKING:
    import gymnasium as gym

RETURNS = "returns"  # the reward scale that follows from the data
CENTRE = "centre"  # and the shift
Control = Literal["none", "constant", "shuffled"]  # see `vlmrl.agents.offline.data.controlled`
Dropout = Annotated[float, Range(0, 0.99)]


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """The settings that they share.

    Attributes:
        learning_rate: Step size of all networks.
        batch_size: Transitions an update.
        normalize_observations: Whether networks see observations with mean 0 and deviation 1 over the data.
        dropout: Share of the policy's hidden units that is left out in training.
        net_arch: Width of each hidden layer.
        block_size: Updates between two looks at the clock, the keyboard and the log; on CUDA they are one graph.
    """

    learning_rate: Positive
    batch_size: Count
    normalize_observations: bool
    dropout: Dropout
    net_arch: tuple[Count, ...]
    block_size: Count

    # It learns from `dataset=` and steps in no environment.
    offline: ClassVar[bool] = True


def shared_arguments(
    config: OfflineConfig, observation_space: gym.Space, action_space: gym.Space, seed: int, device: str
) -> dict[str, Any]:
    """Return the arguments of an algorithm that do not depend on which one it is.

    Args:
        config: Settings of the agent.
        observation_space: Space of the recorded observations.
        action_space: Space of the recorded actions.
        seed: Seed of networks and batches.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
    """
    return {
        "policy": "MlpPolicy",
        "observation_space": observation_space,
        "action_space": action_space,
        "learning_rate": config.learning_rate,
        "batch_size": config.batch_size,
        "normalize_observations": config.normalize_observations,
        "block_size": config.block_size,
        "policy_kwargs": {"net_arch": list(config.net_arch), "dropout": config.dropout},
        "seed": seed,
        "device": device,
    }


def check_reward_scale(scale: str) -> None:
    """Refuse what is no reward scale.

    Raises:
        UserError: `scale` is neither a positive number nor "returns".
    """
    try:
        fits = scale == RETURNS or float(scale) > 0
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"agent.reward_scale is '{scale}'; it must be a number greater than 0, or returns: the steps of the "
            "longest episode over the spread of the episodes' returns."
        )


def check_reward_shift(shift: str) -> None:
    """Refuse what is no reward shift.

    Raises:
        UserError: `shift` is neither a finite number nor "centre".
    """
    try:
        fits = shift == CENTRE or math.isfinite(float(shift))
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"agent.reward_shift is '{shift}'; it must be a number, or centre: minus the mean of the rewards, where no "
            "episode terminates."
        )
