"""The MuJoCo half cheetah: a planar robot with a hind and a front leg."""

from __future__ import annotations

from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from vlmrl.envs.runners import Runner, tracking_cameras


class HalfCheetah(Runner, HalfCheetahEnv):
    """A planar robot that runs, and falls freely.

    | what | value |
    | --- | --- |
    | action | (6,) float32 in [-1, 1], torques at hind thigh, shin and foot, then the front ones |
    | observation | (17,) float64: height (m), pitch (rad), 6 joint angles (rad), 9 velocities (m/s, rad/s) |
    | reward | that of `HalfCheetah-v5` |
    | start | standing with noise of 0.1; or fallen, at rest with the trunk over 60 degrees from level |
    | termination | never; truncated after 1000 steps by its registration |
    | time step | 0.05 s (5 simulation steps of 0.01 s) |

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: Name of one of the cameras "side", "front" and "diagonal"; all follow the torso.
        profile: "lean", "default" or "paper", see `MujocoFrames`.
        start: "standing", "fallen" or "mixed", half of the episodes each way.
        **kwargs: Passed on to Gymnasium's `HalfCheetahEnv`.
    """

    cameras = tracking_cameras(distance=4.0, height=0.6)
    FEET = ("bfoot", "ffoot")
