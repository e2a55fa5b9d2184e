"""Sentences about Crafter, several ways of saying each thing.

The first of each is the suite's own (`vlmrl.envs.crafter_text`), which the tasks' goals are; the others are for
training, so that a person's own words are understood as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vlmrl.envs.crafter_text import ACHIEVEMENTS, ITEMS, MATERIALS, THINGS, VITALS

# Achievements in further words; a subject is put before them.
OTHERS = {
    "collect_coal": ("mine coal", "dig coal out of the rock", "get a piece of coal"),
    "collect_diamond": ("mine a diamond", "dig a white diamond out of the rock", "get a diamond"),
    "collect_drink": ("drink", "drink from the lake", "quench the thirst with water"),
    "collect_iron": ("mine iron", "dig iron out of the rock", "get a piece of iron"),
    "collect_sapling": ("collect a sapling", "pick a sapling", "get a sapling from the grass"),
    "collect_stone": ("mine stone", "dig stone out of the rock", "get a piece of stone"),
    "collect_wood": ("collect wood", "chop down a tree", "cut a tree for its wood", "get wood"),
    "defeat_skeleton": ("kill a skeleton", "fight a skeleton and win", "beat a skeleton in a cave"),
    "defeat_zombie": ("kill a zombie", "fight a green zombie and win", "beat a zombie"),
    "eat_cow": ("kill a cow and eat it", "hunt a cow", "get food from a cow"),
    "eat_plant": ("eat a plant", "harvest a ripe plant", "get food from a plant"),
    "make_iron_pickaxe": ("craft an iron pickaxe", "build a pickaxe of iron"),
    "make_iron_sword": ("craft an iron sword", "build a sword of iron"),
    "make_stone_pickaxe": ("craft a stone pickaxe", "build a pickaxe of stone"),
    "make_stone_sword": ("craft a stone sword", "build a sword of stone"),
    "make_wood_pickaxe": ("craft a wood pickaxe", "build a pickaxe of wood"),
    "make_wood_sword": ("craft a wood sword", "build a sword of wood"),
    "place_furnace": ("put down a furnace", "build a furnace", "set up a furnace of stone"),
    "place_plant": ("place a plant", "put a sapling into the grass", "plant something"),
    "place_stone": ("put down a stone", "block the way with stone", "put stone on the ground"),
    "place_table": ("put down a table", "build a table", "set up a crafting table"),
    "wake_up": ("wake up from sleep", "get up after sleeping"),
}
# What else a clip can show. Each key is found in what the player did, see `play.behaviour`.
BEHAVIOURS = {
    "walk": ("you walk", "you walk around", "you go from place to place"),
    "still": ("you do nothing", "you stand still", "you stay where you are"),
    "sleep": ("you sleep", "you are asleep"),
    "approach_water": ("you walk up to water", "you go to the water"),
    "approach_tree": ("you walk up to a tree", "you go to a tree"),
    "approach_stone": ("you walk up to stone", "you go to the rock"),
    "hurt": ("you are hurt", "you lose health"),
}
SUBJECTS = ("you", "the player", "a player", "someone", "")


def achievement(name: str, rng: np.random.Generator) -> str:
    """Say an achievement in some way; the suite's own words are as frequent as all others together."""
    own = ACHIEVEMENTS[name]
    others = OTHERS[name]
    subject = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
    if rng.random() < 0.5:
        return own
    plain = others[int(rng.integers(len(others)))]
    if subject == "":
        return plain
    return f"you {plain}" if subject == "you" else f"{subject} {_third(plain)}"


def behaviour(name: str, rng: np.random.Generator) -> str:
    """Say a behaviour in some way."""
    phrases = BEHAVIOURS[name]
    return phrases[0] if rng.random() < 0.5 else phrases[int(rng.integers(len(phrases)))]


def _third(plain: str) -> str:
    """Put the first verb of "kill a cow and eat it" into the third person."""
    verb, _, rest = plain.partition(" ")
    ending = "es" if verb.endswith(("ch", "sh", "ss", "x")) else "s"
    return f"{verb}{ending} {rest}".strip()


# What one picture shows: whether it does, by the columns of `play.STATE`.
def state_sentences() -> dict[str, tuple[str, ...]]:
    """Return {statement: ways to say it} of what one picture can show; `play.statements` says which are true."""
    said: dict[str, tuple[str, ...]] = {}
    for item in ITEMS:
        if item not in VITALS:
            words = item.replace("_", " ")
            said[f"has {item}"] = (f"you have {words}", f"you carry {words}", f"{words} in the inventory")
    for thing in (*MATERIALS, *THINGS):
        said[f"faces {thing}"] = (f"you face {thing}", f"you look at {thing}", f"you stand before {thing}")
        said[f"sees {thing}"] = (f"you see {thing}", f"there is {thing}", f"{thing} nearby")
    said["sleeps"] = ("you sleep", "you are asleep")
    said["night"] = ("it is dark", "it is night")
    said["weak"] = ("you have little health", "you are weak")
    return said


def all_sentences() -> list[str]:
    """Return every sentence that training can hold, so that their words count as taught."""
    texts = list(ACHIEVEMENTS.values())
    for phrases in OTHERS.values():
        texts += [f"{subject} {own(plain)}".strip() for plain in phrases for subject, own in _forms()]
    for group in (BEHAVIOURS, state_sentences()):
        texts += [phrase for phrases in group.values() for phrase in phrases]
    return texts


def _forms() -> Sequence[tuple[str, Callable[[str], str]]]:
    return [(subject, _third if subject not in ("", "you") else str) for subject in SUBJECTS]
