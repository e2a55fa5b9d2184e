"""Worlds that say something, fail or hang, for the processes of agent=appo: `env.id=tests.agents.appo.worlds:<id>`."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np

TEXTS = ("", "a door opens", "a wall", "you find a key")


class Says(gym.Env):
    """A step says one of four things, the next one for action 7 and nothing for action 6; it sees which was said.

    Its own reward is 1 for the last of them. Episodes end after 20 steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(0, 1, (len(TEXTS),), np.float32)
    action_space = gym.spaces.Discrete(2, start=6)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.t = self.said = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = self.said = 0
        return self._seen(), {"text": ""}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in (6, 7), action
        self.t += 1
        self.said = (self.said + 1) % len(TEXTS) if action == 7 else 0
        return self._seen(), float(self.said == len(TEXTS) - 1), self.t == 20, False, {"text": TEXTS[self.said]}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), 60 * self.said, dtype=np.uint8)

    def _seen(self) -> np.ndarray:
        return np.eye(len(TEXTS), dtype=np.float32)[self.said]


class Breaks(Says):
    """The same, until an environment has made 300 steps: then it fails, or hangs."""

    def __init__(self, hangs: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.left, self.hangs = 300, hangs

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        if self.left == 0 and self.hangs:
            time.sleep(600)
        if self.left == 0:
            raise ValueError(f"the dungeon collapsed in process {os.getpid()}")
        return super().step(action)


gym.register("Says-v0", entry_point=Says, max_episode_steps=50)
gym.register("Breaks-v0", entry_point=Breaks, max_episode_steps=50)
