"""The MuJoCo humanoid, posed by words."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from gymnasium.utils import EzPickle

from vlmrl.envs.cameras import Camera
from vlmrl.envs.mujoco_scene import MujocoScene

CAMERAS = {
    # VLM-RM's camera (Rocamonde et al. 2023; kube job of its repository): it looks along -x, at the robot's front.
    "front": Camera(distance=3.5, lookat=(0.0, 0.0, 1.0), elevation=-10.0, azimuth=180.0),
    "side": Camera(distance=3.5, lookat=(0.0, 0.0, 1.0), elevation=-10.0, azimuth=90.0),
    "diagonal": Camera(distance=3.5, lookat=(0.0, 0.0, 1.0), elevation=-10.0, azimuth=135.0),
}

POINTS = {
    # name: ("geom" or "body", name in the model). A shin's body frame lies at its knee.
    "head": ("geom", "head"),
    "torso": ("body", "torso"),
    "pelvis": ("body", "pelvis"),
    "right_knee": ("body", "right_shin"),
    "left_knee": ("body", "left_shin"),
    "right_foot": ("geom", "right_foot"),
    "left_foot": ("geom", "left_foot"),
    "right_elbow": ("body", "right_lower_arm"),
    "left_elbow": ("body", "left_lower_arm"),
    "right_hand": ("geom", "right_hand"),
    "left_hand": ("geom", "left_hand"),
}


class Humanoid(MujocoScene, HumanoidEnv):
    """A humanoid robot that falls freely and is not reset for it, in episodes of 100 steps (1.5 s).

    | what | value |
    | --- | --- |
    | action | (17,) float32 in [-0.4, 0.4], joint torques in the order of Gymnasium's `Humanoid-v5` |
    | observation | (45,) float64: height (m), orientation (quaternion), 17 joint angles (rad), 23 velocities |
    | reward | that of `Humanoid-v5` |
    | start | standing, with uniform noise of 0.01 on positions and velocities; or fallen, at rest on the floor |
    | termination | never; truncated after 100 steps by its registration |
    | time step | 0.015 s (5 simulation steps of 0.003 s) |

    VLM-RM (Rocamonde et al. 2023, section 4) uses the same robot, episode length and camera with `Humanoid-v4`, whose
    observation of 376 entries adds inertias, centre-of-mass velocities and forces. They follow from the 45 (but for
    contact forces) and slow a small network down; `include_cinert_in_observation=True` and its like bring them back.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: Name of one of the cameras "front", "side" and "diagonal".
        profile: "lean", "default" or "paper", see `MujocoFrames`.
        start: "standing", "fallen" or "mixed", half of the episodes each way.
        **kwargs: Passed on to Gymnasium's `HumanoidEnv`.
    """

    cameras = CAMERAS
    described_notes = ("The robot faces the x axis as it starts, and its left is at positive y.",)

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        profile: str = "lean",
        start: str = "standing",
        **kwargs: Any,
    ):
        self.set_view(width, height, camera, profile)
        self.set_start(start)
        derived = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
        kwargs = {
            "terminate_when_unhealthy": False,
            **{f"include_{name}_in_observation": False for name in derived},
        } | kwargs
        HumanoidEnv.__init__(self, render_mode=render_mode, width=width, height=height, **kwargs)
        EzPickle.__init__(self, render_mode, width, height, camera, profile, start, **kwargs)  # not what the base kept
        self.pictures_only()

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates and programs read, each float32 in the world's frame.

        Returns:
            Positions (3,) in m of the names in `POINTS`; `torso_up` and `torso_forward` (3,), unit axes of the torso;
            `velocity` (3,) of the torso in m/s; `qpos` (24,) in m and rad; `qvel` (23,) in m/s and rad/s.
        """
        data = self.data
        values = {
            name: (data.geom(target) if kind == "geom" else data.body(target)).xpos
            for name, (kind, target) in POINTS.items()
        }
        axes = data.body("torso").xmat.reshape(3, 3)
        values |= {"torso_forward": axes[:, 0], "torso_up": axes[:, 2], "velocity": data.qvel[:3]}
        values |= {"qpos": data.qpos, "qvel": data.qvel}
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}
