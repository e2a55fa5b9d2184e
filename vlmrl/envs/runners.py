"""What the running robots share: floor without end, cameras that follow, and the state that their tasks read."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.cameras import Camera
from vlmrl.envs.mujoco_scene import MujocoScene, lowest_point


def tracking_cameras(distance: float, height: float, elevation: float = -10.0) -> dict[str, Camera]:
    """Build cameras that follow the torso: "side" (running is to the right), "front" and "diagonal".

    Args:
        distance: Distance from the torso's axis in m.
        height: Height of the point that they look at, in m.
        elevation: See `Camera`.
    """
    azimuths = {"side": 90.0, "front": 180.0, "diagonal": 135.0}
    return {
        name: Camera(distance, (0.0, 0.0, height), elevation, azimuth, "torso") for name, azimuth in azimuths.items()
    }


class Runner(MujocoScene):
    """Mix-in for Gymnasium's running robots, whose torso is the body "torso" and which run along x.

    Goes before Gymnasium's class among the bases, whose `__init__` it calls; each robot says what its arguments are.
    """

    FEET: ClassVar[tuple[str, ...]]  # geoms
    described_notes = ("Forward is along the x axis.",)
    DEFAULTS: ClassVar[dict[str, Any]] = {}  # arguments of Gymnasium's class where ours differs from it

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "side",
        profile: str = "lean",
        start: str = "standing",
        **kwargs: Any,
    ):
        self.set_view(width, height, camera, profile)
        self.set_start(start)
        kwargs = self.DEFAULTS | kwargs
        super().__init__(render_mode=render_mode, width=width, height=height, **kwargs)  # type: ignore[call-arg]
        # What Gymnasium's class has kept for copies are its own arguments.
        EzPickle.__init__(self, render_mode, width, height, camera, profile, start, **kwargs)  # type: ignore[arg-type]
        self.pictures_only()
        self.open_floor()

    def open_floor(self) -> None:
        """Draw the floor without end: a runner leaves Gymnasium's 40 m within seconds. Contacts know no edges."""
        floor, material = self.model.geom("floor").id, self.model.mat("MatPlane").id
        self.model.geom_size[floor, :2] = 0.0
        self.model.mat_texuniform[material] = True  # squares of half a metre, wherever the runner is
        self.model.mat_texrepeat[material] = 1.0

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates and programs read, each float32 in the world's frame.

        Returns:
            `torso` (3,) its position in m; `torso_up` (3,), the torso's unit axis that points up as the robot starts;
            `velocity` (3,) of the torso in m/s; `lowest`, height of the body's lowest point in m; `feet` (n,) heights
            of the feet's centres in m; for planar robots `pitch`, the torso's whole turn since the start in rad,
            positive towards its front; `qpos` and `qvel` in m, rad, m/s and rad/s.
        """
        data = self.data
        velocity = data.qvel[:3] if self._is_free else (data.qvel[0], 0.0, data.qvel[1])
        values: dict[str, Any] = {
            "torso": data.body("torso").xpos,
            "torso_up": data.body("torso").xmat.reshape(3, 3)[:, 2],
            "velocity": velocity,
            "lowest": lowest_point(self.model, data),
            "feet": [data.geom(foot).xpos[2] for foot in self.FEET],
            "qpos": data.qpos,
            "qvel": data.qvel,
        }
        if not self._is_free:
            values["pitch"] = data.qpos[2]
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}
