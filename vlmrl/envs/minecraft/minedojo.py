"""The engine of MineDojo itself: Minecraft 1.11.2 under Malmo, all of its 3131 tasks; needs Java 8.

Package `minedojo` 0.1 pins what cannot be built any more (gym 0.21) and speaks the API of that time. Installed without
its pins, beside gym 0.25, and with two names mended that newer numpy and gym lack, it runs.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from vlmrl.envs.minecraft.engine import SIZE, Snapshot, compass
from vlmrl.envs.minecraft.java import require_java
from vlmrl.envs.minecraft.tasks import MinecraftTask
from vlmrl.errors import UserError

JAVA = 8
INSTALL = "Take one from adoptium.net (Temurin 8); Debian and Ubuntu 24 have none."
FLAGS = ("is_solid", "is_liquid", "is_collidable")


class MineDojoEngine:
    """See this module and `engine.Engine`.

    Args:
        task: A task of the suite or of MineDojo.
        world_seed: Seed of the world.

    Raises:
        UserError: The package or its Java is missing, or the task has no counterpart in MineDojo.
    """

    def __init__(self, task: MinecraftTask, world_seed: int = 0):
        if not task.minedojo_id:
            raise UserError(f"The task '{task.id}' is not one of MineDojo's; use another engine for it.")
        self._env = make(task.minedojo_id, world_seed)
        require_java(JAVA, "minedojo", INSTALL)

    def reset(self, rng: np.random.Generator) -> Snapshot:
        """Start the game at the first call (its build takes minutes once); then begin an episode."""
        self._env.unwrapped.seed(int(rng.integers(2**31)))
        return self._snapshot(self._env.reset(), False)

    def step(self, action: np.ndarray) -> Snapshot:
        """Act for one tick."""
        content, _, ended, _ = self._env.step(action)
        return self._snapshot(content, bool(ended))

    def close(self) -> None:
        """End the game."""
        self._env.close()

    def _snapshot(self, content: dict[str, Any], ended: bool) -> Snapshot:
        success = bool(getattr(self._env, "is_successful", False))
        return snapshot(content, success, dead=ended and not success)


def make(task_id: str, world_seed: int) -> Any:
    """Make a task of MineDojo; nothing is started.

    Raises:
        UserError: The package is not installed, or has no such task.
    """
    _mend_numpy()
    try:
        import minedojo
        import minedojo.tasks as tasks
        from minedojo.sim import spaces
    except ModuleNotFoundError as error:
        raise UserError(
            f"The Minecraft engine 'minedojo' needs the package '{error.name}', which is not installed. MineDojo's own "
            "pins cannot be met, so it has an environment of its own: make minedojo; or, in this one: pip install "
            "--no-deps -r requirements-minedojo.txt. To try everything else without a game: env.kwargs.engine=fake."
        ) from error
    # Its own Dict is a Mapping in newer gym, whose keys() has other semantics than the `in` that the package uses.
    spaces.Dict.keys = lambda space: space.spaces.keys()
    # Making a task takes entries out of the package's table: a second one of the same name would not be found.
    specs = copy.deepcopy(tasks.ALL_TASKS_SPECS.get(task_id))
    try:
        return minedojo.make(task_id, image_size=SIZE, world_seed=str(world_seed), seed=world_seed)
    except ValueError as error:
        raise UserError(f"MineDojo cannot make the task '{task_id}': {error}") from error
    finally:
        if specs is not None:
            tasks.ALL_TASKS_SPECS[task_id] = specs


def _mend_numpy() -> None:
    """Give numpy the name back that it had before 2.0."""
    if not hasattr(np, "unicode_"):
        np.unicode_ = np.str_  # type: ignore[attr-defined]


def snapshot(content: dict[str, Any], success: bool, dead: bool) -> Snapshot:
    """Return what an observation of MineDojo says.

    Args:
        content: Its nested dict; "rgb" is (3, 160, 256) uint8.
        success: What its own check says.
        dead: Whether the game has ended otherwise.
    """
    life, where, masks = content["life_stats"], content["location_stats"], content["masks"]
    items: dict[str, int] = {}
    for name, count in zip(content["inventory"]["name"], content["inventory"]["quantity"], strict=True):
        if name != "air" and count:
            items[str(name).replace(" ", "_")] = items.get(str(name).replace(" ", "_"), 0) + int(count)
    vectors = {
        "life_stats": _numbers(life, "life", "food", "saturation", "oxygen", "armor", "xp"),
        "position": np.asarray(where["pos"], np.float32).ravel(),
        "view": compass(float(np.ravel(where["yaw"])[0]), float(np.ravel(where["pitch"])[0])),
        "surroundings": _numbers(
            where, "light_level", "sky_light_level", "sun_brightness", "rainfall", "temperature", "is_raining"
        ),
        "inventory": np.asarray(content["inventory"]["quantity"], np.float32),
        "nearby_tools": _numbers(content["nearby_tools"], "table", "furnace"),
        **{f"mask_{name}": np.asarray(masks[name], np.float32).ravel()
           for name in ("action_type", "craft_smelt", "equip", "place", "destroy")},
    }  # fmt: skip
    if "voxels" in content:
        vectors["voxels"] = np.concatenate([np.asarray(content["voxels"][name], np.float32).ravel() for name in FLAGS])
    rgb = np.ascontiguousarray(np.asarray(content["rgb"]).transpose(1, 2, 0))
    return Snapshot(rgb, vectors, items, dead=dead, success=success)


def _numbers(group: dict[str, Any], *names: str) -> np.ndarray:
    return np.array([float(np.ravel(group[name])[0]) for name in names], dtype=np.float32)
