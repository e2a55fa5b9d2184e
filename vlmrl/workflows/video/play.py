"""Scenes of Crafter with something to see in them: a script plays, and the game says what was achieved.

An agent that acts at random reaches few of the 22 achievements. So each scene puts the player near what it is about,
with an inventory and at an hour that are drawn, and a script walks there and does it, now and then with a random step.
To tell an achievement from its beginning, other scenes lack something that it takes, or only walk, stand, sleep or play
at random. What a scene is called never comes from its script: the counts of the game say what was achieved, and when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.envs.crafter import Crafter
from vlmrl.envs.crafter_text import ACHIEVEMENTS, ITEMS, MATERIALS, THINGS

NAMES = tuple(ACHIEVEMENTS)
WALKABLE = ("grass", "sand", "path")
MOVES = {(-1, 0): 1, (1, 0): 2, (0, -1): 3, (0, 1): 4}
NOTHING, DO, SLEEP = 0, 5, 6
PLACE = {"stone": 7, "table": 8, "furnace": 9, "plant": 10}
TOOLS = ("wood_pickaxe", "stone_pickaxe", "iron_pickaxe", "wood_sword", "stone_sword", "iron_sword")
MAKE = {tool: 11 + i for i, tool in enumerate(TOOLS)}
TARGETS = {  # what is collected where, and with what
    "collect_coal": ("coal", {"wood_pickaxe": 1}),
    "collect_diamond": ("diamond", {"iron_pickaxe": 1}),
    "collect_drink": ("water", {}),
    "collect_iron": ("iron", {"stone_pickaxe": 1}),
    "collect_sapling": ("grass", {}),
    "collect_stone": ("stone", {"wood_pickaxe": 1}),
    "collect_wood": ("tree", {}),
}
USES = {  # what placing and making takes
    "stone": {"stone": 1},
    "table": {"wood": 2},
    "furnace": {"stone": 4},
    "plant": {"sapling": 1},
    "wood_pickaxe": {"wood": 1},
    "stone_pickaxe": {"wood": 1, "stone": 1},
    "iron_pickaxe": {"wood": 1, "coal": 1, "iron": 1},
    "wood_sword": {"wood": 1},
    "stone_sword": {"wood": 1, "stone": 1},
    "iron_sword": {"wood": 1, "coal": 1, "iron": 1},
}
CREATURES = {"defeat_skeleton": "Skeleton", "defeat_zombie": "Zombie", "eat_cow": "Cow"}
ENTITIES = {  # what an achievement is about, as it is seen; the others are about what is held
    **{name: material for name, (material, _) in TARGETS.items()},
    "defeat_skeleton": "skeleton", "defeat_zombie": "zombie", "eat_cow": "cow", "eat_plant": "ripe plant",
    "place_plant": "plant", "place_stone": "stone", "place_table": "table", "place_furnace": "furnace",
    **{f"make_{tool}": "table" for tool in TOOLS},
}  # fmt: skip
KINDS = {"done": 0.6, "lacking": 0.15, "wander": 0.1, "random": 0.15}  # of scenes
LENGTH = (26, 40)  # frames of a scene, least and most
SCENES_A_WORLD = 8
ASTRAY = 0.1  # share of steps of a script that are random moves
REACH = 10  # tiles that a script looks around for a way
FACED = ("nothing", *MATERIALS, *THINGS)
STATE = (
    *(f"has {item}" for item in ITEMS),
    *(f"faces {thing}" for thing in FACED),
    *(f"sees {thing}" for thing in FACED[1:]),
    "sleeps",
    "daylight",
)


@dataclass(frozen=True)
class Scene:
    """What was seen and done in a row.

    Attributes:
        frames: (n, H, W, 3) uint8 RGB.
        achieved: (n, 22) bool, what was achieved on arriving at a frame, in the order of `ACHIEVEMENTS`.
        behaviour: (n,) str, what was done otherwise on arriving at a frame, see `BEHAVIOURS` of the phrases.
        state: (n, S) float32, what a frame shows, 0 to 1 each, see `STATE`.
        shares: (n, 18) float32, share of the picture that each of `FACED` but "nothing" takes, 0 to 1.
        about: Achievement that the scene is about, which may or may not come of it.
    """

    frames: np.ndarray
    achieved: np.ndarray
    behaviour: np.ndarray
    state: np.ndarray
    shares: np.ndarray
    about: str = ""


def scenes(
    count: int, size: tuple[int, int], seed: int | Sequence[int], about: Sequence[str] = NAMES
) -> Iterator[Scene]:
    """Play scenes, one after the other.

    Args:
        count: Number of scenes.
        size: (height, width) of the pictures in pixels.
        seed: Of everything; a sequence of numbers is a seed that no single number is.
        about: Achievements that they are about, in turn.
    """
    rng = np.random.default_rng(seed)
    env = Crafter(render_mode="rgb_array", height=size[0], width=size[1])
    kinds, shares = zip(*KINDS.items(), strict=True)
    for i in range(count):
        if i % SCENES_A_WORLD == 0:
            env.reset(seed=int(rng.integers(2**31)))
        name = about[i % len(about)]
        kind = str(rng.choice(kinds, p=shares))
        yield Director(env, rng).play(name, kind)
    env.close()


class Director:
    """Prepares a scene and plays it.

    Args:
        env: The environment, after a reset.
        rng: Draws everything.
    """

    def __init__(self, env: Crafter, rng: np.random.Generator):
        self._env, self._rng = env, rng
        self._world, self._player = env.game.world, env.game.player

    def play(self, name: str, kind: str) -> Scene:
        """Play one scene about an achievement; see `KINDS`."""
        target = self._prepare(name, kind)
        frames: list[np.ndarray] = []
        notes: list[tuple[np.ndarray, str, np.ndarray, np.ndarray]] = []
        length, tries, wandering = int(self._rng.integers(*LENGTH)), 0, int(self._rng.integers(0, 8))
        self._note(frames, notes, dict(self._player.achievements), self._player.pos, self._player.health, NOTHING)
        while len(frames) < length and self._player.health > 0:
            before, place, health = dict(self._player.achievements), self._player.pos, self._player.health
            done = kind == "done" and any(achieved[NAMES.index(name)] for achieved, *_ in notes)
            if kind == "random":
                action = int(self._rng.integers(17))
            elif kind == "wander" or done or len(frames) <= wandering or self._rng.random() < ASTRAY or tries > 12:
                action = self._stroll(kind, done)
            else:
                action, trying = self._act(name, target)
                tries += trying
            self._env.step(action)
            self._note(frames, notes, before, place, health, action)
        achieved, behaviours, state, shares = zip(*notes, strict=True)
        return Scene(
            np.stack(frames), np.stack(achieved), np.array(behaviours), np.stack(state), np.stack(shares), name
        )

    # What is there

    def _prepare(self, name: str, kind: str) -> Any:
        """Give the player a place, an hour and an inventory; return what the scene is about: a place or a creature."""
        rng, player, game = self._rng, self._player, self._env.game
        game.set_clock(int(rng.integers(300)))
        player.sleeping = False
        player.inventory.update({item: int(rng.integers(3, 10)) for item in ITEMS[:4]})
        for item in ITEMS[4:]:
            owned = rng.random() < 0.3
            player.inventory[item] = int(owned) * (1 if item in TOOLS else int(rng.integers(1, 8)))
        needs = self._needs(name)
        for item, amount in needs.items():
            player.inventory[item] = amount if item in TOOLS else min(9, amount + int(rng.integers(0, 4)))
        if kind == "lacking" and needs:
            player.inventory[next(iter(needs))] = 0
        for thing in self._world.objects[1:]:
            if self._near(thing.pos, 8):
                self._world.remove(thing)  # so that a scene is about what it is about
        if name in TARGETS:
            return self._go_near(TARGETS[name][0])
        if name.startswith("make_"):
            place = self._go_near("table")
            if "iron" in name:
                self._put_beside(place, "furnace")
            return place
        self._go_anywhere()
        if name in CREATURES:
            return self._creature(CREATURES[name])
        if name == "eat_plant":
            return self._creature("Plant")
        if name == "wake_up":
            player.inventory["energy"] = 8
            player._fatigue = -int(rng.integers(4, 9))  # the game adds a point of energy below -10
        return None

    def _needs(self, name: str) -> dict[str, int]:
        if name in TARGETS:
            return dict(TARGETS[name][1])
        return dict(USES.get(name.partition("_")[2], {}))

    def _near(self, place: Any, reach: int) -> bool:
        return bool(np.abs(np.asarray(place) - self._player.pos).sum() <= reach)

    def _free(self, place: tuple[int, int]) -> bool:
        material, thing = self._world[place]
        return material in WALKABLE and thing is None

    def _tiles(self, material: str) -> np.ndarray:
        """Places of a material, (n, 2), away from the edge."""
        own = np.argwhere(self._world._mat_map == self._world._mat_ids[material])
        return own[((own > 3) & (own < 60)).all(axis=1)]

    def _go_anywhere(self) -> None:
        for _ in range(50):
            tiles = self._tiles(str(self._rng.choice(["grass", "grass", "sand", "path"])))
            if len(tiles) and self._move_to(tuple(tiles[self._rng.integers(len(tiles))])):
                return

    def _move_to(self, place: tuple[int, int]) -> bool:
        if not self._free(place):
            return False
        self._world.move(self._player, np.array(place))
        return True

    def _go_near(self, material: str) -> tuple[int, int]:
        """Put the player some steps from a tile of a material, which is made where there is none; return the tile."""
        tiles = self._tiles(material)
        for place in self._rng.permutation(tiles)[:20].tolist() if len(tiles) else ():
            beside = [(place[0] + dx, place[1] + dy) for dx, dy in MOVES if self._free((place[0] + dx, place[1] + dy))]
            if beside and self._walk_off(beside[int(self._rng.integers(len(beside)))]):
                return (int(place[0]), int(place[1]))
        self._go_anywhere()
        around = [place for place in self._reachable(tuple(self._player.pos), 4) if self._free(place)]
        if not around:  # walled in: what is faced will do
            around = [(int(self._player.pos[0]), int(self._player.pos[1]) + 1)]
        place = around[int(self._rng.integers(len(around)))]
        self._world[place] = material
        return place

    def _walk_off(self, start: tuple[int, int]) -> bool:
        """Put the player up to 5 steps from a free place."""
        places = list(self._reachable(start, 5))
        return self._move_to(places[int(self._rng.integers(len(places)))])

    def _put_beside(self, place: tuple[int, int], material: str) -> None:
        free = [(place[0] + dx, place[1] + dy) for dx, dy in MOVES if self._free((place[0] + dx, place[1] + dy))]
        if len(free) > 1:
            self._world[free[0]] = material

    def _creature(self, kind: str) -> Any:
        from crafter import objects

        around = [place for place in self._reachable(tuple(self._player.pos), 4) if self._free(place)]
        place = around[int(self._rng.integers(len(around)))] if around else None
        if place is None:
            return None
        if kind == "Skeleton":
            self._world[place] = "path"  # it walks nowhere else
        made = getattr(objects, kind)
        thing = made(self._world, place) if kind in ("Cow", "Plant") else made(self._world, place, self._player)
        if kind == "Plant":
            self._world[place] = "grass"
            thing.grown = 301
        self._world.add(thing)
        return thing

    # What is done

    def _stroll(self, kind: str, done: bool) -> int:
        """Walk on, or stand or sleep for a while."""
        if kind == "wander" and self._rng.random() < 0.4:
            return int(self._rng.choice([NOTHING, NOTHING, SLEEP]))
        return NOTHING if done and self._rng.random() < 0.3 else int(self._rng.integers(1, 5))

    def _act(self, name: str, target: Any) -> tuple[int, bool]:
        """Return what leads to the achievement, and whether that is the deed itself."""
        if name == "wake_up":
            return SLEEP, False
        if name.startswith("place_"):
            return PLACE[name.removeprefix("place_")], True
        if target is None:
            return self._stroll("", False), False
        place = tuple(int(part) for part in (target.pos if hasattr(target, "pos") else target))
        if name.startswith("make_") and np.abs(np.array(place) - self._player.pos).max() <= 1:
            return MAKE[name.removeprefix("make_")], True
        return self._towards(place)

    def _towards(self, place: tuple[int, ...]) -> tuple[int, bool]:
        x, y = (int(part) for part in self._player.pos)
        offset = (place[0] - x, place[1] - y)
        if offset in MOVES:
            faces = tuple(int(part) for part in self._player.facing) == offset
            material, thing = self._world[place]
            if not faces and material in WALKABLE and thing is None:
                # A free tile is faced by walking towards it from one step off; grass is taken from where one stands.
                return DO, True
            return (DO, True) if faces else (MOVES[offset], False)
        first = self._way((x, y), place)
        return (MOVES[first] if first is not None else int(self._rng.integers(1, 5))), False

    def _reachable(self, start: tuple[int, ...], reach: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return free places within some steps, each with the first step of a way there."""
        x, y = int(start[0]), int(start[1])
        found: dict[tuple[int, int], tuple[int, int]] = {(x, y): (0, 0)}
        queue = deque([(x, y, 0)])
        while queue:
            x, y, far = queue.popleft()
            if far == reach:
                continue
            for dx, dy in MOVES:
                place = (x + dx, y + dy)
                if place not in found and self._free(place):
                    found[place] = found[x, y] if far else (dx, dy)
                    queue.append((*place, far + 1))
        return found

    def _way(self, start: tuple[int, int], place: tuple[int, ...]) -> tuple[int, int] | None:
        """Return the first step of a way to beside a place; None where there is none near."""
        reachable = self._reachable(start, REACH)
        beside = [reachable.get((place[0] + dx, place[1] + dy)) for dx, dy in MOVES]
        steps = [step for step in beside if step is not None and step != (0, 0)]
        return steps[0] if steps else None

    # What is written down

    def _note(
        self, frames: list[np.ndarray], notes: list[Any], before: Any, place: Any, health: int, action: int
    ) -> None:
        player = self._player
        frame = self._env.render()
        assert frame is not None
        frames.append(frame)
        achieved = np.array([player.achievements[name] > before[name] for name in NAMES])
        state = self._env.simulator_state()
        view = state["view"].astype(int)
        faced = max(0, int(view[4 + int(state["facing"][0]), 3 + int(state["facing"][1])]))
        moved = bool((np.asarray(place) != player.pos).any())
        if player.sleeping:
            behaviour = "sleep"
        elif player.health < health:
            behaviour = "hurt"
        elif moved and FACED[faced] in ("water", "tree", "stone"):
            behaviour = f"approach_{FACED[faced]}"
        else:
            behaviour = "walk" if moved else "still"
        counts = np.bincount(view[view > 0], minlength=len(FACED))[1:]
        values = np.concatenate(
            [
                state["inventory"] / 9,
                np.eye(len(FACED))[faced],
                counts > 0,
                [float(state["sleeping"]), float(state["daylight"])],
            ]
        )
        notes.append((achieved, behaviour, values.astype(np.float32), (counts / 81).astype(np.float32)))
