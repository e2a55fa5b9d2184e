"""Pictures of environments that are not the suite's own, at the size at which they are used."""

from __future__ import annotations

import cv2
import gymnasium as gym
import numpy as np

from vlmrl.errors import UserError


class ResizedFrames(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Resizes what `render()` gives; width and height are squeezed independently, as CLIP's preprocessing does.

    Args:
        env: Made with `render_mode="rgb_array"`.
        height: Picture height in pixels.
        width: Picture width in pixels.
    """

    def __init__(self, env: gym.Env, height: int, width: int):
        gym.utils.RecordConstructorArgs.__init__(self, height=height, width=width)
        gym.Wrapper.__init__(self, env)
        self._size = (width, height)

    def render(self) -> np.ndarray:
        """Return the picture, (height, width, 3) uint8 RGB.

        Raises:
            UserError: The environment gives something else than a picture.
        """
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            shape = getattr(frame, "shape", None)
            raise UserError(
                f"render() of {self.env.unwrapped} gave {type(frame).__name__} of shape {shape}; a picture of shape "
                "(H, W, 3), uint8 RGB is needed. Choose an environment that offers render_mode='rgb_array'."
            )
        if frame.shape[1::-1] == self._size:
            return frame
        # Areas are averaged where the picture shrinks; where it grows they cannot be.
        shrinks = frame.shape[1] >= self._size[0] and frame.shape[0] >= self._size[1]
        return cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
