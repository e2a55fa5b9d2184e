"""Pictures as they are meant to be: a renderer, camera or texture that drifts fails here.

To take new ones after a wanted change: python -m tests.envs.test_golden_pictures
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401

GOLDEN = Path(__file__).parent / "golden"
SIZE = 96
# Other versions of a renderer may differ in rounding and in single pixels along edges.
MEAN = 1.2  # grey levels that pictures may differ by in the mean
EDGES = 0.015  # share of pixels that may differ by over 40 grey levels

PICTURES = [
    *[("Humanoid", {"camera": camera}) for camera in ("front", "side", "diagonal")],
    *[("Humanoid", {"profile": "paper", "camera": camera}) for camera in ("front", "side", "diagonal")],
    ("Humanoid", {"profile": "default", "camera": "front"}),
    *[
        (name, {"camera": camera})
        for name in ("Ant", "HalfCheetah", "Hopper", "Walker2d")
        for camera in ("side", "front")
    ],
    ("HalfCheetah", {"profile": "paper", "camera": "side"}),
    ("Hopper", {"start": "fallen", "camera": "side"}),
    ("CartPole", {}),
    ("MountainCar", {"textured": True}),
    ("MountainCar", {"textured": False}),
]


def path_of(name: str, arguments: dict) -> Path:
    return GOLDEN / ("-".join([name.lower(), *[str(value).lower() for value in arguments.values()]]) + ".png")


def take(name: str, arguments: dict) -> np.ndarray:
    env = gym.make(f"vlmrl/{name}-v0", render_mode="rgb_array", width=SIZE, height=SIZE, **arguments)
    env.reset(seed=0)
    picture = env.render()
    env.close()
    return picture


def same(a: np.ndarray, b: np.ndarray) -> bool:
    difference = np.abs(a.astype(int) - b.astype(int))
    return difference.mean() <= MEAN and (difference.max(axis=2) > 40).mean() <= EDGES


@pytest.mark.parametrize(("name", "arguments"), PICTURES, ids=lambda value: str(value))
def test_the_picture_is_as_it_was(name: str, arguments: dict) -> None:
    golden = cv2.imread(str(path_of(name, arguments)))[..., ::-1]
    assert same(take(name, arguments), golden)


def test_the_tolerance_tells_pictures_apart() -> None:
    goldens = [cv2.imread(str(path_of(*picture))) for picture in PICTURES]
    assert not any(same(a, b) for i, a in enumerate(goldens) for b in goldens[:i])


@pytest.mark.parametrize(
    "drift", [{"azimuth": 183.0}, {"distance": 3.65}, {"elevation": -12.0}, {"lookat": (0.0, 0.0, 1.1)}], ids=str
)
def test_a_drifted_camera_fails(drift: dict) -> None:
    env = gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array", width=SIZE, height=SIZE).unwrapped
    env.reset(seed=0)
    env.cameras = {"front": replace(env.cameras["front"], **drift)}
    golden = cv2.imread(str(path_of("Humanoid", {"camera": "front"})))[..., ::-1]
    assert not same(env.render(), golden)
    env.close()


def test_there_are_no_others_and_they_are_small() -> None:
    files = set(GOLDEN.iterdir())
    assert files == {path_of(*picture) for picture in PICTURES}
    assert sum(file.stat().st_size for file in files) <= 200_000


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for picture in PICTURES:
        cv2.imwrite(str(path_of(*picture)), take(*picture)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
