"""The cart and pole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vlmrl.envs.cartpole import CartPole
from vlmrl.workflows.mini.scenes.pictures import DrawnStage
from vlmrl.workflows.mini.scenes.scene import Columns, Scene, Stage, band, fall, float32, rise


class CartPoleScene(Scene):
    """A state is the cart's place (m) and the pole's angle (rad, clockwise from upright)."""

    name = "cartpole"
    share = 2.0
    size = 2
    identities = ("pole and cart",)
    weights = {"upright": 3.0}
    mirrored = {
        "tilted left": "tilted right",
        "tilted right": "tilted left",
        "cart left": "cart right",
        "cart right": "cart left",
    }
    phrases = {
        "pole and cart": (
            "pole and cart",
            "a pole on a cart",
            "a cart with a pole",
            "a cart and a pole",
            "a picture of a cart and pole",
        ),
        "upright": (
            "pole vertically upright on top of the cart",
            "a pole standing upright on a cart",
            "a cart balancing a vertical pole",
            "a vertical pole on a cart",
            "the pole is upright",
            "pole balanced upright on the cart",
            "an upright pole on top of a cart",
            "the cart balances the pole",
            "the pole points straight up",
        ),
        "tilted": (
            "a tilted pole on a cart",
            "the pole leans",
            "a pole leaning on a cart",
            "pole tilted on top of the cart",
            "pole tilted to the side",
            "the pole is tilted to one side",
        ),
        "tilted left": ("a pole tilted to the left on a cart", "pole leaning left", "the pole falls to the left"),
        "tilted right": ("a pole tilted to the right on a cart", "pole leaning right", "the pole falls to the right"),
        "horizontal": (
            "a horizontal pole on a cart",
            "pole lying horizontally beside the cart",
            "the pole is horizontal",
        ),
        "hanging": (
            "pole hanging down from the cart",
            "a pole hanging down from a cart",
            "pole hanging below the cart",
            "the pole points downwards",
            "a fallen pole under the cart",
        ),
        "cart left": ("a cart on the left", "the cart is on the left side", "a pole and a cart at the left"),
        "cart right": ("a cart on the right", "the cart is on the right side", "a pole and a cart at the right"),
        "cart centred": (
            "a cart in the middle",
            "the cart is in the centre",
            "a pole and a cart in the middle of the track",
        ),
        "cart at the edge": ("a cart at the edge", "the cart is at the end of its track"),
    }

    def states(self, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """See `Scene`."""
        while True:
            angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.6 else np.deg2rad(15) * rng.standard_normal()
            yield "drawn", np.array([rng.uniform(-2.4, 2.4), angle])

    def random_policy(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """See `Scene`."""
        env = CartPole(start="mixed")
        while True:
            env.reset(seed=int(rng.integers(2**31)))
            for t in range(200):
                env.step(int(rng.integers(2)))
                if t % 20 == 19:
                    state = env.simulator_state()
                    yield np.array([state["x"], state["angle"]], dtype=np.float64)

    def stage(self, size: int) -> Stage:
        """See `Scene`."""
        return DrawnStage(
            {"front": (1.0, lambda: CartPole(render_mode="rgb_array", width=size, height=size))},
            _put,
        )

    def truths(self, frames: Columns) -> dict[str, np.ndarray]:
        """See `Scene`; reads `x` (m) and `angle` (rad, -pi to pi)."""
        x, angle = frames["x"], np.rad2deg(frames["angle"])
        tilt = np.abs(angle)
        return float32(
            {
                "pole and cart": np.ones_like(x),
                # Half of it is steep, to balance by, and half goes all the way round, to swing up by.
                "upright": 0.5 * np.exp(-tilt / 15) + 0.25 * (1 + np.cos(frames["angle"])),
                "tilted": band(tilt, 8, 25, 60, 80),
                "tilted left": band(-angle, 5, 20, 70, 90),
                "tilted right": band(angle, 5, 20, 70, 90),
                "horizontal": band(tilt, 60, 80, 100, 120),
                "hanging": rise(tilt, 110, 170),
                "cart left": rise(-x, 0.3, 1.5),
                "cart right": rise(x, 0.3, 1.5),
                "cart centred": fall(np.abs(x), 0.3, 1.2),
                "cart at the edge": rise(np.abs(x), 1.9, 2.3),
            }
        )

    def geometry(self, frames: Columns, mirror: bool) -> np.ndarray:
        """See `Scene`."""
        sign = -1 if mirror else 1
        return np.stack([sign * frames["x"], np.cos(frames["angle"]), sign * np.sin(frames["angle"])], axis=1)


def _put(env: Any, state: np.ndarray) -> None:
    env.state = np.array([state[0], 0.0, state[1], 0.0])
