"""Recorded transitions where the learner is: on its device, ready to be drawn from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vlmrl.agents.offline_config import CENTRE, RETURNS, Control
from vlmrl.datasets.base import Transitions
from vlmrl.errors import UserError


class ResidentData:
    """Columns of all transitions in one table on the device, so that a batch is one gather.

    Args:
        columns: {name: (N, ...) float32}.
        device: Torch device.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], device: torch.device):
        flat = {name: np.asarray(column, dtype=np.float32).reshape(len(column), -1) for name, column in columns.items()}
        self._table = torch.from_numpy(np.concatenate(list(flat.values()), axis=1)).to(device)
        self._widths = {name: column.shape[1] for name, column in flat.items()}

    def __len__(self) -> int:
        return len(self._table)

    @property
    def bytes(self) -> int:
        """What the table takes on the device."""
        return self._table.numel() * self._table.element_size()

    def batch(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {name: (n, width) float32} of the transitions with these numbers, (n,) int64 on the device."""
        parts = self._table.index_select(0, index).split(list(self._widths.values()), dim=1)
        return dict(zip(self._widths, parts, strict=True))


def check_transitions(data: Transitions) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        UserError: There is no transition, columns differ in length, or a number is not finite.
    """
    if not len(data):
        raise UserError("The dataset holds no transition, so there is nothing to learn from.")
    for name in Transitions.__dataclass_fields__:
        column = getattr(data, name)
        if len(column) != len(data):
            raise UserError(f"The dataset has {len(data)} rewards and {len(column)} {name}; they must be as many.")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.argwhere(~np.isfinite(column.reshape(len(column), -1)).all(axis=1))[0, 0])
            raise UserError(
                f"The {name} of transition {row} (episode {int(data.episode_ids[row])}) are not finite. "
                "vlmrl.relabel with on_error=skip writes a dataset without such episodes."
            )


def controlled(rewards: np.ndarray, control: Control, seed: int | None) -> np.ndarray:
    """Return rewards that say nothing of what they came with, for a control; "none" returns them as they are.

    Args:
        rewards: (N,) float32.
        control: "constant" is their mean everywhere, "shuffled" a permutation over all episodes.
        seed: Seed of the permutation.
    """
    if control == "constant":
        return np.full_like(rewards, rewards.mean(dtype=np.float64))
    if control == "shuffled":
        return np.random.default_rng(seed).permutation(rewards)
    return rewards


def episode_returns(data: Transitions) -> np.ndarray:
    """Return the sum of the rewards of each episode, (episodes,) float64, in the order of their ids."""
    _, episode = np.unique(data.episode_ids, return_inverse=True)
    return np.bincount(episode, weights=data.rewards.astype(np.float64))


def reward_factor(data: Transitions, scale: str) -> float:
    """Return what the rewards are multiplied by.

    Args:
        data: All transitions, with the rewards that are learned from.
        scale: A number, or "returns": the steps of the longest episode over the difference between the best and the
            worst episode's return, so that a step is worth about 1 whatever the episodes' length. For D4RL's
            locomotion, whose episodes have 1000 steps, that is what the IQL authors do, who write 1000; in shorter
            episodes 1000 gives values that are out of reach of some thousand updates. Where all returns are equal there
            is no such scale: 1.
    """
    if scale != RETURNS:
        return float(scale)
    returns = episode_returns(data)
    spread = float(returns.max() - returns.min())
    # Sums of equal rewards differ by rounding alone: that is no spread to scale by.
    smallest = 1e-6 * max(1.0, float(np.abs(returns).max()))
    longest = int(np.unique(data.episode_ids, return_counts=True)[1].max())
    return longest / spread if spread > smallest else 1.0


def reward_offset(data: Transitions, shift: str, factor: float) -> float:
    """Return what is added to the scaled rewards.

    Where no episode terminates, the same number added to all rewards adds the same to the values of all states,
    shift / (1 - gamma), and what is best stays best. Without a mean, values need not climb to mean / (1 - gamma) before
    differences between actions can be seen: that takes many more updates than learning the differences does. (As the
    differential values of average-reward learning: Sutton and Barto, Reinforcement Learning, 2nd ed., section 10.3.)

    Args:
        data: All transitions, with the rewards that were recorded.
        shift: A number, or "centre": minus the mean of the scaled rewards; 0 where an episode terminates, as a shift
            would there pay for living longer or shorter.
        factor: What rewards were multiplied by.
    """
    if shift != CENTRE:
        return float(shift)
    return 0.0 if data.terminations.any() else -factor * float(data.rewards.mean(dtype=np.float64))


def finite_bounds(low: np.ndarray, high: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of actions, taken from the data where the space has none; of equal ones, one apart.

    Args:
        low: (A,) least values, or -inf.
        high: (A,) greatest values, or inf.
        actions: (N, A) of the data.
    """
    low = np.where(np.isfinite(low), low, actions.min(axis=0))
    high = np.where(np.isfinite(high), high, actions.max(axis=0))
    flat = high <= low  # a joint that never moved
    return np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)
