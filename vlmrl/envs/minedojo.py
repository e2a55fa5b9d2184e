"""MineDojo: Minecraft with tasks in words, over a live game or a drawn stand-in.

Source: Fan et al.: "MineDojo: Building Open-Ended Embodied Agents with Internet-Scale Knowledge", 2022 (arXiv
2206.08853), package `minedojo` 0.1. That package speaks an API of gym that is no more; this is Gymnasium's.
"""

from __future__ import annotations

from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.minecraft import ENGINES
from vlmrl.envs.minecraft.engine import ACTIONS, SIZE, Engine, Snapshot, allowed, observation, observation_space
from vlmrl.envs.minecraft.tasks import find_task
from vlmrl.errors import unknown


class MineDojo(gym.Env, EzPickle):
    """A task in Minecraft.

    | what | value |
    | --- | --- |
    | action | MultiDiscrete(3, 3, 4, 25, 25, 8, 244, 36) as in MineDojo, see `minecraft.engine.ACTIONS`. A function |
    | | that the masks do not allow does nothing |
    | observation | dict: "rgb" (3, 160, 256) uint8, and float32 vectors, see `minecraft.engine.VECTORS` |
    | reward | 1 when the task is done, else 0 |
    | start | near the task's mob, with its tool, facing anywhere |
    | termination | task done, or agent dead |

    `info` has "prompt", "guidance" (the task in words), "items", "kills" and "success".

    The seed of an episode decides where it starts. In a live game the game itself goes on drawing, so that the same
    seed does not give the same episode there.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: "front", through the agent's eyes; there is no other.
        engine: "craftground", "minedojo" (live games) or "fake" (drawn).
        task_id: One of the suite's tasks, or of MineDojo's with that engine.
        world_seed: Seed of the world.

    Raises:
        UserError: There is no such engine, task or camera, or what the engine needs is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    cameras = {"front": None}
    starts = ()

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = SIZE[1],
        height: int = SIZE[0],
        camera: str = "front",
        engine: str = "fake",
        task_id: str = "milk_cow",
        world_seed: int = 0,
    ):
        EzPickle.__init__(self, render_mode, width, height, camera, engine, task_id, world_seed)
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        self.task = find_task(task_id)
        self.render_mode, self.width, self.height = render_mode, width, height
        self.action_space = gym.spaces.MultiDiscrete(list(ACTIONS))
        self.observation_space = observation_space()
        self._engine: Engine = ENGINES.load(engine)(self.task, world_seed)
        self._last: Snapshot | None = None
        self._had: dict[str, int] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; the first one starts the game, which may take minutes."""
        super().reset(seed=seed)
        self._last = self._engine.reset(self.np_random)
        self._had = {"item": self._count("item"), "kill": self._count("kill")}
        return observation(self._last), self._info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act for one tick."""
        assert self._last is not None, "reset first"
        self._last = self._engine.step(allowed(np.asarray(action), self._last.vectors))
        done = self._done()
        return observation(self._last), float(done), done or self._last.dead, False, self._info()

    def render(self) -> np.ndarray | None:
        """Return what the agent sees, (height, width, 3) uint8 RGB; None without a render mode."""
        if self.render_mode is None or self._last is None:
            return None
        if (self.height, self.width) == SIZE:
            return self._last.rgb.copy()
        return cv2.resize(self._last.rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates read, float32 scalars: `success` (0 or 1), `gained` (of the task's target), `life`."""
        assert self._last is not None, "reset first"
        gained = self._count(self.task.goal) - self._had[self.task.goal] if self.task.goal else 0
        life = self._last.vectors.get("life_stats", np.zeros(1))[0]
        found = {"success": float(self._done()), "gained": float(gained), "life": float(life)}
        return {name: np.array(value, dtype=np.float32) for name, value in found.items()}

    def close(self) -> None:
        """End the game."""
        self._engine.close()

    def _count(self, goal: str) -> int:
        assert self._last is not None
        return int((self._last.items if goal == "item" else self._last.kills).get(self.task.target, 0))

    def _done(self) -> bool:
        assert self._last is not None
        if self._last.success is not None:
            return self._last.success
        return self.task.goal is not None and self._count(self.task.goal) > self._had[self.task.goal]

    def _info(self) -> dict[str, Any]:
        assert self._last is not None
        return {
            "prompt": self.task.prompt,
            "guidance": self.task.guidance,
            "items": dict(self._last.items),
            "kills": dict(self._last.kills),
            "success": self._done(),
        }
