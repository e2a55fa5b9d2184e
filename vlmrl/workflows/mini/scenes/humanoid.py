"""The humanoid: poses of legs, trunk and arms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmrl.envs.humanoid import Humanoid
from vlmrl.workflows.mini.scenes.humanoid_states import PoseSampler
from vlmrl.workflows.mini.scenes.humanoid_words import CLAUSES, PHRASES
from vlmrl.workflows.mini.scenes.pictures import MujocoStage
from vlmrl.workflows.mini.scenes.scene import Columns, Scene, Stage, band, fall, float32, rise

# What the geometry is made of: points and axes, three numbers each.
SEEN = (
    "head",
    "torso",
    "pelvis",
    *(f"{side}_{part}" for part in ("knee", "foot", "elbow", "hand") for side in ("right", "left")),
    "torso_up",
    "torso_forward",
)


class HumanoidScene(Scene):
    """A state is the humanoid's `qpos`."""

    name = "humanoid"
    share = 28.0
    size = 24
    identities = ("robot", "humanoid")
    subjects = {
        "a humanoid robot": "humanoid",
        "the humanoid robot": "humanoid",
        "a humanoid": "humanoid",
        "a humanoid figure": "humanoid",
        "an orange humanoid robot": "humanoid",
        "a robot": "robot",
        "the robot": "robot",
    }
    weights = {
        "kneeling": 3.0,
        "standing": 3.0,
        "one leg": 3.0,
        "splits": 3.0,
        "lotus": 3.0,
        "both arms raised": 3.0,
        "arms down": 2.0,
        "one arm raised": 2.0,
    }
    phrases = PHRASES
    clauses = CLAUSES
    postures = (
        "standing",
        "one leg",
        "kneeling",
        "squatting",
        "sitting",
        "lotus",
        "splits",
        "lying",
    )
    modifiers = ("both arms raised", "one arm raised", "arms down", "arms out", "arms forward")

    def states(self, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """See `Scene`."""
        return _sampler(rng).stream()

    def random_policy(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """See `Scene`."""
        return _sampler(rng).random_policy()

    def stage(self, size: int) -> Stage:
        """See `Scene`."""
        return MujocoStage(Humanoid, size, "front")

    def geometry(self, frames: Columns, mirror: bool) -> np.ndarray:
        """See `Scene`: points and axes of `SEEN` along the view, across it and up."""
        view, columns = frames["view"], []
        for name in SEEN:
            side, _, part = name.partition("_")
            other = {"right": f"left_{part}", "left": f"right_{part}"}.get(side, name)
            at = frames[other if mirror else name]
            across = at[:, 0] * view[:, 1] - at[:, 1] * view[:, 0]
            columns += [(at * view).sum(axis=1), -across if mirror else across, at[:, 2]]
        return np.stack(columns, axis=1)

    def truths(self, frames: Columns) -> dict[str, np.ndarray]:
        """See `Scene`; reads what `Humanoid.simulator_state` returns, `lowest` (m) and `view`."""
        height = {name: frames[name][:, 2] for name in ("head", "torso", "pelvis")}
        up, forward = frames["torso_up"], frames["torso_forward"]
        side = np.cross(up, forward)  # to the robot's left
        trunk = up[:, 2]
        sides = ("right", "left")
        knees, feet, hands = (
            np.stack([frames[f"{s}_{part}"] for s in sides], axis=1) for part in ("knee", "foot", "hand")
        )
        knee_low, knee_high = knees[..., 2].min(1), knees[..., 2].max(1)
        foot_low, foot_high = feet[..., 2].min(1), feet[..., 2].max(1)
        hand_low, hand_high = hands[..., 2].min(1), hands[..., 2].max(1)
        bend = _knee_bend(frames["pelvis"], side, knees, feet)
        apart = np.linalg.norm(feet[:, 0] - feet[:, 1], axis=1)
        feet_sideways = np.abs(((feet[:, 0] - feet[:, 1]) * side).sum(1))
        knees_sideways = np.abs(((knees[:, 0] - knees[:, 1]) * side).sum(1))
        feet_ahead = ((feet - frames["pelvis"][:, None]) * forward[:, None]).sum(2).min(1)

        upright = rise(trunk, 0.3, 0.93)
        lying = fall(np.abs(trunk), 0.35, 0.8) * fall(height["torso"], 0.22, 0.5) * fall(height["pelvis"], 0.2, 0.45)
        seated = fall(height["pelvis"], 0.16, 0.36) * rise(trunk, 0.25, 0.92)
        free_hands = rise(hand_low, 0.05, 0.22)
        grounded = fall(frames["lowest"], 0.03, 0.15)
        kneeling = (
            fall(knee_high, 0.1, 0.4)
            * upright
            * rise(height["pelvis"], 0.1, 0.28)
            * rise(bend.min(1), 0.4, 1.3)
            * free_hands
        )
        standing = (
            rise(height["torso"], 0.75, 1.24)
            * rise(trunk, 0.5, 0.97)
            * rise(knee_low, 0.15, 0.4)
            * fall(foot_high, 0.1, 0.3)
            * grounded
        )
        tall = rise(height["torso"], 0.75, 1.2) * rise(trunk, 0.45, 0.95) * grounded
        stance_knee = np.where(feet[:, 0, 2] < feet[:, 1, 2], knees[:, 0, 2], knees[:, 1, 2])
        squatting = (
            fall(height["pelvis"], 0.4, 0.75)
            * rise(height["pelvis"], 0.12, 0.25)
            * rise(knee_low, 0.16, 0.34)
            * fall(foot_high, 0.14, 0.3)
            * rise(trunk, 0.1, 0.6)
            * rise(bend.min(1), 0.6, 1.4)
        )
        tipping = fall(trunk, 0.35, 0.85) * rise(height["torso"], 0.35, 0.65)
        truths = {
            "robot": np.ones_like(trunk),
            "humanoid": np.ones_like(trunk),
            "standing": standing,
            "knees bent": tall * band(bend.mean(1), 0.25, 0.6, 1.1, 1.5) * fall(foot_high, 0.14, 0.3),
            "legs apart": standing * rise(apart, 0.35, 0.65),
            "legs together": standing * fall(apart, 0.22, 0.4),
            "one leg": tall * rise(stance_knee, 0.15, 0.38) * fall(foot_low, 0.08, 0.18) * rise(foot_high, 0.1, 0.38),
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
            * _towards(forward, 1),
            "leaning back": band(trunk, 0.2, 0.5, 0.8, 0.95) * _towards(forward, -1) * fall(height["torso"], 1.2, 1.4),
            "falling": tipping * fall(foot_high, 0.5, 1.2),
            "falling forward": tipping * _towards(forward, 1),
            "falling backward": tipping * _towards(forward, -1),
            "in the air": rise(frames["lowest"], 0.04, 0.15),
            "sitting": seated,
            "sitting, legs forward": seated * fall(bend.max(1), 0.4, 1.0) * fall(knee_high, 0.15, 0.35),
            "sitting, knees up": seated * rise(knee_low, 0.2, 0.4),
            # The model's hips cannot lay a shin across the other: what counts is a seat, feet in, knees out and low.
            "lotus": (
                seated
                * fall(apart, 0.25, 0.6)
                * rise(knees_sideways, 0.2, 0.55)
                * fall(knee_high, 0.28, 0.48)
                * rise(bend.min(1), 0.9, 1.9)
                * rise(feet_ahead, -0.1, 0.15)
            ),
            "splits": (
                fall(height["pelvis"], 0.18, 0.5)
                * rise(feet_sideways, 0.7, 1.4)
                * fall(bend.max(1), 0.3, 1.0)
                * rise(trunk, 0.3, 0.9)
                * fall(foot_high, 0.3, 0.75)
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
        truths |= _arms(frames["torso"], up, forward, side, hands)
        facing = -(forward * frames["view"]).sum(1)
        sideways = np.abs((side * frames["view"]).sum(1))
        truths |= {
            "from the front": rise(facing, 0.3, 0.85),
            "from behind": rise(-facing, 0.3, 0.85),
            "from the side": rise(sideways, 0.5, 0.9),
        }
        return float32(truths)


def _sampler(rng: np.random.Generator) -> PoseSampler:
    env = Humanoid()
    env.reset(seed=int(rng.integers(2**31)))
    return PoseSampler(env, rng)


def _arms(
    torso: np.ndarray, up: np.ndarray, forward: np.ndarray, side: np.ndarray, hands: np.ndarray
) -> dict[str, np.ndarray]:
    """Degrees of what the arms do, measured in the trunk's own axes; hands are (n, 2, 3), right and left."""
    reach = hands - torso[:, None]
    along_up, along_forward, along_side = ((reach * axis[:, None]).sum(2) for axis in (up, forward, side))
    raised = 0.35 * rise(along_up, -0.3, 0.1) + 0.65 * rise(along_up, 0.05, 0.35)  # the head's centre is at 0.19 m
    return {
        "both arms raised": raised.min(1),
        "one arm raised": raised.max(1) * (1 - raised.min(1)),
        "arms down": fall(along_up.max(1), -0.35, -0.05),
        "arms out": rise(np.minimum(-along_side[:, 0], along_side[:, 1]), 0.35, 0.6)
        * fall(np.abs(along_up).max(1), 0.2, 0.4),
        "arms forward": rise(along_forward.min(1), 0.25, 0.5),
    }


def _towards(forward: np.ndarray, sign: int) -> np.ndarray:
    """Whether the trunk tips over its front (+1) or its back (-1): its front then looks down or up."""
    return rise(-sign * forward[:, 2], 0.1, 0.5)


def _knee_bend(pelvis: np.ndarray, side: np.ndarray, knees: np.ndarray, feet: np.ndarray) -> np.ndarray:
    """Angle between thigh and shin, (n, 2) rad, 0 for a straight leg."""
    hips = np.stack([pelvis - 0.1 * side, pelvis + 0.1 * side], axis=1)
    thigh, shin = knees - hips, feet - knees
    cosine = (thigh * shin).sum(2) / np.maximum(np.linalg.norm(thigh, axis=2) * np.linalg.norm(shin, axis=2), 1e-6)
    return np.arccos(np.clip(cosine, -1, 1))
