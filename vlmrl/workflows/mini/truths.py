"""How far each statement is true of a frame, from the simulator's geometry.

Degrees go from 0 (false) to 1 (true) and are graded in between: the nearer a body is to a pose, the higher the degree,
so that a cosine trained towards them is a reward with a slope. They are made of ramps over heights, angles and
distances and are written without the tasks' success predicates (`vlmrl.envs.*_tasks`), which judge the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Columns = Mapping[str, np.ndarray]


def rise(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high`, straight in between."""
    return np.clip((value - low) / (high - low), 0.0, 1.0)


def fall(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 up to `low`, 0 from `high`, straight in between."""
    return 1.0 - rise(value, low, high)


def humanoid_truths(frames: Columns) -> dict[str, np.ndarray]:
    """Compute the degrees of all statements about the humanoid.

    Args:
        frames: Columns of `Humanoid.simulator_state()`, each with a leading axis of n frames: positions (n, 3) in m,
            `torso_up` and `torso_forward` (n, 3); also `lowest` (n,), the height of the body's lowest point in m, and
            `view` (n, 3), the horizontal unit direction in which the camera looks.

    Returns:
        {statement: (n,) float32, 0 to 1}. Keys are those of `captions.HUMANOID`.
    """
    height = {name: frames[name][:, 2] for name in ("head", "torso", "pelvis")}
    up, forward = frames["torso_up"], frames["torso_forward"]
    side = np.cross(up, forward)  # to the robot's left
    trunk = up[:, 2]
    sides = ("right", "left")
    knees, feet, hands = (np.stack([frames[f"{s}_{part}"] for s in sides], axis=1) for part in ("knee", "foot", "hand"))
    knee_low, knee_high = knees[..., 2].min(1), knees[..., 2].max(1)
    foot_low, foot_high = feet[..., 2].min(1), feet[..., 2].max(1)
    hand_low, hand_high = hands[..., 2].min(1), hands[..., 2].max(1)
    bend = _knee_bend(frames["pelvis"], side, knees, feet)
    apart = np.linalg.norm(feet[:, 0] - feet[:, 1], axis=1)
    knees_apart = np.linalg.norm(knees[:, 0] - knees[:, 1], axis=1)

    upright = rise(trunk, 0.25, 0.88)
    lying = fall(np.abs(trunk), 0.35, 0.8) * fall(height["torso"], 0.22, 0.5) * fall(height["pelvis"], 0.2, 0.45)
    seated = fall(height["pelvis"], 0.15, 0.28) * rise(trunk, 0.2, 0.8)
    free_hands = rise(hand_low, 0.05, 0.2)
    grounded = fall(frames["lowest"], 0.03, 0.15)

    kneeling = (
        fall(knee_high, 0.12, 0.42)
        * upright
        * rise(height["pelvis"], 0.1, 0.24)
        * rise(bend.min(1), 0.3, 1.0)
        * free_hands
    )
    standing = (
        rise(height["torso"], 0.75, 1.2)
        * rise(trunk, 0.5, 0.93)
        * rise(knee_low, 0.15, 0.38)
        * fall(foot_high, 0.14, 0.3)
        * grounded
    )
    tall = rise(height["torso"], 0.8, 1.15) * rise(trunk, 0.5, 0.9) * grounded
    squatting = (
        fall(height["pelvis"], 0.4, 0.75)
        * rise(height["pelvis"], 0.12, 0.25)
        * rise(knee_low, 0.16, 0.34)
        * fall(foot_high, 0.14, 0.3)
        * rise(trunk, 0.1, 0.6)
        * rise(bend.min(1), 0.6, 1.4)
    )

    truths = {
        "robot": np.ones_like(trunk),
        "standing": standing,
        "knees bent": tall * _band(bend.mean(1), 0.25, 0.6, 1.1, 1.5) * fall(foot_high, 0.14, 0.3),
        "legs apart": standing * rise(apart, 0.35, 0.65),
        "legs together": standing * fall(apart, 0.22, 0.4),
        "one leg": tall * fall(foot_low, 0.1, 0.2) * rise(foot_high, 0.15, 0.4),
        "kneeling": kneeling,
        "kneeling tall": kneeling * rise(height["pelvis"], 0.34, 0.46),
        "kneeling on heels": kneeling * fall(height["pelvis"], 0.3, 0.4),
        "one knee": upright
        * fall(knee_low, 0.12, 0.25)
        * rise(knee_high, 0.22, 0.4)
        * rise(height["pelvis"], 0.25, 0.4),
        "squatting": squatting,
        "bowing": rise(height["pelvis"], 0.5, 0.75)
        * fall(trunk, 0.4, 0.8)
        * fall(foot_high, 0.14, 0.3)
        * _towards(up, forward, 1),
        "leaning back": _band(trunk, 0.2, 0.5, 0.8, 0.95) * _towards(up, forward, -1) * fall(height["torso"], 1.2, 1.4),
        "falling": fall(trunk, 0.35, 0.85) * rise(height["torso"], 0.35, 0.65) * fall(foot_high, 0.5, 1.2),
        "falling forward": fall(trunk, 0.35, 0.85) * rise(height["torso"], 0.35, 0.65) * _towards(up, forward, 1),
        "falling backward": fall(trunk, 0.35, 0.85) * rise(height["torso"], 0.35, 0.65) * _towards(up, forward, -1),
        "in the air": rise(frames["lowest"], 0.04, 0.15),
        "sitting": seated,
        "sitting, legs forward": seated * fall(bend.max(1), 0.4, 1.0) * fall(knee_high, 0.15, 0.35),
        "sitting, knees up": seated * rise(knee_low, 0.2, 0.4),
        # The model's hips cannot lay a shin across the other: what counts is a seat with feet in, knees out and low.
        "lotus": (
            seated
            * fall(apart, 0.35, 0.65)
            * rise(knees_apart, 0.25, 0.5)
            * fall(knee_high, 0.26, 0.45)
            * rise(bend.min(1), 0.9, 1.6)
        ),
        "splits": (
            fall(height["pelvis"], 0.2, 0.5)
            * rise(apart, 0.9, 1.35)
            * fall(bend.max(1), 0.3, 0.8)
            * rise(trunk, 0.2, 0.7)
        ),
        "lying": lying,
        "lying on back": lying * rise(forward[:, 2], 0.2, 0.7),
        "lying on front": lying * rise(-forward[:, 2], 0.2, 0.7),
        "lying on side": lying * rise(np.abs(side[:, 2]), 0.3, 0.75),
        "fallen": np.maximum(lying, fall(height["torso"], 0.3, 0.55) * fall(trunk, 0.4, 0.8)),
        "hands on floor": fall(hand_low, 0.08, 0.2),
        "all fours": (
            fall(hand_high, 0.1, 0.25)
            * fall(knee_high, 0.12, 0.3)
            * fall(np.abs(trunk), 0.4, 0.8)
            * rise(height["pelvis"], 0.2, 0.4)
        ),
        "upside down": rise(-trunk, 0.2, 0.6),
    }
    truths |= _arms(frames, up, forward, side, hands, trunk)
    facing = -(forward * frames["view"]).sum(1)
    sideways = np.abs((side * frames["view"]).sum(1))
    truths |= {
        "from the front": rise(facing, 0.3, 0.85),
        "from behind": rise(-facing, 0.3, 0.85),
        "from the side": rise(sideways, 0.5, 0.9),
    }
    return {name: degree.astype(np.float32) for name, degree in truths.items()}


def _arms(
    frames: Columns, up: np.ndarray, forward: np.ndarray, side: np.ndarray, hands: np.ndarray, trunk: np.ndarray
) -> dict[str, np.ndarray]:
    """Degrees of what the arms do, measured in the trunk's own axes."""
    reach = hands - frames["torso"][:, None]
    along_up, along_forward, along_side = ((reach * axis[:, None]).sum(2) for axis in (up, forward, side))
    hips = [frames["pelvis"] + sign * 0.17 * side + 0.02 * up for sign in (-1, 1)]
    to_hips = np.max([np.linalg.norm(hands[:, i] - hips[i], axis=1) for i in (0, 1)], axis=0)
    raised = rise(along_up, -0.1, 0.25)  # the head is 0.19 m above the trunk's centre
    return {
        "both arms raised": raised.min(1),
        "one arm raised": raised.max(1) * (1 - raised.min(1)),
        "hands on hips": fall(to_hips, 0.14, 0.35),
        "arms crossed": (
            rise(along_side[:, 0], -0.08, 0.08)
            * rise(-along_side[:, 1], -0.08, 0.08)
            * rise(along_forward.min(1), 0.05, 0.15)
            * fall(np.abs(along_up).max(1), 0.25, 0.45)
        ),
        "arms down": fall(along_up.max(1), -0.35, -0.05),
        "arms out": rise(np.minimum(-along_side[:, 0], along_side[:, 1]), 0.35, 0.6)
        * fall(np.abs(along_up).max(1), 0.2, 0.4),
        "arms forward": rise(along_forward.min(1), 0.25, 0.5),
    }


def cartpole_truths(frames: Columns) -> dict[str, np.ndarray]:
    """Compute the degrees of all statements about the cart and pole.

    Args:
        frames: `x` (n,) in m and `angle` (n,) in rad, clockwise from upright, within -pi to pi.

    Returns:
        {statement: (n,) float32, 0 to 1}. Keys are those of `captions.CARTPOLE`.
    """
    x, angle = frames["x"], np.rad2deg(frames["angle"])
    tilt = np.abs(angle)
    truths = {
        "pole and cart": np.ones_like(x),
        # Half of it is steep, to balance by, and half goes all the way round, to swing up by.
        "upright": 0.5 * np.exp(-tilt / 15) + 0.25 * (1 + np.cos(frames["angle"])),
        "tilted": _band(tilt, 8, 25, 60, 80),
        "tilted left": _band(-angle, 5, 20, 70, 90),
        "tilted right": _band(angle, 5, 20, 70, 90),
        "horizontal": _band(tilt, 60, 80, 100, 120),
        "hanging": rise(tilt, 110, 170),
        "cart left": rise(-x, 0.3, 1.5),
        "cart right": rise(x, 0.3, 1.5),
        "cart centred": fall(np.abs(x), 0.3, 1.2),
        "cart at the edge": rise(np.abs(x), 1.9, 2.3),
    }
    return {name: degree.astype(np.float32) for name, degree in truths.items()}


def _band(value: np.ndarray, low: float, full: float, full_until: float, high: float) -> np.ndarray:
    return rise(value, low, full) * fall(value, full_until, high)


def _towards(up: np.ndarray, forward: np.ndarray, sign: int) -> np.ndarray:
    """Whether the trunk tips over its front (+1) or its back (-1): its front then looks down or up."""
    return rise(-sign * forward[:, 2], 0.1, 0.5)


def _knee_bend(pelvis: np.ndarray, side: np.ndarray, knees: np.ndarray, feet: np.ndarray) -> np.ndarray:
    """Angle between thigh and shin, (n, 2) rad, 0 for a straight leg."""
    hips = np.stack([pelvis - 0.1 * side, pelvis + 0.1 * side], axis=1)
    thigh, shin = knees - hips, feet - knees
    cosine = (thigh * shin).sum(2) / np.maximum(np.linalg.norm(thigh, axis=2) * np.linalg.norm(shin, axis=2), 1e-6)
    return np.arccos(np.clip(cosine, -1, 1))
