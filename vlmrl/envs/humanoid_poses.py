"""Poses of the humanoid, one and more for each task, and a controller that holds them.

They are what the tasks' predicates are checked against: each pose lies within the joints' limits and its own torques
hold it for a while. Rewards and training never see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vlmrl.envs.mujoco_scene import lowest_point

if TYPE_CHECKING:
    from vlmrl.envs.humanoid import Humanoid

STIFFNESS = 0.12  # of a joint's greatest torque, a degree
DAMPING = 0.006  # of a joint's greatest torque, a degree per second


@dataclass(frozen=True)
class Pose:
    """How to put the humanoid.

    Attributes:
        joints: Angles in degrees. "knee" names both sides, "right_knee" one of them; what is not named is straight.
        Signs are
            those of the model: a negative hip_y lifts the thigh forward, a negative knee bends it. Shoulders are named
            for the right arm; the left arm mirrors it unless it is named itself.
        pitch: Lean of the trunk in degrees, positive towards its front.
        roll: Lean of the trunk in degrees, positive towards its right.
    """

    joints: Mapping[str, float] = field(default_factory=dict)
    pitch: float = 0.0
    roll: float = 0.0


RAISED = {"shoulder1": -80, "shoulder2": 20, "elbow": -85}
ON_HIPS = {"shoulder1": 49, "shoulder2": -66, "elbow": -33}
CROSSED = {"right_shoulder1": 60, "right_shoulder2": 34, "right_elbow": -68,
           "left_shoulder1": -60, "left_shoulder2": -23, "left_elbow": -90}  # fmt: skip
FOLDED = {"abdomen_y": -70, "hip_x": 2, "hip_z": -60, "hip_y": -71, "knee": -133, "shoulder2": 7, "elbow": -52}

POSITIVE: dict[str, dict[str, Pose]] = {
    "kneeling": {
        "tall": Pose({"knee": -92}),
        "on the heels": Pose({"hip_y": -65, "knee": -155}, pitch=4),
    },
    "lotus": {"legs folded": Pose(FOLDED, pitch=-10)},
    "standing": {
        "straight": Pose(pitch=-2),
        "knees a little bent": Pose({"hip_y": -12, "knee": -24}, pitch=-2),
    },
    "arms_raised": {"straight": Pose(RAISED, pitch=-2)},
    "splits": {"trunk upright": Pose({"hip_y": -80, "knee": -3, "hip_z": -60, "hip_x": -25})},
    "hands_on_hips": {"straight": Pose(ON_HIPS, pitch=0.5)},
    "arms_crossed": {"straight": Pose(CROSSED, pitch=-2.5)},
    "one_leg": {
        "left knee lifted": Pose({"left_hip_y": -60, "left_knee": -85}, pitch=-5, roll=6.5),
        "right leg lifted": Pose({"right_hip_y": -60, "right_knee": -40}, pitch=-6.5, roll=-6.5),
    },
}

# Poses near those of the tasks, each with the tasks that it fulfils all the same.
NEGATIVE: dict[str, tuple[Pose, frozenset[str]]] = {
    "squat": (Pose({"hip_y": -90, "knee": -120}, pitch=20), frozenset()),
    "sitting, legs ahead": (Pose({"hip_y": -90}), frozenset()),
    "sitting, legs a little apart": (Pose({"hip_y": -88, "hip_z": -20}), frozenset()),
    "sitting, knees up": (Pose({"hip_y": -105, "knee": -110}, pitch=-10), frozenset()),
    "lying on the back": (Pose(pitch=-90), frozenset()),
    "lying on the front": (Pose(pitch=90), frozenset()),
    "lying, arms raised": (Pose(RAISED, pitch=-90), frozenset()),
    "kneeling, bent to the floor": (Pose({"hip_y": -60, "knee": -110}, pitch=75), frozenset()),
    "kneeling, hands on hips": (Pose({"knee": -92, **ON_HIPS}), frozenset({"kneeling"})),
    "one knee down": (Pose({"right_knee": -95, "left_hip_y": -90, "left_knee": -90}), frozenset()),
    "leg kicked high": (Pose({"right_hip_y": -100, "left_hip_y": 20}), frozenset({"one_leg"})),
    "arms held out": (Pose({"shoulder1": -20, "shoulder2": 40, "elbow": -60}), frozenset({"standing"})),
    "one arm raised": (Pose({f"right_{joint}": angle for joint, angle in RAISED.items()}
                            | {f"left_{joint}": 0 for joint in RAISED}), frozenset({"standing"})),
    "foot just off the floor": (Pose({"left_hip_y": -15, "left_knee": -30}), frozenset({"standing"})),
}  # fmt: skip


def joint_angles(env: Humanoid, pose: Pose) -> np.ndarray:
    """Return a pose's joint angles in the order of `qpos[7:]`, (17,) float64 in rad.

    Raises:
        KeyError: The pose names a joint that the humanoid lacks.
    """
    names = [env.model.joint(i).name for i in range(1, env.model.njnt)]
    angles = dict.fromkeys(names, 0.0)
    angles |= dict.fromkeys(("right_knee", "left_knee"), -2.0)  # its limit: a knee cannot be quite straight
    mirrored = {"shoulder1": -1, "shoulder2": -1}
    both = {name: angle for name, angle in pose.joints.items() if f"left_{name}" in angles}
    for name, angle in both.items():
        angles[f"right_{name}"], angles[f"left_{name}"] = angle, mirrored.get(name, 1) * angle
    for name in pose.joints.keys() - both.keys():
        if name not in angles:
            raise KeyError(name)
        angles[name] = pose.joints[name]
    return np.deg2rad([angles[name] for name in names])


def put(env: Humanoid, pose: Pose) -> None:
    """Put a humanoid at rest into a pose, its lowest point on the floor."""
    import mujoco

    mujoco.mj_resetData(env.model, env.data)
    pitch, roll = np.deg2rad([pose.pitch, pose.roll]) / 2
    first, second = np.array([np.cos(pitch), 0, np.sin(pitch), 0]), np.array([np.cos(roll), np.sin(roll), 0, 0])
    env.data.qpos[:3] = 0, 0, 2
    mujoco.mju_mulQuat(env.data.qpos[3:7], first, second)
    env.data.qpos[7:] = joint_angles(env, pose)
    mujoco.mj_forward(env.model, env.data)
    env.data.qpos[2] -= lowest_point(env.model, env.data)
    mujoco.mj_forward(env.model, env.data)


def hold(env: Humanoid, target: np.ndarray, steps: int, look: Callable[[], None] | None = None) -> None:
    """Simulate with springs and dampers at the joints, within the torques that an action may ask for.

    They act in each step of the simulation (0.003 s), since light limbs shake if stiff springs act in each step of the
    environment.

    Args:
        env: A humanoid; it goes on from where it is.
        target: (17,) joint angles in rad, in the order of `qpos[7:]`.
        steps: Steps of the environment, 0.015 s each.
        look: Called after each step.
    """
    import mujoco

    data, high = env.data, env.model.actuator_ctrlrange[:, 1]
    joints = env.model.actuator_trnid[:, 0] - 1
    for _ in range(steps):
        for _ in range(env.frame_skip):
            angle = np.rad2deg(target - data.qpos[7:])[joints]
            speed = np.rad2deg(data.qvel[6:])[joints]
            data.ctrl[:] = np.clip(high * (STIFFNESS * angle - DAMPING * speed), -high, high)
            mujoco.mj_step(env.model, data)
        if look is not None:
            look()
