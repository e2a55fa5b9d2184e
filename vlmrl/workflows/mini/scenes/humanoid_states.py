"""States of the humanoid to take pictures of: posed, half-way between poses, falling, collapsed, mid-motion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from vlmrl.envs.mujoco_scene import lowest_point

if TYPE_CHECKING:
    import mujoco

    from vlmrl.envs.humanoid import Humanoid

# Joint angles in degrees, both sides alike; "right_" or "left_" names one side. Unnamed legs and trunk are straight.
# Signs as in the model: a negative hip_y lifts the thigh forward, a negative knee bends it, a negative abdomen_y bows.
POSES: dict[str, dict[str, float]] = {
    "standing": {},
    "standing, legs apart": {"hip_x": -20},
    "knees a little bent": {"hip_y": -20, "knee": -40},
    "knees bent": {"hip_y": -45, "knee": -75},
    "squatting": {"hip_y": -95, "knee": -130, "abdomen_y": -25},
    "crouching low": {"hip_y": -108, "knee": -155, "abdomen_y": -40},
    "kneeling tall": {"hip_y": 0, "knee": -92},
    "kneeling, leaning back": {"hip_y": 5, "knee": -112, "abdomen_y": 10},
    "kneeling half down": {"hip_y": -30, "knee": -122},
    "kneeling on heels": {"hip_y": -65, "knee": -155},
    "kneeling, bowed": {"hip_y": -85, "knee": -150, "abdomen_y": -50},
    "kneeling, legs apart": {"hip_y": -20, "knee": -112, "hip_x": -22},
    "right knee down": {"right_hip_y": 0, "right_knee": -95, "left_hip_y": -90, "left_knee": -90},
    "left knee down": {"left_hip_y": 0, "left_knee": -95, "right_hip_y": -90, "right_knee": -90},
    "on the right leg": {"left_hip_y": -60, "left_knee": -85},
    "on the left leg": {"right_hip_y": -60, "right_knee": -85},
    "left foot just off": {"left_hip_y": -28, "left_knee": -50},
    "right foot just off": {"right_hip_y": -28, "right_knee": -50},
    "right leg lifted": {"right_hip_y": -80, "right_knee": -15},
    "left leg lifted": {"left_hip_y": -80, "left_knee": -15},
    "sitting, legs forward": {"hip_y": -90, "knee": -8},
    "sitting, knees up": {"hip_y": -95, "knee": -105, "abdomen_y": -35},
    "sitting, straddled": {"hip_y": -85, "knee": -5, "hip_z": -55},
    "lotus": {"hip_y": -64, "knee": -142, "hip_z": -52, "hip_x": -7, "abdomen_y": -47},
    "splits": {"hip_y": -75, "knee": -3, "hip_z": -60, "hip_x": -25},
    "half splits": {"hip_y": -55, "knee": -10, "hip_z": -50, "hip_x": -25},
    "splits, knees bent": {"hip_y": -80, "knee": -50, "hip_z": -60, "hip_x": -25},
    "lotus, feet ahead": {"hip_y": -80, "knee": -110, "hip_z": -50, "abdomen_y": -40},
    "lotus, knees high": {"hip_y": -95, "knee": -145, "hip_z": -30, "abdomen_y": -40},
    "front splits": {"right_hip_y": -100, "right_knee": -5, "left_hip_y": 20, "left_knee": -5},
    "bowing": {"hip_y": -50, "knee": -8, "abdomen_y": -60},
    "toe touch": {"hip_y": -100, "knee": -8, "abdomen_y": -70},
    "all fours": {"hip_y": -85, "knee": -90},
    "lying": {"knee": -8},
    "curled up": {"hip_y": -105, "knee": -140, "abdomen_y": -60},
}
# Pitch of the trunk in degrees (positive: forward) that belongs to a pose; 0 where it is not named.
PITCH = {
    "squatting": 15,
    "crouching low": 25,
    "kneeling, bowed": 15,
    "bowing": 75,
    "toe touch": 130,
    "all fours": 85,
    "kneeling, leaning back": -8,
    "knees bent": 10,
    "sitting, legs forward": -5,
    "sitting, knees up": -20,
    "lotus": -27,
}
# How often a pose is drawn; 1 where it is not named. What an agent confuses is drawn most.
WEIGHT = {
    "standing": 18,
    "standing, legs apart": 2,
    "knees a little bent": 2.5,
    "knees bent": 2,
    "squatting": 2.5,
    "crouching low": 2,
    "kneeling tall": 3.5,
    "kneeling on heels": 3,
    "kneeling half down": 3,
    "kneeling, leaning back": 2,
    "kneeling, bowed": 1.5,
    "kneeling, legs apart": 1.5,
    "on the right leg": 2.5,
    "on the left leg": 2.5,
    "left foot just off": 2,
    "right foot just off": 2,
    "right leg lifted": 1.5,
    "left leg lifted": 1.5,
    "lying": 4,
    "lotus": 10,
    "lotus, feet ahead": 1.5,
    "lotus, knees high": 1.5,
    "splits": 8,
    "half splits": 2,
    "splits, knees bent": 1.5,
}
# In these the trunk lies: they are turned on the back, front or side.
LYING = {"lying", "curled up"}
# How often arms are held in a way. Half of all arms are then on their way to another one.
ARM_STYLES = {
    "random": 0.13,
    "raised": 0.26,
    "one raised": 0.1,
    "hips": 0.08,
    "crossed": 0.07,
    "down": 0.11,
    "out": 0.08,
    "forward": 0.06,
    "as built": 0.11,
}
ON_THE_WAY = 0.3  # of all arms are between two styles: half raised, half lowered


class PoseSampler:
    """Draws states of the humanoid into an environment's `data`.

    Args:
        env: The environment; its `model` and `data` are used, its renderer is not.
        rng: Source of everything that is random.
    """

    def __init__(self, env: Humanoid, rng: np.random.Generator):
        import mujoco

        self._mj = mujoco
        self.env, self.rng = env, rng
        assert isinstance(env.action_space, gym.spaces.Box)
        self._actions = env.action_space
        self.model: mujoco.MjModel = env.model
        self.data: mujoco.MjData = env.data
        joints = range(1, self.model.njnt)  # 0 is the free joint
        self.names = [self.model.joint(i).name for i in joints]
        self.low = self.model.jnt_range[1:, 0].copy()
        self.high = self.model.jnt_range[1:, 1].copy()
        self.gear = np.zeros(len(self.names))
        self._actuated = np.array(
            [self.names.index(self.model.joint(self.model.actuator(i).trnid[0]).name) for i in range(self.model.nu)]
        )
        self.gear[self._actuated] = self.model.actuator_gear[:, 0]
        self._weights = np.array([WEIGHT.get(name, 1.0) for name in POSES])
        self._weights /= self._weights.sum()
        self._arms = self._find_arms()

    def stream(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield for ever where a state came from, and its `qpos` (24,)."""
        while True:
            # Springs yield eight states each, torques six.
            kind = self.rng.choice(6, p=[0.77, 0.12, 0.04, 0.03, 0.02, 0.02])
            if kind == 0:
                self._place(*self._pose(self._name()))
                yield "pose", self._qpos()
            elif kind == 1:
                self._between()
                yield "between", self._qpos()
            elif kind == 2:
                self._anything()
                yield "random", self._qpos()
            elif kind == 3:
                yield from self._controlled()
            elif kind == 4:
                yield from self._torques()
            else:
                self.env.np_random = np.random.default_rng(int(self.rng.integers(2**31)))
                self.env.fall()
                self._turn()
                yield "fallen", self._qpos()

    def random_policy(self, snapshots: int = 5) -> Iterator[np.ndarray]:
        """Yield for ever `qpos` of the environment's own episodes under uniformly random actions."""
        while True:
            self.env.reset(seed=int(self.rng.integers(2**31)))
            chosen = set(self.rng.choice(100, snapshots, replace=False).tolist())
            for t in range(100):
                low, high = self._actions.low, self._actions.high
                self.env.step(low + self.rng.random(self.model.nu) * (high - low))
                if t in chosen:
                    yield self._qpos()

    def _qpos(self) -> np.ndarray:
        qpos: np.ndarray = self.data.qpos.copy()
        return qpos

    def _name(self) -> str:
        return str(self.rng.choice(list(POSES), p=self._weights))

    def _find_arms(self) -> dict[str, np.ndarray]:
        """Search joint space for arm postures: {style: (k, 6) float, angles of the arm joints in rad}.

        Each style is searched for with the right arm. The left arm mirrors it: its shoulder angles have the other sign,
        its elbow the same one.
        """
        columns = self._arm_columns = np.array(
            [i for i, name in enumerate(self.names) if "shoulder" in name or "elbow" in name]
        )
        right = columns[:3]
        draws = self.low[right] + self.rng.random((4000, 3)) * (self.high - self.low)[right]
        hands = np.zeros((len(draws), 3))
        self.data.qpos[:] = 0
        self.data.qpos[3] = 1
        for i, draw in enumerate(draws):
            self.data.qpos[7 + right] = draw
            self._mj.mj_kinematics(self.model, self.data)
            hands[i] = self.data.geom("right_hand").xpos
        forward, left, up = hands.T
        scores = {
            "raised": -up,
            "hips": np.linalg.norm(hands - [0.0, -0.17, -0.42], axis=1),
            "crossed": np.linalg.norm(hands - [0.2, 0.12, 0], axis=1),
            "down": up,
            "out": left + np.abs(up),
            "forward": -forward,
        }
        one = {style: draws[np.argsort(score)[:60]] for style, score in scores.items()}
        both = {style: np.concatenate([arm, mirrored_arm(arm[self.rng.permutation(len(arm))])], axis=1)
                for style, arm in one.items()}  # fmt: skip
        lowered = np.concatenate([one["down"], draws[self.rng.integers(len(draws), size=30)]])
        lowered = lowered[self.rng.integers(len(lowered), size=60)]
        both["one raised"] = np.concatenate(
            [
                np.concatenate([one["raised"], mirrored_arm(lowered)], axis=1),
                np.concatenate([lowered, mirrored_arm(one["raised"])], axis=1),
            ]
        )
        anyhow = [draws[self.rng.integers(len(draws), size=2000)] for _ in range(2)]
        both["random"] = np.concatenate([anyhow[0], mirrored_arm(anyhow[1])], axis=1)
        return both | {"as built": np.zeros((1, 6))}

    def _arms_like(self, style: str) -> np.ndarray:
        arms = self._arms[style]
        angles: np.ndarray = arms[self.rng.integers(len(arms))] + 0.1 * self.rng.standard_normal(6)
        return angles

    def _style(self) -> str:
        return str(self.rng.choice(list(ARM_STYLES), p=list(ARM_STYLES.values())))

    def _pose(self, name: str) -> tuple[np.ndarray, float, float]:
        """Draw joint angles (rad), pitch and roll (rad) of a pose with jitter."""
        angles = np.zeros(len(self.names))
        for joint, degrees in POSES[name].items():
            for i, own in enumerate(self.names):
                if own == joint or own in (f"right_{joint}", f"left_{joint}"):
                    angles[i] = np.deg2rad(degrees)
        spread = self.rng.choice([3, 6, 10, 18])
        angles += np.deg2rad(spread) * self.rng.standard_normal(len(angles))
        style = self._style()
        if name == "all fours" and self.rng.random() < 0.8:
            style = "forward"  # where the floor is
        arms = self._arms_like(style)
        if self.rng.random() < ON_THE_WAY:
            part = self.rng.random()
            arms = part * arms + (1 - part) * self._arms_like(self._style())
        angles[self._arm_columns] = arms
        pitch = np.deg2rad(PITCH.get(name, 0) + self.rng.choice([2, 5, 8, 15]) * self.rng.standard_normal())
        roll = np.deg2rad(self.rng.choice([2, 4, 10]) * self.rng.standard_normal())
        if name in LYING:
            side = self.rng.choice(3)
            pitch += np.deg2rad([-90, 90, 0][side])
            roll += np.deg2rad(90) * self.rng.choice([-1, 1]) if side == 2 else 0
        if self.rng.random() < 0.12:  # any pose may be tipped over
            pitch += self.rng.uniform(-2, 2)
        return angles, float(pitch), float(roll)

    def _place(self, angles: np.ndarray, pitch: float, roll: float, lift: float = 0.0) -> None:
        """Set the joints and put the body's lowest point on the floor (`lift` m above it)."""
        yaw = (
            self.rng.uniform(-np.pi, np.pi) if self.rng.random() < 0.3 else np.deg2rad(25) * self.rng.standard_normal()
        )
        position, orientation = np.zeros(3), np.zeros(4)
        position[:2] = np.clip(0.3 * self.rng.standard_normal(2), -1, 1)
        position[2] = 2.0
        for axis, angle in (((0, 0, 1), yaw), ((0, 1, 0), pitch), ((1, 0, 0), roll)):
            turn = np.zeros(4)
            self._mj.mju_axisAngle2Quat(turn, np.array(axis, dtype=float), angle)
            if orientation.any():
                self._mj.mju_mulQuat(orientation, orientation.copy(), turn)
            else:
                orientation[:] = turn
        self._set(np.concatenate([position, orientation, np.clip(angles, self.low, self.high)]))
        self.data.qpos[2] -= lowest_point(self.model, self.data) - lift
        self._mj.mj_forward(self.model, self.data)

    def _set(self, qpos: np.ndarray) -> None:
        self._mj.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        self._mj.mj_forward(self.model, self.data)

    def _between(self) -> None:
        """A state between two poses, where one passes into the other."""
        one, other = (self._pose(self._name()) for _ in range(2))
        part = self.rng.random()
        angles = part * one[0] + (1 - part) * other[0]
        pitch, roll = part * one[1] + (1 - part) * other[1], part * one[2] + (1 - part) * other[2]
        self._place(angles, pitch, roll, lift=self._lift())

    def _anything(self) -> None:
        """Joints anywhere within limits, trunk turned anyhow."""
        angles = self.low + self.rng.random(len(self.low)) * (self.high - self.low)
        if self.rng.random() < 0.5:
            angles *= self.rng.random()
        tilt = self.rng.choice([0.3, 0.8, 2.0])
        self._place(angles, tilt * self.rng.standard_normal(), tilt * self.rng.standard_normal(), lift=self._lift())

    def _lift(self) -> float:
        return float(self.rng.uniform(0, 0.4)) if self.rng.random() < 0.15 else 0.0

    def _controlled(self) -> Iterator[tuple[str, np.ndarray]]:
        """Springs at the joints pull a body towards poses, from standing or from another pose: what a policy does."""
        if self.rng.random() < 0.6:
            self.env.reset(seed=int(self.rng.integers(2**31)))
            if self.rng.random() < 0.7:
                self._turn()
        else:
            self._place(*self._pose(self._name()))
        stiffness, damping = self.rng.uniform(20, 250), self.rng.uniform(0.5, 8)
        noise = self.rng.choice([0.0, 0.1, 0.3])
        target = self._pose(self._name())[0]
        chosen = set(self.rng.choice(100, 8, replace=False).tolist())
        for t in range(100):
            if self.rng.random() < 0.02:
                target = self._pose(self._name())[0]
            torque = stiffness * (target - self.data.qpos[7:]) - damping * self.data.qvel[6:]
            control = (torque / self.gear)[self._actuated] + noise * self.rng.standard_normal(self.model.nu)
            if not self._advance(control):
                return
            if t in chosen:
                yield "controlled", self._qpos()

    def _torques(self) -> Iterator[tuple[str, np.ndarray]]:
        """A body under random torques that last a while, from standing or from a pose; none at all at times."""
        if self.rng.random() < 0.5:
            self.env.reset(seed=int(self.rng.integers(2**31)))
            if self.rng.random() < 0.7:
                self._turn()
        else:
            self._place(*self._pose(self._name()))
        size, hold = self.rng.choice([0.0, 0.2, 0.4, 1.0]), self.rng.choice([1, 5, 20])
        chosen = set(self.rng.choice(100, 6, replace=False).tolist())
        control = np.zeros(self.model.nu)
        for t in range(100):
            if t % hold == 0:
                control = size * self.rng.uniform(-1, 1, self.model.nu)
            if not self._advance(control):
                return
            if t in chosen:
                yield "torques", self._qpos()

    def _turn(self, spread: float | None = None) -> None:
        """Turn and shift the body where it is; `spread` of the turn in degrees, by default 25 and now and then any."""
        if spread is not None:
            yaw = np.deg2rad(spread) * self.rng.standard_normal()
        else:
            yaw = (
                np.deg2rad(25) * self.rng.standard_normal()
                if self.rng.random() < 0.7
                else self.rng.uniform(-np.pi, np.pi)
            )
        turn = np.zeros(4)
        self._mj.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), yaw)
        self._mj.mju_mulQuat(self.data.qpos[3:7], turn, self.data.qpos[3:7].copy())
        self.data.qpos[:2] += np.clip(0.3 * self.rng.standard_normal(2), -1, 1)
        self._mj.mj_forward(self.model, self.data)

    def _advance(self, control: np.ndarray) -> bool:
        """Simulate one step of the environment (0.015 s); False where the simulation has blown up."""
        self.data.ctrl[:] = np.clip(control, -0.4, 0.4)
        self._mj.mj_step(self.model, self.data, nstep=self.env.frame_skip)
        return bool(np.isfinite(self.data.qpos).all() and abs(self.data.qpos[:3]).max() < 3)


def mirrored_arm(angles: np.ndarray) -> np.ndarray:
    """Angles (..., 3) of shoulder1, shoulder2 and elbow with which one arm mirrors the other."""
    return angles * [-1, -1, 1]
