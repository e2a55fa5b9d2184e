"""Minecraft: what is asked of an engine, tasks in words, and the engines: a drawn stand-in and two live games."""

from vlmrl.registry import Registry

# Each entry takes (task, world_seed) and is an Engine.
ENGINES = Registry(
    "Minecraft engine",
    {
        "craftground": "vlmrl.envs.minecraft.craftground:CraftGroundEngine",
        "fake": "vlmrl.envs.minecraft.fake:FakeEngine",
        "minedojo": "vlmrl.envs.minecraft.minedojo:MineDojoEngine",
    },
)
