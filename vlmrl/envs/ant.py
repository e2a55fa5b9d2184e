"""The MuJoCo ant: a robot with four legs."""

from __future__ import annotations

from gymnasium.envs.mujoco.ant_v5 import AntEnv

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
    DEFAULTS = {"terminate_when_unhealthy": False, "include_cfrc_ext_in_observation": False}
