"""The running robots: hopper, walker, half cheetah and ant. No picture shows speed: what they do is told by pose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vlmrl.envs.ant import Ant
from vlmrl.envs.halfcheetah import HalfCheetah
from vlmrl.envs.hopper import Hopper
from vlmrl.envs.mujoco_scene import lowest_point
from vlmrl.envs.walker2d import Walker2d
from vlmrl.workflows.mini.scenes.pictures import MujocoStage
from vlmrl.workflows.mini.scenes.scene import Columns, Scene, Stage, band, fall, float32, rise

PHRASES: dict[str, tuple[str, ...]] = {
    "robot": ("",),
    "standing": (
        "standing still on its feet",
        "standing",
        "standing up",
        "standing still on the floor",
        "standing still",
        "standing upright",
        "on its feet",
    ),
    "crouching": ("crouching", "crouched", "squatting low", "ducking down"),
    "lying": ("lying on the ground", "lying down", "lying on the floor", "lying flat"),
    "lying on back": ("lying on its back", "on its back", "lying upside down on its back"),
    "lying on front": ("lying on its front", "lying face down", "lying on its belly"),
    "fallen": ("fallen down", "collapsed", "that has fallen over", "fallen to the ground", "in a heap on the floor"),
    "falling": ("falling over", "falling", "tipping over", "losing its balance", "toppling"),
    "falling forward": ("falling forward", "falling on its face", "tipping over forwards"),
    "falling backward": ("falling backward", "tipping over backwards"),
    "in the air": (
        "in the air",
        "jumping",
        "off the ground",
        "above the floor",
        "leaping",
        "with no foot on the floor",
    ),
    "high in the air": ("jumping high in the air", "jumping high", "leaping high", "high above the floor"),
    "upside down": ("upside down", "head over heels", "on its head"),
    "flipping": ("doing a flip in the air", "doing a flip", "turning over in the air", "doing a somersault"),
    "running": ("running fast", "running", "in mid stride", "running forward", "striding"),
    "leaning forward": ("leaning forward", "bowing", "bent forward"),
    "leaning back": ("leaning back", "leaning backwards"),
}
CLAUSES = {
    "standing": ("stands", "stands still on its feet", "stands up"),
    "lying": ("lies on the ground", "lies on the floor"),
    "in the air": ("jumps", "is off the ground"),
    "high in the air": ("jumps high in the air",),
    "running": ("runs", "runs fast"),
    "falling": ("falls over",),
    "flipping": ("does a flip in the air", "flips over"),
}


class RunnerScene(Scene):
    """A running robot; a state is its `qpos`.

    Args:
        name: Name of the environment.
        make: Builds it.
        subjects: What it is called beside "a robot".
        stands: Height of its torso, standing, in m.
        lies: Height of its torso, lying, in m.
        foot: Height of a foot's centre, standing, in m.
        size: Numbers in its `qpos`.
        points: Its bodies, from the torso outwards.
    """

    share = 3.0
    weights = {"standing": 2.0, "in the air": 2.0, "high in the air": 2.0, "flipping": 2.0}
    phrases = PHRASES
    clauses = CLAUSES

    def __init__(
        self,
        name: str,
        make: Callable[..., Any],
        subjects: Sequence[str],
        stands: float,
        lies: float,
        foot: float,
        size: int,
        points: Sequence[str],
    ):
        self.name, self._make = name, make
        self._stands, self._lies, self._foot = stands, lies, foot
        self._points = tuple(points)
        self.identities = ("robot", name)
        self.subjects = {"a robot": "robot", "the robot": "robot"} | dict.fromkeys(subjects, name)
        self.size = size

    def states(self, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """See `Scene`."""
        env = self._make()
        env.reset(seed=int(rng.integers(2**31)))
        while True:
            kind = rng.choice(6, p=[0.32, 0.26, 0.26, 0.06, 0.06, 0.04])  # torques give five each
            if kind == 0:
                yield "pose", self._posed(env, rng, rng.choice([0.0, 0.15, 0.4]), rng.choice([0.05, 0.2, 0.5]), 0.0)
            elif kind == 1:  # up in the air, more or less upright
                yield "jump", self._posed(env, rng, 0.35, rng.choice([0.1, 0.4, 1.2]), rng.choice([0.15, 0.5, 1.0]))
            elif kind == 2:
                lift = float(rng.choice([0.0, 0.0, 0.3, 0.8]))
                yield "random", self._posed(env, rng, 1.0, np.pi, lift)
            elif kind == 3:
                env.np_random = np.random.default_rng(int(rng.integers(2**31)))
                env.fall()
                yield "fallen", self._anywhere(env.data.qpos, rng)
            else:
                yield from self._torques(env, rng, standing=kind == 4)

    def random_policy(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """See `Scene`."""
        env = self._make(start="mixed")
        while True:
            env.reset(seed=int(rng.integers(2**31)))
            for t in range(200):
                env.step(rng.uniform(env.action_space.low, env.action_space.high))
                if t % 20 == 19:
                    yield env.data.qpos.copy()

    def stage(self, size: int) -> Stage:
        """See `Scene`."""
        return MujocoStage(self._make, size, "side", self._points)

    def truths(self, frames: Columns) -> dict[str, np.ndarray]:
        """See `Scene`; reads `torso`, `torso_up`, `feet`, `lowest` and, of planar robots, `pitch`."""
        up, low = frames["torso_up"][:, 2], frames["lowest"]
        height = (frames["torso"][:, 2] - self._lies) / (self._stands - self._lies)  # 0 lying, 1 standing
        lifted = frames["feet"].max(axis=1) - self._foot  # of the higher foot, in m
        planar = "pitch" in frames
        # Where the front looks: down is positive. The ant has no front that a picture would show.
        front_down = np.sin(frames["pitch"]) if planar else np.zeros_like(up)
        grounded = fall(low, 0.02, 0.12)
        upright = rise(up, 0.5, 0.96)
        feet_down = fall(lifted, 0.05, 0.25)
        standing = rise(height, 0.45, 0.9) * upright * grounded * feet_down
        if self._stands < 0.8:  # level trunks lie where they are low or turned over
            lying = np.maximum(fall(height, 0.1, 0.5), fall(up, -0.2, 0.4)) * grounded
        else:
            lying = fall(np.abs(up), 0.25, 0.7) * fall(height, 0.1, 0.5)
        tipping = fall(up, 0.4, 0.9) * rise(height, 0.15, 0.45) * fall(low, 0.1, 0.4)
        return float32(
            {
                "robot": np.ones_like(up),
                "standing": standing,
                "crouching": band(height, 0.05, 0.25, 0.6, 0.8) * upright * grounded,
                "lying": lying,
                "lying on back": lying * np.maximum(rise(-front_down, 0.2, 0.8), fall(up, -0.8, -0.3)),
                "lying on front": lying * rise(front_down, 0.2, 0.8) if planar else lying * rise(up, 0.3, 0.8),
                "fallen": np.maximum(lying, fall(height, 0.2, 0.6) * fall(up, 0.2, 0.7)) * grounded,
                "falling": tipping,
                "falling forward": tipping * rise(front_down, 0.2, 0.6),
                "falling backward": tipping * rise(-front_down, 0.2, 0.6),
                "in the air": rise(low, 0.02, 0.15),
                "high in the air": rise(low, 0.05, 0.6) * rise(up, 0.3, 0.8),
                "upside down": rise(-up, 0.2, 0.7),
                "flipping": rise(low, 0.02, 0.3) * fall(up, -0.2, 0.6),
                # A body that is up, with a foot off the floor and not high over it: speed is in no picture.
                "running": rise(height, 0.4, 0.8) * rise(up, 0.4, 0.8) * rise(lifted, 0.05, 0.25)
                * fall(low, 0.1, 0.3),
                "leaning forward": band(front_down, 0.15, 0.4, 0.75, 0.95) * rise(up, 0.0, 0.3),
                "leaning back": band(-front_down, 0.15, 0.4, 0.75, 0.95) * rise(up, 0.0, 0.3),
            }
            | {self.name: np.ones_like(up)}
        )  # fmt: skip

    def geometry(self, frames: Columns, mirror: bool) -> np.ndarray:
        """See `Scene`: places of the bodies; of the ant, whose legs look alike, only their heights in order."""
        view, points, up = frames["view"], frames["points"], frames["torso_up"]

        def across(at: np.ndarray) -> np.ndarray:
            sideways = at[..., 0] * view[:, 1, None] - at[..., 1] * view[:, 0, None]
            return -sideways if mirror else sideways

        columns = [across(up[:, None]), (up * view).sum(axis=1)[:, None], up[:, 2:], frames["lowest"][:, None]]
        heights = points[:, :, 2]
        columns += [heights, across(points)] if "pitch" in frames else [heights[:, :1], np.sort(heights[:, 1:], axis=1)]
        return np.concatenate(columns, axis=1)

    def _posed(
        self, env: Any, rng: np.random.Generator, joints: float, tilt: float, lift: float
    ) -> np.ndarray:  # fmt: skip
        """Draw a pose.

        Args:
            env: Its data are used.
            rng: Source of everything that is random.
            joints: How far the joints go from how the robot starts towards anywhere in their limits, 0 to 1.
            tilt: Spread of the trunk's tilt in rad.
            lift: Up to how far it is above the floor, in m.
        """
        import mujoco

        qpos = env.init_qpos.copy()
        first = 1 if env._is_free else 3
        low, high = env.model.jnt_range[first:].T
        index = env.model.jnt_qposadr[first:]
        own = qpos[index]
        if env._is_free:  # the ant is built with its legs out of their limits
            own = 0.5 * (low + high)
        qpos[index] = (
            own + joints * rng.random() * (rng.uniform(low, high) - own) + 0.03 * rng.standard_normal(len(own))
        )
        if env._is_free:
            around = rng.uniform(-np.pi, np.pi)
            angle = tilt * rng.standard_normal() if tilt < 3 else rng.uniform(-np.pi, np.pi)
            turn, yaw = np.zeros(4), np.zeros(4)
            mujoco.mju_axisAngle2Quat(turn, np.array([np.cos(around), np.sin(around), 0.0]), angle)
            mujoco.mju_axisAngle2Quat(yaw, np.array([0.0, 0.0, 1.0]), rng.uniform(-np.pi, np.pi))
            mujoco.mju_mulQuat(qpos[3:7], turn, yaw)
        else:
            qpos[2] = tilt * rng.standard_normal() if tilt < 3 else rng.uniform(-np.pi, np.pi)
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:] = qpos
        mujoco.mj_forward(env.model, env.data)
        height = 2 if env._is_free else 1
        env.data.qpos[height] += lift * rng.random() - lowest_point(env.model, env.data)
        mujoco.mj_forward(env.model, env.data)
        return self._anywhere(env.data.qpos, rng)

    def _torques(self, env: Any, rng: np.random.Generator, standing: bool) -> Iterator[tuple[str, np.ndarray]]:
        """Random torques that last a while, from standing or from a pose; none at all at times."""
        import mujoco

        if standing:
            env.reset(seed=int(rng.integers(2**31)))
        else:
            self._posed(env, rng, 0.7, rng.choice([0.3, 1.5]), rng.choice([0.0, 0.8]))
        size, hold = rng.choice([0.0, 0.3, 1.0]), rng.choice([1, 5, 20])
        steps = round(1.6 / env.dt)
        chosen = set(rng.choice(steps, min(5, steps), replace=False).tolist())
        for t in range(steps):
            if t % hold == 0:
                env.data.ctrl[:] = size * rng.uniform(-1, 1, env.model.nu)
            mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
            if not np.isfinite(env.data.qpos).all() or abs(env.data.qpos).max() > 50:
                return
            if t in chosen:
                yield "torques", self._anywhere(env.data.qpos, rng)

    def _anywhere(self, qpos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shift a state along the floor, whose squares lie elsewhere then."""
        moved = qpos.copy()
        moved[0] = rng.uniform(-2, 2)
        return moved


PLANAR = {
    "hopper": ("torso", "thigh", "leg", "foot"),
    "walker2d": ("torso", "thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left"),
    "halfcheetah": ("torso", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"),
}
HOPPER = RunnerScene(
    "hopper", Hopper, ("a hopper", "a one-legged robot", "a robot with one leg"), 1.21, 0.1, 0.05, 6, PLANAR["hopper"]
)
WALKER2D = RunnerScene(
    "walker2d",
    Walker2d,
    ("a walker", "a two-legged robot", "a robot with two legs"),
    1.21,
    0.1,
    0.05,
    9,
    PLANAR["walker2d"],
)
HALFCHEETAH = RunnerScene(
    "halfcheetah",
    HalfCheetah,
    ("a cheetah", "a half cheetah", "a robot cheetah"),
    0.57,
    0.1,
    0.11,
    9,
    PLANAR["halfcheetah"],
)
ANT = RunnerScene(
    "ant",
    Ant,
    ("an ant", "a four-legged robot", "a robot with four legs"),
    0.53,
    0.25,
    0.32,
    15,
    ("torso", "aux_1", "aux_2", "aux_3", "aux_4"),
)
