"""The MuJoCo walker: a planar robot with two legs."""

from __future__ import annotations

from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from vlmrl.envs.runners import Runner, tracking_cameras


class Walker2d(Runner, Walker2dEnv):
    """A planar robot of a torso and two legs that may fall and get up again.

    | what | value |
    | --- | --- |
    | action | (6,) float32 in [-1, 1], torques at right hip, knee and ankle, then the left ones |
    | observation | (17,) float64: height (m), pitch (rad), 6 joint angles (rad), 9 velocities cut off at 10 |
    | reward | that of `Walker2d-v5` |
    | start | standing with noise of 0.005; or fallen, at rest on the floor |
    | termination | never, unless `terminate_when_unhealthy=True`; truncated after 1000 steps |
    | time step | 0.008 s (4 simulation steps of 0.002 s) |

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: Name of one of the cameras "side", "front" and "diagonal"; all follow the torso.
        profile: "lean", "default" or "paper", see `MujocoFrames`.
        start: "standing", "fallen" or "mixed", half of the episodes each way.
        **kwargs: Passed on to Gymnasium's `Walker2dEnv`.
    """

    cameras = tracking_cameras(distance=3.5, height=0.9)
    FEET = ("foot_geom", "foot_left_geom")
    DEFAULTS = {"terminate_when_unhealthy": False}
