"""Writes the row of each step into `info`, with the fields that a reward model needs and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.envs.abstraction import StateReader
from vlmrl.envs.frame_ring import FrameRing
from vlmrl.errors import UserError, unknown
from vlmrl.quantities import Path
from vlmrl.rows import FIELDS, Row

ROW = "vlmrl_row"  # key of the row in info


class RowWriter(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Adds `info["vlmrl_row"]`, a `Row`, to every reset and step.

    A frame is what the world looks like at that step: the last row of an episode shows its last state, before any
    automatic reset.

    Args:
        env: Made with `render_mode="rgb_array"` if `fields` has "frames" or "embeddings".
        fields: Row fields to produce. "embeddings" are made from frames elsewhere, so they ask for frames.
        cameras: Cameras to look through; environments without named cameras have the one of their `render()`.
        at_reset: Whether the reset row carries fields too; a reward that looks at no earlier row never reads them.
        every: Draw a frame at every so many steps only: at t = 1, 1 + every, ..., and at an episode's last step.
        ring: Memory that pictures are put into, where another process reads the rows.
        quantities: Which of the environment's quantities the field of that name holds; None is all.

    Raises:
        UserError: A field that this environment cannot give, or a camera that it does not have.
    """

    def __init__(
        self,
        env: gym.Env,
        fields: Iterable[str],
        cameras: Iterable[str] = ("front",),
        at_reset: bool = True,
        every: int = 1,
        ring: FrameRing | None = None,
        quantities: Collection[Path] | None = None,
    ):
        fields, cameras = frozenset(fields), tuple(cameras)
        gym.utils.RecordConstructorArgs.__init__(
            self, fields=fields, cameras=cameras, at_reset=at_reset, every=every, quantities=quantities
        )
        gym.Wrapper.__init__(self, env)
        for field in fields - FIELDS:
            raise unknown("row field", field, FIELDS)
        self._fields, self._cameras, self._at_reset, self._every = fields, cameras, at_reset, every
        self._ring = ring
        self._t = 0
        self._said: Counter[str] = Counter()  # in this episode
        self._frames = bool(fields & {"frames", "embeddings"})
        if self._frames and env.render_mode != "rgb_array":
            raise UserError(
                f"This reward looks at frames, but the environment was made with render_mode={env.render_mode!r}. "
                "Make it with render_mode='rgb_array'."
            )
        if self._frames:
            check_cameras(env, cameras)
        if "state" in fields and not hasattr(env.unwrapped, "simulator_state"):
            raise UserError(
                f"This reward reads simulator state, which {env.unwrapped} does not offer (simulator_state())."
            )
        self._quantities = StateReader(env, quantities) if "quantities" in fields else None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and write row 0."""
        observation, info = self.env.reset(**kwargs)
        if "text" in self._fields and "text" not in info:
            raise UserError(
                f"This reward reads what the environment says, and {self.env.unwrapped} says nothing (info['text']). "
                "env=nethack, minihack, minigrid, babyai and crafter do."
            )
        self._t = 0
        self._said.clear()
        self._said[_text(info)] += 1
        info[ROW] = self._write(observation, info, draw=True) if self._at_reset else Row()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and write the row of the state that was reached."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._t += 1
        self._said[_text(info)] += 1
        row = self._write(observation, info, draw=(self._t - 1) % self._every == 0 or terminated or truncated)
        row.action = np.array(action) if "action" in self._fields else None
        row.reward = float(reward)
        row.native_reward = float(info.get("original_reward", reward))
        row.terminated, row.truncated = bool(terminated), bool(truncated)
        row.success = info.get("predicate")
        info[ROW] = row
        return observation, reward, terminated, truncated, info

    def _write(self, observation: Any, info: dict[str, Any], draw: bool) -> Row:
        row = Row()
        if self._frames and draw:
            row.frames = look(self.env, self._cameras)
            if self._ring is not None:
                self._ring.put(row)
        if "observation" in self._fields:
            row.observation = observation
        if "state" in self._fields:
            row.state = self.env.unwrapped.simulator_state()  # type: ignore[attr-defined]
        if self._quantities is not None:
            row.quantities = self._quantities()
        if "text" in self._fields:
            row.text = _text(info)
        if "text_count" in self._fields:
            row.text_count = self._said[_text(info)]
        return row


def _text(info: dict[str, Any]) -> str:
    """Return what the environment said, as `info["text"]` has it; empty where it says nothing."""
    return str(info.get("text", ""))


def check_cameras(env: gym.Env, cameras: Sequence[str]) -> None:
    """Refuse cameras that an environment has not.

    Raises:
        UserError: It has others, or one view without a name and several are asked for.
    """
    named = getattr(env.unwrapped, "cameras", None)
    if named is not None:
        for camera in cameras:
            if camera not in named:
                raise unknown("camera", camera, named)
    if len(cameras) > 1 and not hasattr(env.unwrapped, "render_camera"):
        raise UserError(
            f"This reward looks through {' and '.join(cameras)}, but {env.unwrapped} has the one view of its "
            "render(). Name one camera."
        )


def look(env: gym.Env, cameras: Iterable[str]) -> dict[str, np.ndarray]:
    """Take a picture of where an environment is now through each camera.

    Args:
        env: Made with `render_mode="rgb_array"`.
        cameras: Names; an environment without named cameras gives the one view of its `render()` under the first.

    Returns:
        {camera: (H, W, 3) uint8 RGB}.

    Raises:
        UserError: The environment draws something else.
    """
    render_camera = getattr(env.unwrapped, "render_camera", None)
    if render_camera is None:
        return {next(iter(cameras)): _picture(env.render())}
    return {camera: _picture(render_camera(camera)) for camera in cameras}


def _picture(frame: Any) -> np.ndarray:
    """Check what an environment rendered: (H, W, 3) uint8 RGB."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        shape = getattr(frame, "shape", None)
        raise UserError(
            f"render() gave {type(frame).__name__} of shape {shape}; a picture of shape (H, W, 3), uint8 RGB is needed."
        )
    return frame
