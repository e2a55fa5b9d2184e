"""The mountain car, on its painted mountain and on Gymnasium's bare line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vlmrl.envs.mountaincar import MountainCar
from vlmrl.workflows.mini.scenes.pictures import DrawnStage
from vlmrl.workflows.mini.scenes.scene import Columns, Scene, band, fall, float32, rise


class MountainCarScene(Scene):
    """A state is the car's place (m). The mountain is not mirrored: its flag stands on the right."""

    name = "mountaincar"
    share = 2.0
    size = 1
    mirrors = False
    identities = ("car",)
    weights = {"at the flag": 3.0}
    phrases = {
        "car": (
            "a car in the mountain",
            "a car in the mountains",
            "a car on a mountain",
            "a red car on a mountain",
            "a small car and a mountain",
            "a car and a flag",
            "a picture of a car on a mountain",
        ),
        "at the flag": (
            "a car at the peak of the mountain, next to the yellow flag",
            "a car at the peak of the mountain",
            "a car next to the yellow flag",
            "a car at the flag",
            "the car has reached the flag",
            "a car on top of the mountain",
            "a red car at the mountain peak next to the yellow flag",
            "the car is beside the flag on the top",
        ),
        "bottom": (
            "a car at the bottom of the valley",
            "a car in the valley",
            "the car is at the bottom",
            "a red car at the bottom of the valley",
            "a car down between the slopes",
        ),
        "slope": (
            "a car on the slope of the mountain",
            "a car on a slope",
            "the car is half way up",
            "a car on the side of the mountain",
        ),
        "left slope": ("a car on the left slope", "the car is on the left", "a car on the left side of the valley"),
        "right slope": ("a car on the right slope", "the car is on the right", "a car on the right side of the valley"),
        "high": ("a car high on the mountain", "a car high up", "the car is high above the valley"),
        "low": ("a car low in the valley", "a car far down", "the car is low"),
        "left end": ("a car at the left edge", "a car on top of the left slope", "the car is at the left end"),
        "near the flag": ("a car near the flag", "the car is close to the flag", "a car just below the peak"),
    }

    def states(self, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """See `Scene`."""
        while True:
            kind = rng.random()
            if kind < 0.6:
                x = rng.uniform(-1.2, 0.6)
            elif kind < 0.85:  # where the degree of the task's sentence is steep
                x = np.clip(0.45 + 0.12 * rng.standard_normal(), -1.2, 0.6)
            else:
                x = np.clip(-0.52 + 0.15 * rng.standard_normal(), -1.2, 0.6)
            yield "drawn", np.array([x])

    def random_policy(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """See `Scene`."""
        env = MountainCar()
        while True:
            env.reset(seed=int(rng.integers(2**31)))
            for t in range(200):
                env.step(rng.uniform(-1, 1, 1).astype(np.float32))
                if t % 20 == 19:
                    yield np.array([env.simulator_state()["x"]], dtype=np.float64)

    def stage(self, size: int) -> DrawnStage:
        """See `Scene`."""

        def look(textured: bool) -> Callable[[], MountainCar]:
            return lambda: MountainCar(render_mode="rgb_array", width=size, height=size, textured=textured)

        return DrawnStage({"textured": (0.5, look(True)), "plain": (0.5, look(False))}, _put)

    def truths(self, frames: Columns) -> dict[str, np.ndarray]:
        """See `Scene`; reads `x` in m. The valley's bottom is at -0.52 m, the flag at 0.45 m."""
        x = frames["x"]
        height = 0.5 + 0.5 * np.sin(3 * x)  # 0 at the bottom, 1 at the top
        return float32(
            {
                "car": np.ones_like(x),
                # Part of it goes all the way up, to climb by, and part is steep near the flag, to stay by.
                "at the flag": 0.35 * rise(x, -0.5, 0.45) + 0.65 * rise(x, 0.2, 0.46),
                "bottom": fall(np.abs(x + 0.52), 0.08, 0.4),
                "slope": band(height, 0.1, 0.3, 0.7, 0.95) * fall(np.abs(x), 1.0, 1.2),
                "left slope": rise(-0.52 - x, 0.05, 0.3),
                "right slope": rise(x + 0.52, 0.05, 0.3) * fall(x, 0.35, 0.5),
                "high": rise(height, 0.3, 0.95),
                "low": fall(height, 0.05, 0.6),
                "left end": rise(-x, 0.9, 1.15),
                "near the flag": band(x, 0.0, 0.2, 0.45, 0.6),
            }
        )

    def geometry(self, frames: Columns, mirror: bool) -> np.ndarray:
        """See `Scene`."""
        if mirror:
            raise ValueError("The mountain is not mirrored.")
        return np.stack([frames["x"], np.sin(3 * frames["x"]), np.cos(3 * frames["x"])], axis=1)


def _put(env: Any, state: np.ndarray) -> None:
    env.state = np.array([state[0], 0.0])
