"""The grid worlds of MiniGrid and BabyAI, which say in words what happens.

Sources: Chevalier-Boisvert et al.: "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning Environments
for Goal-Oriented Tasks", NeurIPS 2023 (arXiv 2306.13831), package `minigrid`; Chevalier-Boisvert et al.: "BabyAI: A
Platform to Study the Sample Efficiency of Grounded Language Learning", ICLR 2019 (arXiv 1810.08272).
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any, ClassVar

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.grid_captions import GridCaptions
from vlmrl.errors import UserError, require, unknown

# All words of the missions of MiniGrid 3.2 and of BabyAI's grammar. A word's number is its place here plus 2: 0 is no
# word, 1 a word that is not in the list.
_VOCABULARY = """
a after and at avoid ball behind blue box door end fetch find from front get go goal green grey hallway in key lava left
matching must near next object of on open opening pick purple put reach red right room rooms square the then to traverse
unlock up use yellow you your
"""
WORDS = _VOCABULARY.split()
WORD_NUMBERS = {word: number for number, word in enumerate(WORDS, start=2)}
# BabyAI's longest mission: four times "put the grey ball in front of you next to the grey ball in front of you" (15
# words), joined by two times "and" and one "after you".
MISSION_WORDS = 64
TILE = 32  # pixels of a cell as MiniGrid draws it


class MiniGrid(gym.Env, EzPickle):
    """A grid world of MiniGrid, chosen by `level`.

    | what | value |
    | --- | --- |
    | action | 0 turn left, 1 turn right, 2 forward, 3 pick up, 4 drop, 5 toggle, 6 done (the level may have fewer) |
    | observation | dict: "image" (7, 7, 3) uint8, type, colour and state of the cells ahead; "direction" 0 to 3 |
    | | (right, down, left, up); "mission" (64,) uint8, numbers of its words in `WORDS` plus 2, then 0 |
    | reward | that of the level: 1 - 0.9 * steps / limit when the mission is done, else 0 |
    | start | as the level lays it out |
    | termination | mission done or failed; truncated after the level's own number of steps |

    `info["text"]` says what happened at the step (`GridCaptions`), `info["mission"]` is the mission in words. Bounds of
    the picture are those of its numbers, not 0 to 255: these are kinds of things, no colours.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: "front", the whole grid from above with what the agent sees in light, or "view", what it sees.
        level: Any id of MiniGrid or BabyAI, such as "MiniGrid-KeyCorridorS3R2-v0".
        mission_in_text: Whether each text begins with the mission, for levels whose missions differ.
        **kwargs: Passed on to the level, such as `max_steps` or `agent_view_size`.

    Raises:
        UserError: minigrid is not installed, or there is no such level or camera.
    """

    default_level: ClassVar[str] = "MiniGrid-DoorKey-5x5-v0"
    mission_in_text: ClassVar[bool] = False
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    cameras = {"front": None, "view": None}
    starts = ()

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        level: str | None = None,
        mission_in_text: bool | None = None,
        **kwargs: Any,
    ):
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        level = level or self.default_level
        EzPickle.__init__(self, render_mode, width, height, camera, level, mission_in_text, **kwargs)
        self._level = _make(level, kwargs)
        self.render_mode = render_mode
        self._size, self._camera = (width, height), camera
        self._prefix = self.mission_in_text if mission_in_text is None else mission_in_text
        self._captions = GridCaptions()
        self._opened: set[int] = set()  # doors, by identity, that were opened in this episode
        self._done = False
        self.action_space = self._level.action_space
        side = self._level.observation_space["image"].shape[0]
        # Highest numbers of a thing, a colour and a state of a door; see minigrid.core.constants.
        highest = np.broadcast_to(np.array([10, 5, 3], dtype=np.uint8), (side, side, 3))
        self.observation_space = gym.spaces.Dict(
            {
                "direction": gym.spaces.Discrete(4),
                "image": gym.spaces.Box(np.zeros_like(highest), highest, dtype=np.uint8),
                "mission": gym.spaces.Box(0, len(WORDS) + 1, (MISSION_WORDS,), np.uint8),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # BabyAI prints each layout that it throws away
                observation, info = self._level.reset(seed=seed)
        except FileNotFoundError as error:  # the wheel of minigrid 3.2 lacks the patterns of its WFC levels
            raise UserError(f"This level of MiniGrid cannot be made: {error}. Choose another one.") from error
        self._opened.clear()
        self._done = False
        self._words = mission_numbers(observation["mission"])
        text = self._captions.start(self._level, observation["image"])
        return self._seen(observation), {**info, **self._told(text)}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act; `info` has `text` and `mission`."""
        self._captions.before(self._level)
        observation, reward, terminated, truncated, info = self._level.step(int(action))
        self._done = bool(terminated and reward > 0)  # as every level rewards its mission
        front = self._level.grid.get(*self._level.front_pos)
        if int(action) == self._level.actions.toggle and front is not None and front.type == "door" and front.is_open:
            self._opened.add(id(front))
        text = self._captions.after(self._level, observation["image"], int(action))
        return self._seen(observation), float(reward), terminated, truncated, {**info, **self._told(text)}

    def render(self) -> np.ndarray | None:
        """Return the picture, (height, width, 3) uint8 RGB, or None without a render mode."""
        if self.render_mode is None:
            return None
        frame = self._level.get_frame(tile_size=TILE, agent_pov=self._camera == "view")
        return cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates read, float32 scalars but for `position`.

        Returns:
            `position` (2,), column and row of the agent, in cells; `direction`, 0 to 3; `goal_distance`, steps to the
            nearest goal square without regard to walls, in cells, -1 without one; `doors`, their number, and
            `doors_opened`, how many of them the agent has opened in this episode; `carrying`, 1 with something in hand;
            `mission_done`, 1 at the step that fulfils the mission.
        """
        grid, (x, y) = self._level.grid, self._level.agent_pos
        cells = [(i % grid.width, i // grid.width, cell) for i, cell in enumerate(grid.grid) if cell is not None]
        goals = [abs(i - x) + abs(j - y) for i, j, cell in cells if cell.type == "goal"]
        values = {
            "position": (x, y),
            "direction": self._level.agent_dir,
            "goal_distance": min(goals, default=-1),
            "doors": sum(cell.type == "door" for _, _, cell in cells),
            "doors_opened": len(self._opened),
            "carrying": self._level.carrying is not None,
            "mission_done": self._done,
        }
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}

    def draw_state(self, rng: np.random.Generator) -> None:
        """Put the agent anywhere, on a goal in 4 of 10 cases, and open half of the doors, for audits; after a reset."""
        grid = self._level.grid
        places = [(i % grid.width, i // grid.width) for i in range(len(grid.grid))]
        goals = [place for place in places if (cell := grid.get(*place)) is not None and cell.type == "goal"]
        free = [place for place in places if grid.get(*place) is None]
        chosen = goals if goals and rng.random() < 0.4 else free
        self._level.agent_pos = chosen[rng.integers(len(chosen))]
        self._level.agent_dir = int(rng.integers(4))
        self._opened.clear()
        for door in (cell for cell in grid.grid if cell is not None and cell.type == "door"):
            door.is_open = bool(rng.random() < 0.5)
            if door.is_open:
                door.is_locked = False
                self._opened.add(id(door))
        self._done = chosen is goals

    def close(self) -> None:
        """Close the level."""
        self._level.close()

    def _seen(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {
            "direction": np.int64(observation["direction"]),
            "image": observation["image"],
            "mission": self._words.copy(),
        }

    def _told(self, text: str) -> dict[str, str]:
        mission = self._level.mission
        return {"text": f"mission: {mission}; {text}" if text and self._prefix else text, "mission": mission}


class BabyAI(MiniGrid):
    """A level of BabyAI: see `MiniGrid`. Missions differ from episode to episode, so each text begins with its own."""

    default_level = "BabyAI-GoToLocal-v0"
    mission_in_text = True


def mission_numbers(mission: str) -> np.ndarray:
    """Return the numbers of a mission's words, (64,) uint8; what is beyond 64 words is left out."""
    numbers = np.zeros(MISSION_WORDS, dtype=np.uint8)
    words = [WORD_NUMBERS.get(word, 1) for word in re.findall(r"[a-z]+", mission.lower())][:MISSION_WORDS]
    numbers[: len(words)] = words
    return numbers


def _make(level: str, kwargs: dict[str, Any]) -> Any:
    """Make a level.

    Raises:
        UserError: minigrid is not installed, or there is no such level, or it does not take the arguments.
    """
    require("minigrid", extra="minigrid")  # registers its ids
    ids = [name for name in gym.registry if name.startswith(("MiniGrid-", "BabyAI-"))]
    if level not in ids:
        raise unknown("level", level, ids)
    try:
        return gym.make(level, disable_env_checker=True, **kwargs).unwrapped
    except (TypeError, AssertionError) as error:
        raise UserError(f"The level '{level}' does not take {kwargs}: {error}. See env.kwargs.") from error
