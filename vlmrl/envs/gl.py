"""Headless OpenGL: which backend MuJoCo uses, and one clear message where none works.

MuJoCo reads `MUJOCO_GL` when it is first imported, so `vlmrl.envs` chooses as it is imported itself: EGL on a machine
without a display, and OSMesa where EGL cannot be had.
"""

from __future__ import annotations

import ctypes.util
import importlib
import logging
import os
import sys

from vlmrl.errors import UserError

DEBIAN_PACKAGES = "libegl1 libgl1 libosmesa6"
INSTALL_LINE = f"apt-get update && apt-get install -y {DEBIAN_PACKAGES}"


def choose_backend() -> str:
    """Set `MUJOCO_GL` if it is unset and a backend can be found.

    Returns:
        "egl", "osmesa", "glfw", what the user has set, or "" where there is no OpenGL (only rendering then fails).
    """
    # PyOpenGL says at INFO level that its optional accelerator is not installed; it is of no use here.
    logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    display = sys.platform == "darwin" or bool(os.environ.get("DISPLAY"))
    if not display:  # pygame, which draws classic control, looks for one as well, whatever MuJoCo uses
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if chosen:
        return chosen
    if display:
        return "glfw"
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = backend
            # One software-rendering thread a process: more is slower when several workers share the cores.
            os.environ.setdefault("LP_NUM_THREADS", "1")
            return backend
    return ""


def prepare_context() -> None:
    """Call before an OpenGL context is created.

    Loads torch: a Mesa context that exists before triton is loaded crashes the process when triton comes.

    Raises:
        UserError: No OpenGL library is installed.
    """
    import torch  # noqa: F401

    if not choose_backend():
        raise no_opengl("no EGL or OSMesa library was found")
    import mujoco

    contexts = getattr(sys.modules[mujoco.Renderer.__module__], "gl_context", None)
    backend = os.environ.get("MUJOCO_GL")
    if contexts is not None and backend and f".{backend}." not in f".{contexts.GLContext.__module__}.":
        # Somebody imported mujoco before vlmrl.envs, and it settled for GLFW, which needs a display.
        importlib.reload(contexts)


def no_opengl(reason: object) -> UserError:
    """Build the error for a machine that cannot render."""
    return UserError(
        f"Frames cannot be rendered: {reason}. On Debian or Ubuntu run, as root: {INSTALL_LINE}. "
        "With a library installed elsewhere, set MUJOCO_GL to egl, osmesa or glfw."
    )


def main() -> None:
    """Render one small picture; `python -m vlmrl.envs.gl` is the check that `make` runs."""
    try:
        prepare_context()
        import mujoco

        model = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"
        )
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with mujoco.Renderer(model, 32, 32) as renderer:
            renderer.update_scene(data)
            if renderer.render().max() == 0:
                raise RuntimeError("the picture came out black")
    except UserError as error:
        raise SystemExit(str(error)) from None
    except Exception as error:  # whatever a broken driver raises, the user needs the same advice
        raise SystemExit(str(no_opengl(f"{type(error).__name__}: {error}"))) from None
    print(f"OpenGL works headless (MUJOCO_GL={choose_backend()}).")


if __name__ == "__main__":
    main()
