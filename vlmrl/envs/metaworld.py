"""Meta-World's Sawyer arm at a table: a drawer to open, a ball to push into a goal, a cube to sweep into a hole.

Source: Yu et al.: "Meta-World: A Benchmark and Evaluation for Multi-Task and Meta Reinforcement Learning", CoRL 2019
(arXiv 1910.10897), package `metaworld`, whose third versions these are. The tasks' cameras are those of RL-VLM-F (Wang
et al. 2024, arXiv 2402.03681), as its scene files place them.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.cameras import Camera
from vlmrl.envs.mujoco_scene import OLDER_MUJOCO, MujocoScene
from vlmrl.errors import require

ROBOT = "base"  # the body that the whole arm hangs on


def looking_from(
    position: tuple[float, float, float],
    elevation: float,
    azimuth: float,
    fovy: float = 45.0,
    mirrored: bool = False,
    without: str = "",
) -> Camera:
    """Build a camera from where it stands.

    Args:
        position: (x, y, z) in m.
        elevation: See `Camera`, as is the rest.
        azimuth: See `Camera`.
        fovy: See `Camera`.
        mirrored: See `Camera`.
        without: See `Camera`.
    """
    up, around = np.deg2rad(elevation), np.deg2rad(azimuth)
    forward = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    x, y, z = (float(value) for value in np.array(position) + forward)
    return Camera(1.0, (x, y, z), elevation, azimuth, fovy=fovy, mirrored=mirrored, without=without)


def paper_camera(
    position: tuple[float, float, float], elevation: float, azimuth: float, cropped: bool = False
) -> Camera:
    """Build a camera of RL-VLM-F: without the arm, mirrored, and cropped where the paper does that.

    The arm is wholly transparent in its scene files. Its cameras stand on their heads and its pictures are turned round
    by their rows alone, which leaves them mirrored. Of 480 x 480 pixels it keeps the rows and columns 100 to 400 for
    drawer and cube; the same is seen by a camera that turns to the middle of the crop, 10 pixels to the right of
    the picture's middle and 10 below it, with the field of view of 300 pixels.

    Args:
        position: (x, y, z) in m.
        elevation: Before the crop, in degrees, see `Camera`.
        azimuth: Before the crop, in degrees.
        cropped: Whether the paper crops the picture.
    """
    fovy = 45.0
    if cropped:
        focal = 240 / np.tan(np.deg2rad(fovy / 2))  # pixels
        aside = np.rad2deg(np.arctan(10 / focal))
        # To the right in the mirrored picture is to the left in the world: around the vertical, anticlockwise.
        azimuth += float(aside / np.cos(np.deg2rad(elevation)))
        elevation -= float(aside)
        fovy = float(2 * np.rad2deg(np.arctan(150 / focal)))
    return looking_from(position, elevation, azimuth, fovy, mirrored=True, without=ROBOT)


# Two of Meta-World's own, with the arm: its "corner2", moved nearer as is usual, and its "topview", tilted a little.
OVERVIEW = {
    "corner": looking_from((0.75, 0.075, 0.7), elevation=-28.9, azimuth=148.4, fovy=60.0),
    "top": looking_from((0.0, 0.45, 1.3), elevation=-75.0, azimuth=90.0),
}


class Sawyer(MujocoScene, gym.Env, EzPickle):
    """A Sawyer arm at a table, moved by its gripper; see the classes below for what lies there.

    | what | value |
    | --- | --- |
    | action | (4,) float32 in [-1, 1]: where the gripper goes (x, y, z; 1 is 0.01 m a step), and how hard it closes |
    | observation | (39,) float64: hand (m), opening (0 to 1), object (m, quaternion); a step before; target (m) |
    | reward | that of Meta-World, 0 to 10 a step |
    | start | gripper above the table, object and target anywhere within Meta-World's ranges |
    | termination | never; truncated after 500 steps by its registration |
    | time step | 0.0125 s (5 simulation steps of 0.0025 s) |

    The marks that Meta-World draws at targets are left out: they are no part of the world, and tell the answer.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: "near" (RL-VLM-F's, without the arm), "corner" or "top".
        profile: "lean" or "default", see `MujocoFrames`.

    Raises:
        UserError: Meta-World is not installed, or there is no such camera or profile.
    """

    NAME: ClassVar[str]  # of the environment in Meta-World
    OBJECT: ClassVar[str]  # body that is to be moved
    HANDLE: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)  # m from its origin to the point that counts
    profiles = ("lean", "default")
    starts = ()
    described_dt = 0.0125
    described_notes = ("The arm stands at the origin; y points away from it over the table, z points up.",)
    described_state = {
        "gripper": ("position of the point between the fingers, m", (3,)),
        "opening": ("how far the gripper is open, 0 to 1", ()),
        "object": ("position of what is to be moved, m", (3,)),
        "target": ("where it is to be moved to, m", (3,)),
    }
    described_action = (
        "way of the gripper along x, 1 is 0.01 m, -1 to 1",
        "way of the gripper along y, 1 is 0.01 m, -1 to 1",
        "way of the gripper along z, 1 is 0.01 m, -1 to 1",
        "force of the fingers, -1 opens, 1 closes",
    )

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "near",
        profile: str = "lean",
    ):
        EzPickle.__init__(self, render_mode, width, height, camera, profile)
        self.set_view(width, height, camera, profile)
        self._sawyer = require("metaworld", extra="metaworld", hint=OLDER_MUJOCO).ALL_V3_ENVIRONMENTS[self.NAME]()
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # type: ignore[misc]
        self.pictures_only()
        # As Meta-World's own wrappers set it: objects are put anew each episode, by the generator of this environment,
        # and the target is seen. Its limit of steps is an error; the registered one truncates.
        self._sawyer._freeze_rand_vec = False
        self._sawyer.seeded_rand_vec = True
        self._sawyer._set_task_called = True
        self._sawyer._partially_observable = False
        self._sawyer.__dict__.pop("sawyer_observation_space", None)  # was computed for the hidden target
        self._sawyer.max_path_length = sys.maxsize
        self.model, self.data = self._sawyer.model, self._sawyer.data
        self.model.site_rgba[:, 3] = 0.0
        self.action_space = self._sawyer.action_space
        self.observation_space = self._sawyer.sawyer_observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode."""
        import mujoco

        super().reset(seed=seed, options=options)
        self._sawyer.np_random = self.np_random
        observation, info = self._sawyer.reset()
        # Meta-World moves things after its last simulation step; what is seen of them would be where they were before.
        mujoco.mj_forward(self.model, self.data)
        observation[4:7] = observation[22:25] = self._object()
        return self._within(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one step; `info` has Meta-World's own figures, "success" among them."""
        observation, reward, _, _, info = self._sawyer.step(action)
        return self._within(observation), float(reward), False, False, info

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates and programs read, each float32 in the world's frame.

        Returns:
            Positions (3,) in m: `gripper`, the point between the fingers; `object`; `target`, where that is to be. And
            `opening` of the gripper, 0 to 1.
        """
        fingers = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
        values = {
            "gripper": self._sawyer.tcp_center,
            "opening": np.clip(np.linalg.norm(fingers) / 0.1, 0.0, 1.0),  # 0.1 m apart is wide open
            "object": self._object(),
            "target": self.model.site("goal").pos,
        }
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}

    def draw_state(self, rng: np.random.Generator) -> None:
        """Put the object within 0.3 m of its target, anywhere on the arm's side, for audits; call after a reset."""
        import mujoco

        start = self.model.jnt_qposadr[self.model.body(self.OBJECT).jntadr[0]]
        distance, way = rng.uniform(0.0, 0.3), rng.uniform(-np.pi, 0.0)
        target = self.model.site("goal").pos[:2]
        self.data.qpos[start : start + 2] = target + distance * np.array([np.cos(way), np.sin(way)])
        mujoco.mj_forward(self.model, self.data)

    def _object(self) -> np.ndarray:
        return self.data.body(self.OBJECT).xpos + np.array(self.HANDLE)

    def _within(self, observation: np.ndarray) -> np.ndarray:
        return np.clip(observation, self.observation_space.low, self.observation_space.high)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Free the renderer and the simulation."""
        super().close()
        self._sawyer.close()


class DrawerOpen(Sawyer):
    """See `Sawyer`. A drawer with a handle, closed; wide open it is at the target, 0.16 m out."""

    NAME, OBJECT, HANDLE = "drawer-open-v3", "drawer_link", (0.0, -0.16, 0.0)
    cameras = {"near": paper_camera((-0.6, 0.2, 0.35), elevation=-15.8, azimuth=45.0, cropped=True), **OVERVIEW}

    def draw_state(self, rng: np.random.Generator) -> None:
        """Pull the drawer out by 0 to 0.18 m, for audits: a pull takes it a little past its stop at 0.16 m."""
        import mujoco

        self.data.joint("goal_slidey").qpos[:] = -rng.uniform(0.0, 0.18)
        mujoco.mj_forward(self.model, self.data)


class Soccer(Sawyer):
    """See `Sawyer`. A ball, and a goal behind it. RL-VLM-F's camera leans 9 degrees to a side, this one is upright."""

    NAME, OBJECT = "soccer-v3", "soccer_ball"
    cameras = {"near": paper_camera((0.2, 0.6, 0.5), elevation=-57.8, azimuth=143.4), **OVERVIEW}


class SweepInto(Sawyer):
    """See `Sawyer`. A cube, and a square hole in the table.

    The cube is painted green as in RL-VLM-F, whose goal calls it so; Meta-World's is wood on wood.
    """

    NAME, OBJECT = "sweep-into-v3", "obj"
    cameras = {"near": paper_camera((0.0, 1.1, 0.75), elevation=-61.4, azimuth=-90.0, cropped=True), **OVERVIEW}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        cube = self.model.geom("objGeom").id
        self.model.geom_matid[cube] = -1
        self.model.geom_rgba[cube] = (0.1, 0.7, 0.2, 1.0)
