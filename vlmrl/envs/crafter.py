"""Crafter: an open world in two dimensions with 22 achievements, from collecting wood to finding a diamond.

Source: Hafner: "Benchmarking the Spectrum of Agent Capabilities", ICLR 2022 (arXiv 2109.06780), package `crafter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.crafter_text import ACHIEVEMENTS, ITEMS, MATERIALS, THINGS, events, surroundings
from vlmrl.errors import UserError, require, unknown

if TYPE_CHECKING:
    from vlmrl.envs.crafter_game import Game

Observation = Literal["symbolic", "picture"]
Text = Literal["events", "state"]
ACTIONS = 17
VIEW = (9, 7)  # columns and rows of tiles that are seen
SMALLEST = 18  # pixels; below, a tile has fewer than 2


class Crafter(gym.Env, EzPickle):
    """Crafter in Gymnasium's form, in episodes of at most 10,000 steps.

    | what | value |
    | --- | --- |
    | action | 0 to 16: nothing, 4 moves, do, sleep, 4 things to place, 6 tools to make |
    | observation | symbolic: (1219,) float32, 0 to 1, what is seen; picture: (64, 64, 3) uint8 RGB |
    | reward | Crafter's own: 1 where something is achieved for the first time, 0.1 a point of health |
    | start | in the middle of a new world |
    | termination | the player dies; truncated after 10,000 steps by its registration |

    An episode that starts with `reset(seed=...)` is that of `crafter.Env(seed=info["world_seed"])`, but for which of
    several creatures disappears: in the package that depends on addresses in memory.

    The symbolic observation has, for each of the 9 x 7 tiles around the player, one of 13 materials (the edge of the
    world is one) and up to one of 6 things; then the 16 items of the inventory, of 9; where the player looks (4), how
    light it is, whether the player sleeps. That is the kind of observation of Craftax-Classic-Symbolic (Matthews et al.
    2024, arXiv 2402.16801).

    `info` has what the package's has, but for the map: `achievements` and `inventory` ({name: count}), `discount`
    (0 where the player died, else 1) and `player_pos`; and `text`: what happened, or what there is.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels, at least 18.
        height: Picture height in pixels, at least 18. At 64 x 64 pictures are those of the package.
        camera: "front", the only one: the player is in the middle.
        observation: "symbolic" or "picture".
        text: What `info["text"]` says. "events": what the last step brought, such as "you collect wood", empty where
            nothing happened. "state": the same, what is seen, what the player looks at and has.

    Raises:
        UserError: Crafter is not installed, or there is no such camera, observation, text or size.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    cameras = {"front": None}
    described_state = {
        "position": ("column and row of the player in the world of 64 x 64 tiles, rows count downwards", (2,)),
        "facing": ("step in columns and rows to the tile that the player looks at", (2,)),
        "view": (
            "what is on the tiles around the player, 9 columns of 7 rows, the player's own at [4][3]: -1 the edge, "
            + ", ".join(f"{i} {name}" for i, name in enumerate([*MATERIALS, *THINGS], start=1)),
            VIEW,
        ),
        "inventory": ("how many of each, 0 to 9: " + ", ".join(ITEMS), (len(ITEMS),)),
        "achievements": ("how often in this episode: " + ", ".join(ACHIEVEMENTS), (len(ACHIEVEMENTS),)),
        "sleeping": ("1 while the player sleeps, else 0", ()),
        "daylight": ("0 at night to 1 by day", ()),
    }
    described_action = (
        "0 nothing, 1 left, 2 right, 3 up, 4 down, 5 do (collect, attack, eat, drink what is faced), 6 sleep, "
        "7 place stone, 8 table, 9 furnace, 10 plant, 11 make a wood, 12 stone, 13 iron pickaxe, 14 to 16 the swords",
    )
    described_notes = (
        "A survival game on a grid. Health, food, drink and energy go down by themselves; zombies and skeletons hurt.",
    )

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        observation: Observation = "symbolic",
        text: Text = "events",
    ):
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        if observation not in get_args(Observation):
            raise unknown("observation of Crafter:", observation, get_args(Observation))
        if text not in get_args(Text):
            raise unknown("text of Crafter:", text, get_args(Text))
        if min(width, height) < SMALLEST:
            raise UserError(f"Crafter's pictures have at least {SMALLEST} x {SMALLEST} pixels, not {width} x {height}.")
        EzPickle.__init__(self, render_mode, width, height, camera, observation, text)
        require("crafter", extra="crafter")
        from vlmrl.envs.crafter_game import STANDARD, Game

        self.render_mode = render_mode
        self._size, self._standard = (width, height), STANDARD
        self._pictures, self._text = observation == "picture", text
        self._game = Game()
        self._before: dict[str, Any] = {}
        self.action_space = gym.spaces.Discrete(ACTIONS)
        self.observation_space: gym.spaces.Box = (
            gym.spaces.Box(0, 255, (*STANDARD[::-1], 3), np.uint8)
            if self._pictures
            else gym.spaces.Box(0.0, 1.0, (_symbols(),), np.float32)
        )

    @property
    def game(self) -> Game:
        """The game, for those who play it by its own objects."""
        return self._game

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in a new world; `info["world_seed"]` is its seed."""
        super().reset(seed=seed, options=options)
        world_seed = int(self.np_random.integers(2**31 - 1))
        self._game.start(world_seed)
        self._before = self._status()
        return self._observe(), {"world_seed": world_seed, **self._info(died=False)}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one step; terminates where the player dies."""
        reward, died = self._game.advance(int(action))
        return self._observe(), float(reward), bool(died), False, self._info(died)

    def render(self) -> np.ndarray | None:
        """Return the picture, (height, width, 3) uint8 RGB, or None without a render mode."""
        return self._picture(self._size) if self.render_mode == "rgb_array" else None

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates and programs read, float32; see `described_state`."""
        game = self._game
        player = game.player
        view, found = game.world.seen(player.pos)
        for x, y, thing in found:
            if thing is not player:
                view[x, y] = 1 + len(MATERIALS) + THINGS.index(_name(thing))
        values = {
            "position": player.pos,
            "facing": player.facing,
            "view": view,
            "inventory": list(player.inventory.values()),
            "achievements": list(player.achievements.values()),
            "sleeping": player.sleeping,
            "daylight": game.world.daylight,
        }
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}

    def _picture(self, size: tuple[int, int]) -> np.ndarray:
        return np.ascontiguousarray(self._game.render(size))

    def _observe(self) -> np.ndarray:
        if self._pictures:
            return self._picture(self._standard)
        game, player = self._game, self._game.player
        materials, found = game.world.seen(player.pos)
        tiles = np.zeros((*VIEW, 1 + len(MATERIALS) + len(THINGS)), dtype=np.float32)
        # Materials count from 1, and beyond the edge of the world is -1.
        np.put_along_axis(tiles, np.maximum(materials, 0)[..., None], 1.0, axis=2)
        for x, y, thing in found:
            if thing is not player:
                tiles[x, y, 1 + len(MATERIALS) + THINGS.index(_name(thing))] = 1.0
        dx, dy = player.facing
        rest = [amount / 9 for amount in player.inventory.values()]
        rest += [dx < 0, dx > 0, dy < 0, dy > 0, game.world.daylight, player.sleeping]
        return np.concatenate([tiles.reshape(-1), np.array(rest, dtype=np.float32)])

    def _status(self) -> dict[str, Any]:
        player = self._game.player
        return {
            "achievements": player.achievements.copy(),
            "inventory": player.inventory.copy(),
            "sleeping": player.sleeping,
        }

    def _info(self, died: bool) -> dict[str, Any]:
        now = self._status()
        text = events(self._before, now)
        self._before = now
        if self._text == "state":
            text = f"{text}. {surroundings(self.simulator_state())}" if text else surroundings(self.simulator_state())
        return {
            "achievements": now["achievements"],
            "inventory": now["inventory"],
            "discount": 1.0 - died,
            "player_pos": tuple(int(place) for place in self._game.player.pos),
            "text": text,
        }


def _symbols() -> int:
    return VIEW[0] * VIEW[1] * (1 + len(MATERIALS) + len(THINGS)) + len(ITEMS) + 6


def _name(thing: Any) -> str:
    """Return the entry of `THINGS` that an object of the game is."""
    name = type(thing).__name__.lower()
    return "ripe plant" if name == "plant" and thing.ripe else name
