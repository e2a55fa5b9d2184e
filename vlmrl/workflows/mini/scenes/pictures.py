"""Stages: MuJoCo scenes in three render profiles, and scenes that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from vlmrl.envs.cameras import PROFILES, Camera, MujocoFrames
from vlmrl.envs.mujoco_scene import lowest_point

# How often each profile and camera is drawn. What the tasks use is drawn most; other profiles cost ten times as much.
PROFILE_SHARES = {"lean": 0.9, "default": 0.04, "paper": 0.06}
CAMERA_SHARES = {"task": 0.74, "named": 0.12, "moved": 0.14}


class MujocoStage:
    """A MuJoCo environment of the suite, seen by its own cameras and moved ones.

    Args:
        make: Builds the environment, which is only posed, never stepped.
        size: Pixels, both ways.
        task_camera: Name of the camera that the tasks look through.
        points: Bodies whose places are returned as `points` (n, 3), in m, x and y counted from the torso's.
    """

    def __init__(self, make: Callable[[], Any], size: int, task_camera: str, points: Sequence[str] = ()):
        self._make, self._size, self._task_camera, self._points = make, size, task_camera, points
        self._sets: dict[str, tuple[Any, MujocoFrames, _Look]] = {}

    def shoot(self, state: np.ndarray, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """See `scene.Stage`; also `view` (3,), the horizontal unit direction in which the camera looks."""
        import mujoco

        profile = "lean" if rng is None else str(rng.choice(PROFILES, p=[PROFILE_SHARES[name] for name in PROFILES]))
        env, frames, look = self._set(profile)
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:] = state
        mujoco.mj_forward(env.model, env.data)
        name, camera = self._task_camera, env.cameras[self._task_camera]
        if rng is not None:
            name, camera = _camera(rng, env.cameras, self._task_camera)
            look.change(rng)
        azimuth = np.deg2rad(camera.azimuth)
        columns = {
            "pixels": frames.render(env.data, camera),
            "camera": np.array(name),
            **env.simulator_state(),
            "lowest": np.float32(lowest_point(env.model, env.data)),
            "view": np.array([np.cos(azimuth), np.sin(azimuth), 0], dtype=np.float32),
        }
        if self._points:
            places = np.stack([env.data.body(body).xpos for body in self._points])
            places[:, :2] -= env.data.body("torso").xpos[:2]
            columns["points"] = places.astype(np.float32)
        return columns

    def close(self) -> None:
        """See `scene.Stage`."""
        for env, frames, _ in self._sets.values():
            frames.close()
            env.close()
        self._sets = {}

    def _set(self, profile: str) -> tuple[Any, MujocoFrames, _Look]:
        if profile not in self._sets:
            env = self._make()
            frames = MujocoFrames(env.model, self._size, self._size, profile)  # type: ignore[arg-type]  # one of PROFILES
            self._sets[profile] = env, frames, _Look(env.model)
        return self._sets[profile]


class DrawnStage:
    """An environment that draws itself, in one or several looks.

    Args:
        looks: {name: (share, builds the environment for pictures of (size, size))}; the first is what tasks use.
        put: Sets the environment's state from a state vector.
    """

    def __init__(self, looks: Mapping[str, tuple[float, Callable[[], Any]]], put: Callable[[Any, np.ndarray], None]):
        self._shares = {name: share for name, (share, _) in looks.items()}
        self._envs = {name: make() for name, (_, make) in looks.items()}
        for env in self._envs.values():
            env.reset(seed=0)
        self._put = put

    def shoot(
        self, state: np.ndarray, rng: np.random.Generator | None = None, look: str | None = None
    ) -> dict[str, np.ndarray]:
        """See `scene.Stage`; `camera` is the look, which may be asked for."""
        names = list(self._shares)
        if look is None:
            look = names[0] if rng is None else str(rng.choice(names, p=list(self._shares.values())))
        env = self._envs[look]
        self._put(env, state)
        pixels = env.render()
        if rng is not None and rng.random() < 0.4:
            pixels = _moved(pixels, rng)
        return {"pixels": pixels, "camera": np.array(look), **env.simulator_state()}

    def close(self) -> None:
        """See `scene.Stage`."""
        for env in self._envs.values():
            env.close()


class _Look:
    """Light, colours and the grain of the floor, drawn anew for a third of the pictures."""

    def __init__(self, model: Any):
        names = ("light_diffuse", "light_dir", "geom_rgba", "mat_rgba", "mat_texrepeat")
        self._arrays = {name: getattr(model, name) for name in names}
        self._own = {name: array.copy() for name, array in self._arrays.items()}

    def change(self, rng: np.random.Generator) -> None:
        for name, array in self._arrays.items():
            array[:] = self._own[name]
        if rng.random() < 0.33:
            self._arrays["light_diffuse"][:] *= rng.uniform(0.6, 1.1)
            self._arrays["light_dir"][:, :2] += rng.uniform(-0.6, 0.6, 2)
            self._arrays["geom_rgba"][0, :3] *= rng.uniform(0.7, 1.2, 3)
            self._arrays["geom_rgba"][1:, :3] *= rng.uniform(0.75, 1.2, 3)
            self._arrays["mat_rgba"][:, :3] *= rng.uniform(0.75, 1.2, (len(self._own["mat_rgba"]), 3))
            self._arrays["mat_texrepeat"][:] *= rng.uniform(0.6, 1.6)


def _camera(rng: np.random.Generator, cameras: Mapping[str, Camera], task_camera: str) -> tuple[str, Camera]:
    """Draw the task's camera, another named one, or the task's moved a little or turned anywhere."""
    kind = rng.choice(list(CAMERA_SHARES), p=list(CAMERA_SHARES.values()))
    own = cameras[task_camera]
    if kind == "task":
        return task_camera, own
    if kind == "named":
        name = str(rng.choice([name for name in cameras if name != task_camera]))
        return name, cameras[name]
    moved = replace(
        own,
        distance=own.distance * rng.uniform(0.85, 1.2),
        elevation=own.elevation + rng.uniform(-8, 6),
        azimuth=rng.uniform(0, 360) if rng.random() < 0.4 else own.azimuth + rng.uniform(-25, 25),
        lookat=(own.lookat[0], own.lookat[1], own.lookat[2] + rng.uniform(-0.15, 0.15)),
    )
    return "moved", moved


def _moved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, scale and tint a drawn picture, as another camera and light would."""
    size = len(pixels)
    scale, shift = rng.uniform(0.85, 1.1), rng.uniform(-0.06, 0.06, 2) * size
    turn = np.array([[scale, 0, (1 - scale) * size / 2 + shift[0]], [0, scale, (1 - scale) * size / 2 + shift[1]]])
    moved = cv2.warpAffine(pixels, turn, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return (moved * rng.uniform(0.75, 1.1, 3)).clip(0, 255).astype(np.uint8)
