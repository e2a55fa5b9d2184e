"""Cameras and the pictures that they take of a MuJoCo simulation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlmrl.envs.gl import no_opengl, prepare_context
from vlmrl.envs.paper_look import repaint

if TYPE_CHECKING:
    import mujoco

RenderProfile = Literal["lean", "default", "paper"]
PROFILES: tuple[RenderProfile, ...] = ("lean", "default", "paper")


@dataclass(frozen=True)
class Camera:
    """A free camera.

    Attributes:
        distance: Distance from the point that it looks at, in m.
        lookat: The point that it looks at, (x, y, z) in m, relative to the tracked body where there is one.
        elevation: Angle above (positive: looking up) the horizontal, in degrees.
        azimuth: Direction of view around the vertical, in degrees; 180 looks along -x.
        track: Name of a body whose x and y the camera follows; empty for a camera that stays where it is.
        fovy: Vertical field of view in degrees; None takes the model's.
        mirrored: Whether left and right are exchanged.
        without: Name of a body that is left out of the picture, with all that hangs on it; empty for none.
    """

    distance: float
    lookat: tuple[float, float, float]
    elevation: float
    azimuth: float
    track: str = ""
    fovy: float | None = None
    mirrored: bool = False
    without: str = ""


class MujocoFrames:
    """Renders a MuJoCo simulation at the size at which it is used.

    The "lean" profile leaves out shadows, reflections and multisampling: on a CPU they take over nine tenths of the
    time of a small picture and change its pixels by less than one grey level in the mean. "default" is what
    `gymnasium` draws. "paper" draws it with the sky, floor and skin of VLM-RM's pictures, see `paper_look`.

    Args:
        model: The simulation's model; its visual settings are changed for the profile.
        height: Picture height in pixels.
        width: Picture width in pixels.
        profile: "lean", "default" or "paper".

    Raises:
        UserError: No OpenGL context can be had.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, profile: RenderProfile = "lean"):
        prepare_context()
        import mujoco

        if profile == "lean":
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        elif profile == "paper":
            repaint(model)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # drivers fail in many ways, and all of them need the same advice
            raise no_opengl(f"{type(error).__name__}: {error}") from error
        self._model = model
        self._profile = profile
        self._fovy = float(model.vis.global_.fovy)

    def render(self, data: mujoco.MjData, camera: Camera) -> np.ndarray:
        """Take a picture.

        Args:
            data: State of the simulation.
            camera: Where to look from.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        import mujoco

        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FREE
        view.distance, view.elevation, view.azimuth = camera.distance, camera.elevation, camera.azimuth
        view.lookat[:] = camera.lookat
        if camera.track:
            view.lookat[:2] += data.body(camera.track).xpos[:2]
        self._model.vis.global_.fovy = self._fovy if camera.fovy is None else camera.fovy
        # Floors without end are centred on where the last picture was taken from; make that here.
        mujoco.mjv_updateCamera(self._model, data, view, self._renderer.scene)
        with self._without(camera.without):
            self._renderer.update_scene(data, view)
        if self._profile == "lean":
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        picture = self._renderer.render()
        return np.ascontiguousarray(picture[:, ::-1]) if camera.mirrored else picture

    @contextmanager
    def _without(self, body: str) -> Iterator[None]:
        """Make a body invisible, with all that hangs on it: MuJoCo leaves out what is wholly transparent."""
        if not body:
            yield
            return
        model = self._model
        hidden = {model.body(body).id}
        for child in range(model.nbody):  # in a model, parents come before their children
            if model.body_parentid[child] in hidden:
                hidden.add(child)
        geoms = np.isin(model.geom_bodyid, list(hidden))
        alpha = model.geom_rgba[geoms, 3].copy()
        model.geom_rgba[geoms, 3] = 0.0
        try:
            yield
        finally:
            model.geom_rgba[geoms, 3] = alpha

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
