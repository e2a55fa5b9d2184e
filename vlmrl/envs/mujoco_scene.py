"""What the suite's MuJoCo environments share: named cameras, lean pictures, starts on the feet or on the floor."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from vlmrl.envs.cameras import PROFILES, Camera, MujocoFrames, RenderProfile
from vlmrl.errors import unknown

STARTS = ("standing", "fallen", "mixed")
SETTLE = 1.0  # s that a fallen body is given to come to rest
OLDER_MUJOCO = (  # for `vlmrl.errors.require`
    "It needs an older MuJoCo than the suite is pinned to, so give it an environment of its own: make setup-metaworld "
    "makes .venv-metaworld, which has it"
)


class MujocoScene:
    """Mix-in for Gymnasium's `MujocoEnv`: `render()` draws the chosen camera at the chosen size and profile.

    Goes before Gymnasium's class among the bases; `set_view` and `set_start` come before its `__init__`,
    `pictures_only` after.
    """

    cameras: ClassVar[dict[str, Camera]]
    profiles: ClassVar[tuple[RenderProfile, ...]] = PROFILES
    starts: ClassVar[tuple[str, ...]] = STARTS
    model: Any
    data: Any
    np_random: np.random.Generator
    init_qpos: np.ndarray
    render_mode: str | None
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    _start = "standing"
    _started = "standing"
    _frames: MujocoFrames | None = None

    def set_view(self, width: int, height: int, camera: str, profile: str) -> None:
        """Choose camera, picture size in pixels and render profile; no picture is drawn yet.

        Raises:
            UserError: No such camera or profile.
        """
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        if profile not in self.profiles:
            raise unknown("render profile", profile, self.profiles)
        if self._frames is not None:
            self._frames.close()
        self._frames = None
        self._view = (height, width, camera, profile)

    def pictures_only(self) -> None:
        """Take back the render modes that Gymnasium's class claims beside "rgb_array"; call after its `__init__`.

        Raises:
            UserError: The environment was made for one of them.
        """
        if self.render_mode not in (None, "rgb_array"):
            raise unknown("render mode", self.render_mode, ["rgb_array"])
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.metadata["render_fps"]}  # type: ignore[misc]

    def set_start(self, start: str) -> None:
        """Choose how episodes start: "standing", "fallen", or "mixed", half of them each way.

        Raises:
            UserError: No such start.
        """
        if start not in self.starts:
            raise unknown("start", start, self.starts)
        self._start = start

    def reset_model(self) -> Any:
        """Start an episode; Gymnasium calls this and returns its observation."""
        observation = super().reset_model()  # type: ignore[misc]
        fallen = self._start == "fallen" or (self._start == "mixed" and self.np_random.random() < 0.5)
        self._started = "fallen" if fallen else "standing"
        if fallen:
            self.fall()
            observation = self._get_obs()  # type: ignore[attr-defined]
        return observation

    def _get_reset_info(self) -> dict[str, Any]:
        """Say in `info["start"]` how the episode starts, "standing" or "fallen"; Gymnasium calls this at a reset."""
        return {**super()._get_reset_info(), "start": self._started}  # type: ignore[misc]

    def fall(self) -> None:
        """Drop the body onto the floor with joints anywhere, and let it come to rest; draws from `np_random`."""
        import mujoco

        for _ in range(100):  # some bodies roll back onto their feet
            mujoco.mj_resetData(self.model, self.data)
            self.data.qpos[:] = self._lying(self.np_random)
            mujoco.mj_forward(self.model, self.data)
            self.data.qpos[self._height_index] += 0.01 - lowest_point(self.model, self.data)
            mujoco.mj_step(self.model, self.data, nstep=round(SETTLE / self.model.opt.timestep))
            qpos = self.data.qpos.copy()
            mujoco.mj_resetData(self.model, self.data)
            self.data.qpos[:] = qpos
            mujoco.mj_forward(self.model, self.data)
            if self.data.body("torso").xmat[8] < 0.5:  # 60 degrees from upright
                return
        raise RuntimeError(f"{type(self).__name__} did not come to lie in 100 falls.")

    @property
    def _height_index(self) -> int:
        """Index of the body's height in `qpos`: planar bodies start with x, z and pitch, free ones with x, y, z."""
        return 2 if self._is_free else 1

    @property
    def _is_free(self) -> bool:
        import mujoco

        return bool(self.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE)

    def _lying(self, rng: np.random.Generator) -> np.ndarray:
        """Draw `qpos` of a body that lies on the back, the front or a side, joints anywhere within their limits."""
        qpos = self.init_qpos.copy()
        joints = 1 if self._is_free else 3
        low, high = self.model.jnt_range[joints:].T
        qpos[self.model.jnt_qposadr[joints:]] = rng.uniform(low, high)
        tilt = np.deg2rad(rng.uniform(70, 110)) * rng.choice([-1, 1])
        if self._is_free:
            yaw, around = rng.uniform(-np.pi, np.pi), rng.uniform(-np.pi, np.pi)
            qpos[3:7] = _product(_turn(yaw, (0, 0, 1)), _turn(tilt, (np.cos(around), np.sin(around), 0)))
        else:
            qpos[2] = tilt
        return qpos

    def render_camera(self, camera: str) -> np.ndarray:
        """Return the picture of a named camera, (height, width, 3) uint8 RGB."""
        height, width, _, profile = self._view
        if self._frames is None:
            self._frames = MujocoFrames(self.model, height, width, profile)
        return self._frames.render(self.data, self.cameras[camera])

    def render(self) -> np.ndarray | None:
        """Return the picture of the chosen camera, or None where the environment was made without a render mode."""
        if self.render_mode is None:
            return None
        return self.render_camera(self._view[2])

    def close(self) -> None:
        """Free the renderer."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        super().close()  # type: ignore[misc]


def lowest_point(model: Any, data: Any) -> float:
    """Height in m of the lowest point of all moving bodies, which are made of spheres and capsules."""
    import mujoco

    moving = model.geom_bodyid > 0
    half = np.where(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE, model.geom_size[:, 1], 0.0)
    points = data.geom_xpos[:, 2] - np.abs(data.geom_xmat[:, 8]) * half - model.geom_size[:, 0]
    return float(points[moving].min())


def _turn(angle: float, axis: tuple[float, float, float]) -> np.ndarray:
    """Quaternion of a turn by an angle in rad around a unit axis."""
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * np.array(axis))])


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    import mujoco

    result = np.zeros(4)
    mujoco.mju_mulQuat(result, first, second)
    return result
