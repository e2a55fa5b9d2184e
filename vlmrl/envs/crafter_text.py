"""What there is in Crafter, and sentences about it: what a step brought, what is seen, what the player has.

The same words are the goals of the tasks (`configs/task/<achievement>.yaml`), so that a reward that was trained on
sentences from here knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# In the order of the package, whose numbers count from 1.
MATERIALS = ("water", "grass", "stone", "path", "sand", "tree", "lava", "coal", "iron", "diamond", "table", "furnace")
THINGS = ("cow", "zombie", "skeleton", "arrow", "plant", "ripe plant")
ITEMS = (
    "health", "food", "drink", "energy", "sapling", "wood", "stone", "coal", "iron", "diamond", "wood_pickaxe",
    "stone_pickaxe", "iron_pickaxe", "wood_sword", "stone_sword", "iron_sword",
)  # fmt: skip
VITALS = ITEMS[:4]
# Each achievement, in the order of the package, as a sentence.
ACHIEVEMENTS = {
    "collect_coal": "you collect coal",
    "collect_diamond": "you collect a diamond",
    "collect_drink": "you drink water",
    "collect_iron": "you collect iron",
    "collect_sapling": "you collect a sapling from the grass",
    "collect_stone": "you collect stone",
    "collect_wood": "you collect wood from a tree",
    "defeat_skeleton": "you defeat a skeleton",
    "defeat_zombie": "you defeat a zombie",
    "eat_cow": "you eat a cow",
    "eat_plant": "you eat a ripe plant",
    "make_iron_pickaxe": "you make an iron pickaxe",
    "make_iron_sword": "you make an iron sword",
    "make_stone_pickaxe": "you make a stone pickaxe",
    "make_stone_sword": "you make a stone sword",
    "make_wood_pickaxe": "you make a wood pickaxe",
    "make_wood_sword": "you make a wood sword",
    "place_furnace": "you place a furnace",
    "place_plant": "you plant a sapling",
    "place_stone": "you place stone",
    "place_table": "you place a table",
    "wake_up": "you wake up",
}


def events(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what came of a step.

    Args:
        before: `achievements` and `inventory`, {name: count}, and `sleeping`, before the step.
        now: The same after it.

    Returns:
        "you collect wood from a tree, you are hurt"; empty where nothing happened that one would tell.
    """
    told = [
        sentence for name, sentence in ACHIEVEMENTS.items() if now["achievements"][name] > before["achievements"][name]
    ]
    if now["sleeping"] and not before["sleeping"]:
        told.append("you fall asleep")
    if now["inventory"]["health"] <= 0 < before["inventory"]["health"]:
        told.append("you die")
    elif now["inventory"]["health"] < before["inventory"]["health"]:
        told.append("you are hurt")
    for vital, feeling in (("food", "hungry"), ("drink", "thirsty"), ("energy", "tired")):
        if now["inventory"][vital] < min(before["inventory"][vital], LOW):
            told.append(f"you are {feeling}")
    return ", ".join(told)


LOW = 4  # of 9: below, one feels it


def surroundings(state: Mapping[str, np.ndarray]) -> str:
    """Say what is seen, what is faced and what the player has.

    Args:
        state: `simulator_state()` of the environment.

    Returns:
        "you see water, grass, tree, cow. you face tree. you have 2 wood, 1 sapling. you sleep. it is dark".
    """
    view = state["view"].astype(int)
    names = dict(enumerate([*MATERIALS, *THINGS], start=1))
    faced = int(view[4 + int(state["facing"][0]), 3 + int(state["facing"][1])])
    seen = [names[number] for number in np.unique(view).tolist() if number > 0]
    parts = [f"you see {_list(seen)}", f"you face {names.get(faced, 'nothing')}"]
    owned = [
        f"{int(amount)} {item.replace('_', ' ')}"
        for item, amount in zip(ITEMS, state["inventory"], strict=True)
        if item not in VITALS and amount > 0
    ]
    if owned:
        parts.append(f"you have {_list(owned)}")
    if state["sleeping"]:
        parts.append("you sleep")
    if state["daylight"] < 0.5:
        parts.append("it is dark")
    return ". ".join(parts)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
