"""The mountain car of classic control with continuous pushes, on a painted mountain or on Gymnasium's bare line."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.utils import EzPickle

from vlmrl.errors import unknown

WIDTH, HEIGHT = 600, 400  # pixels of the scene, as Gymnasium's
SCALE = WIDTH / 1.8  # pixels a metre: the track goes from -1.2 m to 0.6 m


class MountainCar(Continuous_MountainCarEnv, EzPickle):
    """A car too weak for its mountain, in episodes of 200 steps, with nothing that ends one early.

    | what | value |
    | --- | --- |
    | action | (1,) float32 in [-1, 1], push along the track |
    | observation | (2,) float32: position (m, -1.2 to 0.6), velocity (m a step, -0.07 to 0.07) |
    | reward | that of `MountainCarContinuous-v0`: 100 a step at the flag, less 0.1 times the push squared |
    | start | at rest in the valley, uniformly between -0.6 and -0.4 m |
    | termination | never, unless `terminate_at_goal=True`; truncated after 200 steps by its registration |

    VLM-RM (Rocamonde et al. 2023, section 4.2) could not train on Gymnasium's drawing and solved the same task on a
    picture of a mountain. Its environment remembered a success for good; here whether the car is at the flag (0.45 m)
    is read from where it is.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels; the scene of 600 by 400 is squeezed into it, as CLIP's preprocessing does.
        camera: "front", the only one.
        textured: Draw mountain, sky, a red car and a yellow flag; otherwise what Gymnasium draws.
        terminate_at_goal: End the episode at the flag, as Gymnasium does.
        **kwargs: Passed on to Gymnasium's `Continuous_MountainCarEnv`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    cameras = {"front": None}
    # For reward programs, see vlmrl.envs.abstraction.
    described_state = {
        "x": ("m, position along the track, -1.2 to 0.6", ()),
        "speed": ("m a step, -0.07 to 0.07", ()),
    }
    described_action = ("push along the track, -1 to 1",)
    described_notes = (
        "A car in a valley whose height at x is 0.45 sin(3 x) + 0.55 m: the lowest point is at x = -0.52, the peak on "
        "the right at x = 0.52, the yellow flag at x = 0.45.",
        "Its engine is too weak to drive up the slope from rest: it has to gain speed by going to and fro.",
        "An episode starts at rest in the valley.",
    )

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        textured: bool = True,
        terminate_at_goal: bool = False,
        **kwargs: Any,
    ):
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        EzPickle.__init__(self, render_mode, width, height, camera, textured, terminate_at_goal, **kwargs)
        super().__init__(render_mode=render_mode, **kwargs)
        self._size = (width, height)
        self._textured = textured
        self._terminate_at_goal = terminate_at_goal
        self._scene: np.ndarray | None = None

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one step; terminates at the flag only if asked to."""
        observation, reward, at_goal, truncated, info = super().step(action)
        return observation, float(reward), at_goal and self._terminate_at_goal, truncated, info

    def render(self) -> np.ndarray | None:
        """Return the picture, (height, width, 3) uint8 RGB, or None without a render mode."""
        if self.render_mode is None:
            return None
        frame = self._paint() if self._textured else super().render()
        return cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates read: `x` (m) and `speed` (m a step), float32 scalars."""
        x, speed = np.asarray(self.state, dtype=np.float32)
        return {"x": x, "speed": speed}

    def _paint(self) -> np.ndarray:
        if self._scene is None:
            self._scene = _mountain(self._height, self.goal_position)
        picture = self._scene.copy()
        x = float(self.state[0])
        slope = np.arctan(0.45 * 3 * np.cos(3 * x))  # of the height 0.45 sin(3 x) + 0.55
        _car(picture, _pixel(x, float(self._height(x))), slope)
        return picture


def _pixel(x: float, height: float) -> np.ndarray:
    """Place in the picture of a point of the scene, (column, row)."""
    return np.array([(x + 1.2) * SCALE, HEIGHT - height * SCALE])


def _mountain(height_of: Any, goal: float) -> np.ndarray:
    """Paint all but the car: (400, 600, 3) uint8 RGB."""
    rng = np.random.default_rng(11)
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    depth = row - (HEIGHT - height_of((column + 0.5) / SCALE - 1.2) * SCALE)  # pixels below the surface
    share = (row / HEIGHT)[..., None]
    picture = (1 - share) * np.array([92.0, 154.0, 222.0]) + share * np.array([205.0, 228.0, 245.0])
    clouds = _noise(rng, 90, 30)
    cover = np.clip((clouds - 0.55) * 2.4, 0, 0.85)[..., None]
    picture = (1 - cover) * picture + cover * 250.0
    far = row - (215 + 60 * np.sin(column / 74.0 + 1.0) + 26 * np.sin(column / 29.0))  # blue hills behind
    picture[far > 0] = np.array([138.0, 165.0, 190.0])
    rock = _noise(rng, 26, 18) * 0.6 + _noise(rng, 5, 4) * 0.4
    ground = np.array([112.0, 92.0, 72.0]) * (0.65 + 0.7 * rock[..., None])
    grass = np.array([86.0, 138.0, 58.0]) * (0.75 + 0.5 * rock[..., None])
    turf = 10 + 10 * _noise(rng, 12, 12)
    picture = np.where((depth > 0)[..., None], np.where((depth < turf)[..., None], grass, ground), picture)
    snow = (depth > 0) & (depth < 16) & (row < 85)
    picture[snow] = np.array([238.0, 242.0, 246.0])
    canvas = picture.clip(0, 255).astype(np.uint8)
    foot = _pixel(goal, float(height_of(goal)))
    _fill(canvas, foot + [[-2, 4], [-2, -62], [2, -62], [2, 4]], (90, 70, 50))
    _fill(canvas, foot + [[2, -62], [2, -36], [42, -49]], (250, 214, 20))
    return canvas


def _car(picture: np.ndarray, foot: np.ndarray, slope: float) -> None:
    """Draw a red car that stands at a point of the picture (column, row) on a slope in rad, into the picture."""
    turn = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])  # of rows that count downwards

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        return foot + np.array(points) @ turn

    _fill(
        picture,
        place([(-27, -8), (-27, -20), (-15, -22), (-9, -33), (9, -33), (16, -22), (27, -19), (27, -8)]),
        (204, 26, 26),
    )
    _fill(picture, place([(-11, -22), (-7, -30), (8, -30), (12, -22)]), (190, 222, 240))
    for wheel in ((-15.0, -7.0), (15.0, -7.0)):
        centre = tuple(int(round(value * 16)) for value in place([wheel])[0])
        cv2.circle(picture, centre, 8 * 16, (30, 30, 34), -1, cv2.LINE_AA, 4)
        cv2.circle(picture, centre, 3 * 16, (190, 190, 194), -1, cv2.LINE_AA, 4)


def _fill(picture: np.ndarray, corners: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.fillPoly(picture, [np.round(np.asarray(corners) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth noise in 0 to 1 over the picture, (400, 600), in patches of about width by height pixels."""
    coarse = rng.random((HEIGHT // height + 3, WIDTH // width + 3)).astype(np.float32)
    smooth = cv2.resize(coarse, None, fx=width, fy=height, interpolation=cv2.INTER_CUBIC)
    return smooth[:HEIGHT, :WIDTH].clip(0, 1)
