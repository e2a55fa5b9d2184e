"""NetHack, through the NetHack Learning Environment, with all that it says.

Source: Küttler et al.: "The NetHack Learning Environment", NeurIPS 2020 (arXiv 2006.13760), package `nle`.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, ClassVar

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import EzPickle

from vlmrl.envs.terminal import terminal_picture
from vlmrl.errors import UserError, require, unknown

EXTRA = "nethack"
HINT = "It asks for an older Gymnasium, so it wants an environment of its own: make setup-nethack"
KEYS = ("glyphs", "blstats", "message")  # of NLE's observations, what policies see
ORACLE_DEPTHS = range(5, 10)  # levels of the dungeon on one of which the Oracle always is
WINDOW = 21  # tiles a side of the "tiles" view: the map is 21 high


class NetHack(gym.Env, EzPickle):
    """NetHack 3.6.7 as NLE plays it; `level` chooses the task.

    | what | value |
    | --- | --- |
    | action | NLE's actions of the level: 23 for most (moves, kick, eat, search, more); all of the keyboard if asked |
    | observation | dict: "glyphs" (21, 79) int16, what the map shows; "blstats" (27,) int64, the lines at the bottom; |
    | | "message" (256,) uint8, the last line that was said, then 0 |
    | reward | that of the level, with NLE's penalty of 0.01 for steps in which no time passes in most of them |
    | start | a new dungeon, character as in `character` (NLE's default is a human monk) |
    | termination | death, or the level's success; truncated after 5000 steps by its registration |

    `info["text"]` is all that was said at a step, without padding. NLE clicks through what is said in several parts and
    shows the last one; here the parts are joined by two spaces, as NetHack joins short ones. A question that NLE
    declines is among them. The last observation of an episode is that of the game, not of the dialogue in which it is
    quit.

    The same seed gives the same game. NetHack's calendar (new moon, Friday 13th) follows the seed, too.
    `NetHackChallenge-v0` forbids seeds; its episodes cannot be had again.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: "front", the whole terminal, or "tiles", NLE's tiles around the hero (21 by 21).
        level: An id of NLE, such as "NetHackScore-v0" or "NetHackOracle-v0", or "NetHackStaircaseLvl3-v0" or
            "NetHackStaircaseLvl4-v0" (`vlmrl.envs.nethack_levels`).
        all_actions: Whether the agent has the whole keyboard.
        **kwargs: Passed on to NLE, such as `character`, `allow_all_yn_questions` or `penalty_step`.

    Raises:
        UserError: NLE is not installed, or there is no such level or camera, or it does not take the arguments.
    """

    default_level: ClassVar[str] = "NetHackScore-v0"
    prefixes: ClassVar[tuple[str, ...]] = ("NetHack",)
    package: ClassVar[str] = "nle"
    limits: ClassVar[dict[str, int]] = {"max_episode_steps": sys.maxsize}  # the registered one cuts, without quitting
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    cameras = {"front": None, "tiles": None}
    starts = ()

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        level: str | None = None,
        all_actions: bool = False,
        **kwargs: Any,
    ):
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        level = level or self.default_level
        EzPickle.__init__(self, render_mode, width, height, camera, level, all_actions, **kwargs)
        self.render_mode = render_mode
        self._size, self._camera = (width, height), camera
        self._seeded = level != "NetHackChallenge-v0"
        self._open = functools.partial(self._make, level, all_actions, kwargs)
        self._game: Any = self._open()
        self.action_space = self._game.action_space
        spaces = dict(_base().NLE_SPACE_ITEMS)
        self.observation_space = gym.spaces.Dict({name: spaces[name] for name in KEYS})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new game."""
        super().reset(seed=seed, options=options)
        if self._game is None:  # it was closed
            self._game = self._open()
        if self._seeded:
            core, display = (int(number) for number in self.np_random.integers(2**31, size=2))
            _base().NLE.seed(self._game, core, display, reseed=False)
            grid = getattr(self._game, "minigrid_env", None)  # MiniHack takes some of its maps from MiniGrid
            if grid is not None:
                grid.reset(seed=core)
        self._said: list[bytes] = []
        self._quitting = False
        self._picture: np.ndarray | None = None
        self._game.reset()
        self._deepest, self._on_stairs, self._met_oracle, self._solved = 0, False, False, False
        self._keep(self._game.last_observation)
        if not self._said:  # a game whose first words need no key
            self._said.append(self._observation["message"].tobytes().partition(b"\0")[0])
        return self._observation, {"text": self._text()}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act; `info["text"]` is what was said, `info["end_status"]` NLE's word on how things stand."""
        self._said.clear()
        _, reward, done, truncated, info = self._game.step(int(action))
        status = info["end_status"]
        self._solved = status.name == "TASK_SUCCESSFUL"
        if not self._quitting:
            self._keep(self._game.last_observation)
        # At its limit of steps NLE says that the game is done, and calls it truncated one step later.
        aborted = bool(done) and status.name == "ABORTED"
        return (
            self._observation,
            float(reward),
            bool(done) and not aborted,
            bool(truncated) or aborted,
            {**info, "text": self._text()},
        )

    def render(self) -> np.ndarray | None:
        """Return the picture, (height, width, 3) uint8 RGB, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self._picture if self._picture is not None else self._draw()

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates read, float32 scalars; after a death the last ones of the life.

        Returns:
            `depth`, level of the dungeon, from 1; `deepest`, the greatest one of this episode; `turn` of the game;
            `score`, `gold`, `hit_points`, `experience_level`; `x` and `y` on the map; and, as 0 or 1, `stood_on_stairs`
            (a staircase down, in this episode), `met_oracle` (stood next to her) and `solved` (the level's own
            success).
        """
        stats = self._stats
        values = {
            "depth": stats["depth"],
            "deepest": self._deepest,
            "turn": stats["turn"],
            "score": stats["score"],
            "gold": stats["gold"],
            "hit_points": stats["hit_points"],
            "experience_level": stats["experience_level"],
            "x": stats["x"],
            "y": stats["y"],
            "stood_on_stairs": self._on_stairs,
            "met_oracle": self._met_oracle,
            "solved": self._solved,
        }
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}

    def close(self) -> None:
        """End the game; a reset begins another one."""
        if self._game is not None:
            self._game.close()
        self._game = None

    def _make(self, level: str, all_actions: bool, kwargs: dict[str, Any]) -> Any:
        """Make NLE's environment of a level, and listen to it."""
        require(self.package, extra=EXTRA, hint=HINT)
        logging.getLogger("nle.env.base").setLevel(logging.WARNING)  # it says of each game that it records nothing
        from nle import nethack

        own = self._own_levels()
        ids = [*own, *(name for name in gym.registry if name.startswith(self.prefixes))]
        if level not in ids:
            raise unknown("level", level, ids)
        given = {**self.limits, "fix_moon_phase": True, **kwargs}
        drawn = ("tty_chars", "tty_colors") if self.render_mode else ()
        given["observation_keys"] = (*KEYS, *drawn)
        given["render_mode"] = "pixel" if self.render_mode and self._camera == "tiles" else "ansi"
        if all_actions:
            given["actions"] = nethack.ACTIONS
        try:
            # Not by gym.make, which would keep max_episode_steps for itself.
            game: Any = own[level](**given) if level in own else _creator(level)(**gym.spec(level).kwargs | given)
        except TypeError as error:
            raise UserError(f"The level '{level}' does not take {kwargs}: {error}. See env.kwargs.") from error
        keys = game._observation_keys
        self._places = {name: keys.index(name) for name in (*KEYS, "internal")}
        self._listen(game)
        return game

    def _own_levels(self) -> dict[str, Any]:
        from vlmrl.envs.nethack_levels import LEVELS

        return LEVELS

    def _listen(self, game: Any) -> None:
        """Hear each part of what the game says, and keep its last state before it is quit.

        NLE presses keys of its own within a step: it clicks through messages and declines questions, and it quits a
        game whose level is solved. Its arrays are overwritten by each key.
        """
        press, message = game.nethack.step, self._places["message"]

        def step(key: Any) -> Any:
            observation, done = press(key)
            said = observation[message]
            if said[0] and not self._quitting:
                self._said.append(said.tobytes().partition(b"\0")[0])
            return observation, done

        def quit_game(observation: Any, done: bool) -> None:
            self._keep(observation)
            self._picture = self._draw() if self.render_mode else None
            self._quitting = True
            type(game)._quit_game(game, observation, done)

        game.nethack.step = step
        game._quit_game = quit_game

    def _text(self) -> str:
        """Return what was said since the step began; a part that only stood there for another key counts once."""
        parts = [part for i, part in enumerate(self._said) if i == 0 or part != self._said[i - 1]]
        return "  ".join(part.decode("latin-1").strip() for part in parts)

    def _keep(self, observation: Any) -> None:
        """Copy what the agent sees, and take note of what has been reached."""
        self._observation = {name: observation[self._places[name]].copy() for name in KEYS}
        stats = self._observation["blstats"]
        columns = _columns()
        if stats[columns["max_hit_points"]] == 0:  # the game is over, and its statistics are gone
            return
        self._stats = {name: int(stats[column]) for name, column in columns.items()}
        depth = self._stats["depth"]
        self._deepest = max(self._deepest, depth)
        self._on_stairs |= bool(observation[self._places["internal"]][4])  # NLE's flag for a staircase down
        if depth in ORACLE_DEPTHS:
            x, y = self._stats["x"], self._stats["y"]
            around = self._observation["glyphs"][max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            self._met_oracle |= bool((around == _oracle()).any())

    def _draw(self) -> np.ndarray:
        observation = self._game.last_observation
        if self._camera == "front":
            keys = self._game._observation_keys
            characters, colours = (observation[keys.index(name)] for name in ("tty_chars", "tty_colors"))
            picture = terminal_picture(characters, colours)
        else:
            tiles = self._game.render()  # 16 pixels each
            left = min(max(self._stats["x"] - WINDOW // 2, 0), tiles.shape[1] // 16 - WINDOW)
            picture = np.ascontiguousarray(tiles[:, 16 * left : 16 * (left + WINDOW)])
        return cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)


def _creator(level: str) -> Any:
    entry: Any = gym.spec(level).entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def _base() -> Any:
    from nle.env import base

    return base


@functools.cache
def _columns() -> dict[str, int]:
    """Return where in `blstats` the quantities of `simulator_state` are."""
    from nle import nethack

    return {
        "x": nethack.NLE_BL_X,
        "y": nethack.NLE_BL_Y,
        "score": nethack.NLE_BL_SCORE,
        "hit_points": nethack.NLE_BL_HP,
        "max_hit_points": nethack.NLE_BL_HPMAX,
        "depth": nethack.NLE_BL_DEPTH,
        "gold": nethack.NLE_BL_GOLD,
        "experience_level": nethack.NLE_BL_XP,
        "turn": nethack.NLE_BL_TIME,
    }


@functools.cache
def _oracle() -> int:
    """Return the glyph of the Oracle."""
    from nle import nethack

    monsters = range(nethack.GLYPH_MON_OFF, nethack.GLYPH_PET_OFF)
    return next(glyph for glyph in monsters if nethack.permonst(nethack.glyph_to_mon(glyph)).mname == "Oracle")
