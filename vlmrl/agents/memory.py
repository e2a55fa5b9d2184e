"""What a replay buffer takes of this machine's memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape

from vlmrl.envs.lazy_rewards import KEY_DTYPE
from vlmrl.errors import UserError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, v2 and v1


def replay_bytes(buffer_size: int, n_envs: int, observation_space: gym.Space, action_space: gym.Space) -> int:
    """Return the size of a full replay buffer in bytes.

    SB3 keeps observations in the type of their space (float32 in our environments, see `make_env`), before and after
    the step, and in 32 bits action (or as its space has it), reward, end and time limit; we keep the key of the row.

    Args:
        buffer_size: Transitions, over all environments.
        n_envs: Number of environments.
        observation_space: A box or discrete space.
        action_space: A box or discrete space.

    Raises:
        UserError: Observations are dicts, which our replay buffers do not hold.
    """
    shape, action = get_obs_shape(observation_space), np.dtype(action_space.dtype)
    if not isinstance(shape, tuple):
        raise UserError(
            f"This environment shows several things at once ({', '.join(shape)}), and agents with a replay "
            "buffer see one array. Use agent=ppo or agent=recurrent_ppo."
        )
    observation = int(np.prod(shape)) * np.dtype(observation_space.dtype).itemsize
    action_bytes = get_action_dim(action_space) * (4 if action == np.float64 else action.itemsize)
    transition = 2 * observation + action_bytes + 3 * 4 + KEY_DTYPE.itemsize
    return max(buffer_size // n_envs, 1) * n_envs * transition


def retained_bytes(retained: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Return what a reward model keeps of a transition, in bytes in memory and in bytes of a memory-mapped file.

    Args:
        retained: Of one transition, {name: (1, ...)}; pictures, uint8, go into the file.
    """
    on_disk = sum(array.nbytes for array in retained.values() if array.dtype == np.uint8)
    return sum(array.nbytes for array in retained.values()) - on_disk, on_disk


def machine_bytes() -> int | None:
    """Return the memory that this process may have, in bytes: the machine's or its container's; None if unknown."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:  # Windows
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in map(Path, LIMITS):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            memory = min(memory, int(text))
    return memory


def in_words(size: int) -> str:
    """Write a number of bytes as MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
