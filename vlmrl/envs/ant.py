"""The MuJoCo ant: a robot with four legs."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.utils import EzPickle

from vlmrl.envs.runners import Runner, tracking_cameras


class Ant(Runner, AntEnv):
    """A robot of a round torso and four legs that may turn over.

    | what | value |
    | --- | --- |
    | action | (8,) float32 in [-1, 1], torques at hip and ankle of each leg in the order of Gymnasium's `Ant-v5` |
    | observation | (27,) float64: height (m), orientation (quaternion), 8 joint angles (rad), 14 velocities |
    | reward | that of `Ant-v5` |
    | start | standing with noise of 0.1; or fallen, at rest on its back or a side |
    | termination | never, unless `terminate_when_unhealthy=True`; truncated after 1000 steps |
    | time step | 0.05 s (5 simulation steps of 0.01 s) |

    `Ant-v5` also observes 78 contact forces; `include_cfrc_ext_in_observation=True` brings them back.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: Name of one of the cameras "side", "front" and "diagonal"; all follow the torso.
        profile: "lean", "default" or "paper", see `MujocoFrames`.
        start: "standing", "fallen" or "mixed", half of the episodes each way.
        **kwargs: Passed on to Gymnasium's `AntEnv`.
    """

    cameras = tracking_cameras(distance=4.5, height=0.5, elevation=-20.0)
    FEET = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "side",
        profile: str = "lean",
        start: str = "standing",
        **kwargs: Any,
    ):
        self.set_view(width, height, camera, profile)
        self.set_start(start)
        kwargs = {"terminate_when_unhealthy": False, "include_cfrc_ext_in_observation": False} | kwargs
        AntEnv.__init__(self, render_mode=render_mode, width=width, height=height, **kwargs)
        EzPickle.__init__(self, render_mode, width, height, camera, profile, start, **kwargs)  # not what the base kept
        self.pictures_only()
        self.open_floor()
