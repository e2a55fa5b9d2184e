"""The engine CraftGround: today's Minecraft (1.21), which its package builds and starts; needs Java 21.

Package `craftground` 2.7 (LGPL-3.0), which is maintained and takes MineDojo's actions, less crafting, equipping,
placing and destroying: their masks are 0 here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmrl.envs.minecraft.engine import SIZE, SLOTS, Snapshot, compass
from vlmrl.envs.minecraft.java import require_java
from vlmrl.envs.minecraft.tasks import MinecraftTask
from vlmrl.errors import UserError, require

JAVA = 21
INSTALL = (
    "On Debian or Ubuntu, as root: apt-get install openjdk-21-jdk (Debian 12 has none: take one from adoptium.net)."
)
FUNCTIONS = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=np.float32)  # nothing, use, drop, attack
ARMOR = {"head": "leather_helmet", "chest": "leather_chestplate", "legs": "leather_leggings", "feet": "leather_boots"}


class CraftGroundEngine:
    """See this module and `engine.Engine`.

    The world is that of `world_seed` and stays from episode to episode; an episode begins with a fast reset, which
    heals the agent, brings it back, and runs the commands that set up the task.

    Args:
        task: One of the suite's own.
        world_seed: Seed of the world.

    Raises:
        UserError: The package or its Java is missing, or the task needs MineDojo's engine.
    """

    def __init__(self, task: MinecraftTask, world_seed: int = 0):
        if task.goal is None:
            raise UserError(
                f"The engine 'craftground' knows the suite's own tasks, and '{task.id}' is one of MineDojo's: "
                "env.kwargs.engine=minedojo."
            )
        package = require(
            "craftground",
            extra="craftground",
            hint=f"It also needs Java {JAVA}. To try everything else without a game: env.kwargs.engine=fake.",
        )
        require_java(JAVA, "craftground", INSTALL)
        self._task = task
        self._env: Any = package.make(initial_env_config=initial_config(task, world_seed), mc_version="1.21")
        self._started = False

    def reset(self, rng: np.random.Generator) -> Snapshot:
        """Start the game at the first call; then begin anew, the mob some blocks off in any direction.

        Raises:
            UserError: The game does not start.
        """
        if not self._started:
            try:
                self._env.reset(options={"fast_reset": True})
            except RuntimeError as error:
                raise UserError(
                    f"The Minecraft engine 'craftground' could not start its game ({error}); the lines above say why. "
                    "At its first start Gradle downloads the game and builds it, which takes a network and a JDK "
                    f"{JAVA}. To try everything else without a game: env.kwargs.engine=fake."
                ) from error
            self._started = True
        content, _ = self._env.reset(options={"fast_reset": True, "extra_commands": start_commands(self._task, rng)})
        return snapshot(content, self._task)

    def step(self, action: np.ndarray) -> Snapshot:
        """Act for one tick."""
        content, *_ = self._env.step(action.tolist())
        return snapshot(content, self._task)

    def close(self) -> None:
        """End the game."""
        self._env.close()


def initial_config(task: MinecraftTask, world_seed: int) -> Any:
    """Return CraftGround's settings of a world for a task."""
    from craftground import InitialEnvironmentConfig
    from craftground.initial_environment_config import Difficulty

    config = InitialEnvironmentConfig(
        image_width=SIZE[1],
        image_height=SIZE[0],
        difficulty=Difficulty.NORMAL,
        seed=str(world_seed),
        killed_stat_keys=[f"minecraft:{task.target}"] if task.goal == "kill" else [],
        hud_hidden=False,
    )
    config.set_allow_mob_spawn(False)
    config.freeze_weather()
    config.freeze_time()
    return config


def start_commands(task: MinecraftTask, rng: np.random.Generator) -> list[str]:
    """Return the game's commands that set up a task: time, tool, armor, and its mob 4 to 8 blocks off."""
    bearing, distance = rng.uniform(0, 2 * np.pi), rng.uniform(4, 8)
    x, z = distance * np.sin(bearing), distance * np.cos(bearing)
    commands = [
        f"time set {'midnight' if task.night else 'noon'}",
        "kill @e[type=!minecraft:player]",
        "clear @p",
        f"tp @p ~ ~ ~ {int(rng.integers(24)) * 15} 0",
    ]
    if task.tool:
        commands.append(f"item replace entity @p weapon.mainhand with minecraft:{task.tool}")
    if task.armor:
        commands += [f"item replace entity @p armor.{slot} with minecraft:{item}" for slot, item in ARMOR.items()]
    return [*commands, f"summon minecraft:{task.mob} ~{x:.1f} ~1 ~{z:.1f}"]


def snapshot(content: dict[str, Any], task: MinecraftTask) -> Snapshot:
    """Return what an observation of CraftGround says.

    Args:
        content: "rgb", (160, 256, 3) uint8 of its raw screen encoding, and "full", its message.
        task: The task.

    Raises:
        RuntimeError: The picture has another form, as those of its other screen encodings do.
    """
    rgb, full = np.asarray(content["rgb"]), content["full"]
    if rgb.shape != (*SIZE, 3) or rgb.dtype != np.uint8:
        raise RuntimeError(f"CraftGround gave a picture {rgb.shape} {rgb.dtype}; {(*SIZE, 3)} uint8 was asked for.")
    slots = np.zeros(SLOTS, np.float32)
    items: dict[str, int] = {}
    for i, stack in enumerate(full.inventory):
        name = stack.translation_key.rpartition(".")[2]
        if name != "air" and stack.count:
            items[name] = items.get(name, 0) + stack.count
            if i < SLOTS:
                slots[i] = stack.count
    # In today's game wool is a colour's; MineDojo has one kind.
    wool = sum(count for name, count in items.items() if name.endswith("_wool"))
    if wool:
        items["wool"] = wool
    vectors = {
        "life_stats": np.array([full.health, full.food_level, full.saturation_level, 0, 0, full.experience]),
        "position": np.array([full.x, full.y, full.z]),
        "view": compass(full.yaw, full.pitch),
        "inventory": slots,
        "mask_action_type": FUNCTIONS,
    }
    kills = {name.rpartition(":")[2].rpartition(".")[2]: count for name, count in full.killed_statistics.items()}
    return Snapshot(rgb, vectors, items, kills, dead=bool(full.is_dead))
