"""Small recordings with known best actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from vlmrl.datasets.base import Transitions

LINE = {"observation_space": gym.spaces.Box(0, 1, (1,)), "action_space": gym.spaces.Box(-1, 1, (1,))}
CORRIDOR = {"observation_space": gym.spaces.Discrete(5), "action_space": gym.spaces.Discrete(2)}


def on_a_line(seed: int = 0, episodes: int = 100, length: int = 20, right: float = 0.3) -> Transitions:
    """A point on a line that is rewarded for where it is, as in `tests.toys.PointEnv`: right is best, left is usual."""
    rng = np.random.default_rng(seed)
    position = np.empty((episodes, length + 1), dtype=np.float32)
    position[:, 0] = rng.uniform(size=episodes)
    actions = np.where(rng.uniform(size=(episodes, length)) < right, 1, -1) * rng.uniform(0.5, 1, (episodes, length))
    for t in range(length):
        position[:, t + 1] = np.clip(position[:, t] + 0.1 * actions[:, t], 0, 1)
    last = np.zeros((episodes, length), dtype=bool)
    last[:, -1] = True
    return Transitions(
        observations=position[:, :-1].reshape(-1, 1),
        actions=actions.reshape(-1, 1).astype(np.float32),
        rewards=position[:, 1:].reshape(-1),
        next_observations=position[:, 1:].reshape(-1, 1),
        terminations=np.zeros(last.size, dtype=bool),
        timeouts=last.reshape(-1),
        episode_ids=np.repeat(np.arange(episodes), length),
    )


def along_a_corridor(seed: int = 0, episodes: int = 200, right: float = 0.3) -> Transitions:
    """Five rooms in a row, 0 left and 1 right; the last one ends the episode with a reward of 1. Left is usual."""
    rng = np.random.default_rng(seed)
    rows = []
    for episode in range(episodes):
        room = int(rng.integers(0, 4))
        for t in range(30):
            action = int(rng.uniform() < right)
            new = min(room + 1, 4) if action else max(room - 1, 0)
            over = new == 4
            rows.append((room, action, float(over), new, over, t == 29 and not over, episode))
            room = new
            if over:
                break
    rooms, actions, rewards, after, over, cut, ids = map(np.array, zip(*rows, strict=True))
    one_hot = np.eye(5, dtype=np.float32)
    return Transitions(
        one_hot[rooms], actions.astype(np.int64), rewards.astype(np.float32), one_hot[after], over, cut, ids
    )
