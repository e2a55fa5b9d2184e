"""Pictures by which the humanoid's predicates are checked: frames to label by eye, and what lies around each limit.

`python -m vlmrl.workflows.predicates docs/predicates` draws the sheets of the limits,
`python -m vlmrl.workflows.predicates <folder> <states.json>` those of labelled frames.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from vlmrl.envs.cameras import Camera
from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.humanoid_poses import (
    CROSSED,
    FOLDED,
    NEGATIVE,
    ON_HIPS,
    POSITIVE,
    RAISED,
    Pose,
    hold,
    joint_angles,
    put,
)
from vlmrl.envs.mujoco_scene import MujocoScene, lowest_point
from vlmrl.envs.tasks import PREDICATES, Condition, holds

TASKS = tuple(entry.split("/")[1] for entry in PREDICATES if entry.startswith("humanoid/"))
# Nearer than the task's cameras, so that a person sees where hands and feet are.
NEAR = {
    name: Camera(distance=2.7, lookat=(0.0, 0.0, 0.75), elevation=-8.0, azimuth=azimuth, track="torso")
    for name, azimuth in (("front", 180.0), ("side", 90.0))
}
STEPS = (-0.3, -0.15, -0.04, 0.04, 0.15, 0.3)  # how far past a limit a picture is, in the condition's scale

STAND = Pose()
SIT = Pose({"hip_y": -90})
SQUAT = NEGATIVE["squat"][0]
KNEEL = POSITIVE["kneeling"]["tall"]
HEELS = POSITIVE["kneeling"]["on the heels"]
LOTUS = POSITIVE["lotus"]["legs folded"]
SPLITS = POSITIVE["splits"]["trunk upright"]
LEG = POSITIVE["one_leg"]["left knee lifted"]
HANGING = {"shoulder1": 36.0, "shoulder2": -12.0, "elbow": -85.0}
LOW_CROSSED = CROSSED | {"right_shoulder2": -20, "left_shoulder2": 15, "right_elbow": -90}
HIGH_CROSSED = CROSSED | {"right_shoulder2": 60, "left_shoulder2": -60, "right_elbow": -30, "left_elbow": -30}
OPEN = {f"{side}_{joint}": 0.0 for side in ("right", "left") for joint in ("shoulder1", "shoulder2", "elbow")}

# The way across each limit: from a pose that fulfils the task to one that breaks this condition before any other.
FEET_OFF = (STAND, Pose({"left_hip_y": -40, "left_knee": -80}))
TIPPED = (STAND, Pose(pitch=45))
KNEES_BENT = (STAND, Pose({"hip_y": -55, "knee": -110}))
STANDING = {
    "torso high": (STAND, Pose({"abdomen_y": -75, "hip_y": -60}, pitch=40)),
    "trunk upright": TIPPED,
    "knees high": KNEES_BENT,
    "feet down": FEET_OFF,
}
WAYS: dict[str, dict[str, tuple[Pose, Pose]]] = {
    "kneeling": {
        "knees down": (HEELS, SQUAT),
        "trunk upright": (KNEEL, Pose({"knee": -92, "hip_y": -70}, pitch=70)),
        "hands up": (HEELS, Pose({"hip_y": -108, "knee": -158, **HANGING}, pitch=37)),
    },
    "standing": STANDING,
    "arms_raised": {"hands above head": (Pose(RAISED), Pose(OPEN))},
    "hands_on_hips": {"hands at hips": (Pose(ON_HIPS), Pose({"shoulder1": 20, "shoulder2": -20, "elbow": -40}))},
    "arms_crossed": {
        "right hand across": (Pose(CROSSED), Pose(CROSSED | {"right_shoulder1": 10})),
        "left hand across": (Pose(CROSSED), Pose(CROSSED | {"left_shoulder1": -10})),
        "hands above hips": (Pose(CROSSED), Pose(LOW_CROSSED)),
        "hands below chin": (Pose(CROSSED), Pose(HIGH_CROSSED)),
    },
    "one_leg": {
        "other foot up": (LEG, STAND),
        "torso high": (LEG, Pose({"left_hip_y": -110, "left_knee": -30, "right_hip_y": -70, "right_knee": -110})),
        "trunk upright": (LEG, Pose({"left_hip_y": -85, "left_knee": -85}, pitch=45)),
    },
    "splits": {
        "seat down": (SPLITS, Pose({"hip_y": -10, "knee": -3, "hip_z": -60, "hip_x": -25})),
        "feet down": (SPLITS, Pose({**SPLITS.joints, "hip_y": -110}, pitch=-25)),
        "feet apart": (SPLITS, SIT),
        "legs straight": (SPLITS, LOTUS),
        "trunk upright": (SPLITS, Pose(SPLITS.joints, pitch=-70)),
    },
    "lotus": {
        "knees low": (LOTUS, Pose({"hip_y": -108, "knee": -135, "hip_z": -20, "abdomen_y": -40}, pitch=-5)),
        "knees apart": (LOTUS, Pose(FOLDED | {"hip_z": 10, "hip_x": 5, "hip_y": -55, "knee": -115}, pitch=-20)),
        "shins folded": (LOTUS, Pose(FOLDED | {"knee": -60, "hip_y": -60, "hip_z": -35}, pitch=-10)),
        "feet together": (LOTUS, SPLITS),
        "trunk upright": (LOTUS, Pose(FOLDED, pitch=-60)),
        "seat down": (LOTUS, Pose({"hip_y": -80, "knee": -120, "hip_z": -40}, pitch=10)),
    },
}  # fmt: skip


def between(first: Pose, second: Pose, part: float) -> Pose:
    """Return the pose a part of the way, 0 to 1, from one to another; what a pose does not name is straight in it."""
    joints = {}
    for name in _sided(first).keys() | _sided(second).keys():
        joints[name] = (1 - part) * _sided(first).get(name, 0.0) + part * _sided(second).get(name, 0.0)
    return Pose(joints, (1 - part) * first.pitch + part * second.pitch, (1 - part) * first.roll + part * second.roll)


def _sided(pose: Pose) -> dict[str, float]:
    """Joints with both sides written out."""
    joints: dict[str, float] = {}
    for name, angle in pose.joints.items():
        if name.startswith(("right_", "left_", "abdomen")):
            continue
        joints |= {f"right_{name}": angle, f"left_{name}": -angle if name.startswith("shoulder") else angle}
    return joints | {
        name: angle for name, angle in pose.joints.items() if name.startswith(("right_", "left_", "abdomen"))
    }


def draw_states(n: int, seed: int) -> np.ndarray:
    """Draw states of all kinds in random order: tasks' poses, shaken ones, states between them, motion, falls.

    Args:
        n: Number of states.
        seed: Seed.

    Returns:
        (n, 24) float64, `qpos` in m and rad, rounded to 4 places.
    """
    rng = np.random.default_rng(seed)
    env = Humanoid()
    env.reset(seed=seed)
    positive = [pose for poses in POSITIVE.values() for pose in poses.values()]
    negative = [pose for pose, _ in NEGATIVE.values()]
    states: list[np.ndarray] = []
    while len(states) < n:
        kind = len(states) % 16
        if kind < 7:  # a task's pose, shaken a little or a lot
            tasks = list(POSITIVE.values())[rng.integers(len(POSITIVE))]
            shake(env, rng, list(tasks.values())[rng.integers(len(tasks))], rng.choice([3.0, 8.0, 14.0]))
        elif kind < 10:
            shake(env, rng, negative[rng.integers(len(negative))], rng.choice([3.0, 8.0, 14.0]))
        elif kind < 13:
            first, second = rng.choice(len(positive), 2, replace=False)
            shake(env, rng, between(positive[first], positive[second], rng.uniform(0.1, 0.9)), 4.0)
        elif kind == 13:  # held for a while
            pose = positive[rng.integers(len(positive))]
            put(env, pose)
            hold(env, joint_angles(env, pose), int(rng.integers(5, 60)))
        elif kind == 14:  # random actions
            env.reset(seed=int(rng.integers(2**31)))
            for _ in range(rng.integers(2, 100)):
                env.step(rng.uniform(-0.4, 0.4, 17).astype(np.float32))
        else:
            env.reset(seed=int(rng.integers(2**31)))
            env.fall()
        if passes_through_itself(env):
            continue
        states.append(env.data.qpos.copy())
    order = rng.permutation(n)
    return np.round(np.array(states)[order], 4)


def shake(env: Humanoid, rng: np.random.Generator, pose: Pose, degrees: float) -> None:
    """Put a humanoid into a pose with noise in degrees on every joint and half of it on the trunk's lean."""
    import mujoco

    lean = 0.5 * degrees * rng.standard_normal(2)
    put(env, Pose(pose.joints, pose.pitch + lean[0], pose.roll + lean[1]))
    low, high = env.model.jnt_range[1:].T
    env.data.qpos[7:] = np.clip(env.data.qpos[7:] + np.deg2rad(degrees) * rng.standard_normal(17), low, high)
    mujoco.mj_forward(env.model, env.data)
    env.data.qpos[2] -= lowest_point(env.model, env.data)
    mujoco.mj_forward(env.model, env.data)


def passes_through_itself(env: MujocoScene) -> bool:
    """Whether two parts of the body overlap by more than 0.02 m; geom 0 is the floor."""
    return any(contact.dist < -0.02 and contact.geom1 > 0 and contact.geom2 > 0 for contact in env.data.contact)


def picture(env: Humanoid, caption: str, good: bool | None = None) -> np.ndarray:
    """Draw a humanoid from the front and from its right side with a caption, green where `good`, red where not."""
    views = np.hstack([env.render_camera(name) for name in NEAR])
    colour = {None: (255, 255, 255), True: (120, 255, 120), False: (255, 130, 110)}[good]
    cv2.putText(views, caption, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(views, caption, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    if good is not None:
        cv2.rectangle(views, (0, 0), (views.shape[1] - 1, views.shape[0] - 1), colour, 2)
    return views


def near_view(size: int) -> Humanoid:
    """Make a humanoid that is drawn at size by size pixels through `NEAR`."""
    env = Humanoid(render_mode="rgb_array", width=size, height=size)
    env.cameras = NEAR  # type: ignore[misc]  # of this one object; the class keeps its own
    env.reset(seed=0)
    return env


def label_sheets(states: np.ndarray, columns: int = 3, rows: int = 5, size: int = 250) -> Iterator[np.ndarray]:
    """Yield sheets of numbered states without any judgement on them, (rows * size, columns * 2 * size, 3) uint8 RGB."""
    import mujoco

    env = near_view(size)
    cells = []
    for i, qpos in enumerate(states):
        env.data.qpos[:], env.data.qvel[:] = qpos, 0.0
        mujoco.mj_forward(env.model, env.data)
        cells.append(picture(env, str(i)))
    env.close()
    for start in range(0, len(cells), columns * rows):
        yield grid(cells[start : start + columns * rows], columns)


def limit_sheet(env: Humanoid, task: str) -> np.ndarray:
    """Draw a task's limits: a row for each, from outside it to inside, with how far each picture is from the limit.

    Distances are in m, of angles in rad, of "trunk upright" in the cosine of the lean. Green: the whole predicate
    holds.
    """
    predicate = PREDICATES.load(f"humanoid/{task}")
    cells = []
    for name, (inside, outside) in WAYS[task].items():
        way: list[tuple[Pose, dict[str, Condition]]] = []
        for part in np.linspace(0, 1, 81):
            put(env, between(inside, outside, float(part)))
            way.append((between(inside, outside, float(part)), predicate(env.simulator_state())))
        for step in STEPS:
            wanted = step * way[0][1][name].scale
            pose, conditions = min(way, key=lambda at: abs(at[1][name].margin - wanted))
            put(env, pose)
            cells.append(picture(env, f"{name} {conditions[name].margin:+.2f}", holds(conditions)))
    return grid(cells, len(STEPS))


def grid(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put pictures of one size side by side and below each other; what is left over is black."""
    blank = np.zeros_like(cells[0])
    padded = [*cells, *[blank] * (-len(cells) % columns)]
    return np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)])


def write(path: Path, sheet: np.ndarray, quality: int = 78) -> None:
    """Write a picture, RGB, in the format of the path's ending.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), sheet[..., ::-1], options):
        raise OSError(f"{path} could not be written.")


def main(arguments: Sequence[str]) -> None:
    """Draw the sheets, see this module.

    Raises:
        SystemExit: The arguments are not those of this module's first lines.
    """
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    folder = Path(arguments[0])
    if len(arguments) == 2:
        states = np.array([frame["qpos"] for frame in json.loads(Path(arguments[1]).read_text())["frames"]])
        for i, sheet in enumerate(label_sheets(states)):
            write(folder / f"frames_{i:02d}.png", sheet)
        return
    env = near_view(96)
    env.model.geom("floor").matid[:] = -1  # without its squares the files are small
    for task in WAYS:
        write(folder / f"{task}.jpg", limit_sheet(env, task))


if __name__ == "__main__":
    main(sys.argv[1:])
