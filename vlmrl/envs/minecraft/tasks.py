"""Tasks of Minecraft in words: five that come with the suite, and the 3131 of MineDojo where its package is."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vlmrl.errors import UserError, did_you_mean

LIBRARY = "minedojo"  # the package whose files hold MineDojo's tasks
FILES = ("programmatic_tasks.yaml", "creative_tasks.yaml", "playthrough_task.yaml")


@dataclass(frozen=True)
class MinecraftTask:
    """A task.

    Attributes:
        id: Its name: of the suite, or of MineDojo.
        prompt: What is to be done, in a sentence.
        guidance: How it can be done, in MineDojo's words; empty where there are none.
        minedojo_id: The task of MineDojo that its own engine runs.
        goal: "item" or "kill" for the tasks that other engines know how to check; None for MineDojo's own checks.
        target: The item, or the mob.
        mob: What is near the agent when an episode starts; empty for nothing.
        tool: What the agent holds; empty for nothing.
        armor: Whether it wears armor of leather.
        night: Whether it is night.
    """

    id: str
    prompt: str
    guidance: str = ""
    minedojo_id: str = ""
    goal: Literal["item", "kill"] | None = None
    target: str = ""
    mob: str = ""
    tool: str = ""
    armor: bool = False
    night: bool = False


# Tasks like those that MineCLIP's rewards were tried on (Fan et al. 2022, table 1).
SHIPPED = {
    task.id: task
    for task in (
        MinecraftTask(
            "milk_cow", "milk a cow", "", "harvest_milk_with_empty_bucket_and_cow", "item", "milk_bucket", "cow",
            "bucket",
        ),
        MinecraftTask("hunt_cow", "hunt a cow", "", "combat_cow_plains_barehand", "kill", "cow", "cow"),
        MinecraftTask(
            "shear_sheep", "shear a sheep", "", "harvest_wool_with_shears_and_sheep", "item", "wool", "sheep", "shears"
        ),
        MinecraftTask(
            "combat_spider", "combat a spider", "", "combat_spider_plains_leather_armors_wooden_sword_shield", "kill",
            "spider", "spider", "wooden_sword", armor=True, night=True,
        ),
        MinecraftTask(
            "combat_zombie", "combat a zombie", "", "combat_zombie_plains_leather_armors_wooden_sword_shield", "kill",
            "zombie", "zombie", "wooden_sword", armor=True, night=True,
        ),
    )
}  # fmt: skip


def library_folder() -> Path | None:
    """Return where MineDojo's descriptions of its tasks lie; None where its package is not installed.

    The package itself is not imported: it needs an old gym, and the descriptions do not.
    """
    spec = importlib.util.find_spec(LIBRARY)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "tasks" / "description_files"
    return folder if (folder / FILES[0]).is_file() else None


@cache
def library() -> dict[str, MinecraftTask]:
    """Return all tasks of MineDojo by their ids, in its order; empty where its package is not installed."""
    folder = library_folder()
    if folder is None:
        return {}
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 43,000 lines: in C they take a second
    found: dict[str, MinecraftTask] = {}
    for name in FILES:
        content: dict[str, Any] = yaml.load((folder / name).read_text(encoding="utf-8"), Loader=loader)
        for key, entry in content.items():
            found[key] = MinecraftTask(key, str(entry["prompt"]), str(entry["guidance"]), key)
    return found


def find_task(name: str) -> MinecraftTask:
    """Return a task of the suite or of MineDojo.

    Raises:
        UserError: There is no such task, or MineDojo's descriptions are needed and not installed.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    tasks = library()
    if name in tasks:
        return tasks[name]
    known = ", ".join(SHIPPED)
    if not tasks:
        raise UserError(
            f"There is no Minecraft task '{name}' in the suite, which has {known}. MineDojo has 3131 more; to read "
            "them: pip install --no-deps minedojo==0.1 (with its own pins it cannot be installed)."
        )
    raise UserError(
        f"There is no Minecraft task '{name}'.{did_you_mean(name, tasks)} The suite has {known}; MineDojo has "
        f"{len(tasks)}, which vlmrl.envs.minecraft.tasks.library() lists with their prompts."
    )
