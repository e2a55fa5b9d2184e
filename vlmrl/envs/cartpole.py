"""The cart and pole of classic control, with nothing that ends an episode early."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle

from vlmrl.errors import unknown


class CartPole(CartPoleEnv, EzPickle):
    """A pole on a cart that may swing all the way round, in episodes of 200 steps (4 s).

    | what | value |
    | --- | --- |
    | action | 0 pushes the cart to the left, 1 to the right, with 10 N |
    | observation | (4,) float32: cart position (m), velocity (m/s), pole angle (rad), angular velocity (rad/s) |
    | reward | 1 a step |
    | start | upright, or hanging down, uniform noise of 0.05 on each entry |
    | termination | never: the cart stops at the ends of its track (2.4 m), the angle wraps at pi |
    | time step | 0.02 s |

    As in VLM-RM (Rocamonde et al. 2023, section 4.2): a fallen pole must be seen by the reward, not by the episode's
    end.

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels; the scene of 600 by 400 is squeezed into it, as CLIP's preprocessing does.
        camera: "front", the only one.
        start: "upright", "hanging" or "mixed", half of the episodes each way.
        negative: Draw what is white black, and so on: a look that the embedded encoder has never seen.
        **kwargs: Passed on to Gymnasium's `CartPoleEnv`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}
    cameras = {"front": None}
    starts = ("upright", "hanging", "mixed")
    # For reward programs, see vlmrl.envs.abstraction.
    described_state = {
        "x": ("m, position of the cart, -2.4 to 2.4, positive to the right", ()),
        "speed": ("m/s, of the cart", ()),
        "angle": ("rad, of the pole from vertically up, -pi to pi, positive to the right", ()),
        "angular_speed": ("rad/s, of the pole", ()),
    }
    described_action = ("0 pushes the cart to the left, 1 to the right, with 10 N",)
    described_dt = 0.02
    described_notes = (
        "A cart on a level track of 4.8 m, at whose ends it stops; a pole of 1 m on a hinge on the cart, free to swing "
        "all the way round.",
    )

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        start: str = "upright",
        negative: bool = False,
        **kwargs: Any,
    ):
        if camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        if start not in self.starts:
            raise unknown("start", start, self.starts)
        EzPickle.__init__(self, render_mode, width, height, camera, start, negative, **kwargs)
        self._start = start
        super().__init__(render_mode=render_mode, **kwargs)
        self._size = (width, height)
        self._negative = negative
        # Gymnasium's bounds are those of an episode that ends at 12 degrees; here every angle and speed can be seen.
        self.observation_space = Box(
            np.array([-self.x_threshold, -np.inf, -np.pi, -np.inf], dtype=np.float32),
            np.array([self.x_threshold, np.inf, np.pi, np.inf], dtype=np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode, see `start`."""
        observation, info = super().reset(seed=seed, options=options)
        hanging = self._start == "hanging" or (self._start == "mixed" and self.np_random.random() < 0.5)
        if hanging:
            x, speed, angle, angular_speed = observation
            wrapped = angle - np.pi if angle > 0 else angle + np.pi  # within -pi to pi
            self.state = np.array([x, speed, wrapped, angular_speed])
            observation = np.array(self.state, dtype=np.float32)
        return observation, {**info, "start": "hanging" if hanging else "upright"}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by 0.02 s; never terminates."""
        self.steps_beyond_terminated = None  # Gymnasium's own count of steps after its end, which is none here
        super().step(action)
        assert self.state is not None
        x, speed, angle, angular_speed = self.state
        at_end = abs(x) > self.x_threshold
        x = float(np.clip(x, -self.x_threshold, self.x_threshold))
        angle = float((angle + np.pi) % (2 * np.pi) - np.pi)
        self.state = np.array([x, 0.0 if at_end else speed, angle, angular_speed])
        return np.array(self.state, dtype=np.float32), 1.0, False, False, {}

    def render(self) -> np.ndarray | None:
        """Return the picture, (height, width, 3) uint8 RGB, or None without a render mode."""
        frame = super().render()
        if frame is None:
            return None
        picture = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        return 255 - picture if self._negative else picture

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return float32 scalars: `x` (m), `angle` (rad), `speed` (m/s) and `angular_speed` (rad/s)."""
        assert self.state is not None
        x, speed, angle, angular_speed = np.asarray(self.state, dtype=np.float32)
        return {"x": x, "speed": speed, "angle": angle, "angular_speed": angular_speed}
