"""Clips that show how tasks are done, as frames on disk: recorded ones, or some that the suite renders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.report import tracked

FRAMES, INDEX = "frames.bin", "clips.json"
LENGTH = 24  # frames of a rendered clip
# What rendered clips lead to: environment, sentence, and the pole's angle (rad from upright) or the car's place (m)
# at the end.
GOALS = (
    ("cartpole", "pole vertically upright on top of the cart", 0.0),
    ("cartpole", "a horizontal pole on a cart", np.pi / 2),
    ("cartpole", "pole hanging down from the cart", np.pi),
    ("mountaincar", "a car at the peak of the mountain, next to the yellow flag", 0.5),
    ("mountaincar", "a car at the bottom of the valley", -0.52),
)


class Source(NamedTuple):
    """One clip: its sentence and its frames, (H, W, 3) uint8 RGB each, one by one."""

    text: str
    frames: Iterator[np.ndarray]


@dataclass(frozen=True)
class Clips:
    """Clips at an encoder's size, read from disk as they are needed.

    Attributes:
        frames: (N, H, W, 3) uint8 RGB, all frames of all clips, mapped from a file.
        starts: (n + 1,) int64, clip i has the frames starts[i] to starts[i + 1], the last excluded.
        texts: What each clip shows being done.
    """

    frames: np.ndarray
    starts: np.ndarray
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, i: int) -> np.ndarray:
        """Return the frames of clip i, (n, H, W, 3) uint8."""
        return self.frames[self.starts[i] : self.starts[i + 1]]


def gather(
    dataset: str | None, count: int, camera: str, size: tuple[int, int], folder: Path, seed: int, progress: bool
) -> Clips:
    """Write the frames of clips into a folder, or find them there.

    Args:
        dataset: What `open_dataset` takes; None renders clips.
        count: Number of clips to render.
        camera: Camera of the dataset; empty takes its first.
        size: (height, width) in pixels.
        folder: Where frames are kept.
        seed: Of rendering.
        progress: Whether to show a progress bar.

    Raises:
        UserError: The dataset has no sentences or no pictures, or a clip cannot be read.
    """
    index = folder / INDEX
    if not index.exists():
        sources = recorded(dataset, camera) if dataset is not None else rendered(count, size, seed)
        texts, starts = [], [0]
        with (folder / FRAMES).open("wb") as file:
            for source in tracked(sources, desc="gathering clips", unit="clip", show=progress):
                n = 0
                for frame in source.frames:
                    fits = frame.shape[:2] == size
                    own = frame if fits else cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA)
                    file.write(np.ascontiguousarray(own).tobytes())
                    n += 1
                if n < 2:
                    raise UserError(f"A clip of '{dataset}' has {n} frames; it takes two to learn an order from.")
                texts.append(source.text)
                starts.append(starts[-1] + n)
        index.write_text(json.dumps({"texts": texts, "starts": starts}))
    known = json.loads(index.read_text())
    shape = (known["starts"][-1], *size, 3)
    frames = np.memmap(folder / FRAMES, dtype=np.uint8, mode="c", shape=shape)  # copied where written; torch wants that
    return Clips(frames, np.array(known["starts"]), tuple(known["texts"]))


def recorded(spec: str, camera: str) -> Iterator[Source]:
    """Yield the clips of a dataset.

    Raises:
        UserError: See `gather`.
    """
    from vlmrl.datasets.base import CorruptEpisode, open_dataset

    dataset = open_dataset(spec)
    for i in range(len(dataset)):
        try:
            episode = dataset.episode(i)
            episode.check()
            own = camera or next(iter(episode.frames), "")
            if own not in episode.frames:
                there = ", ".join(episode.frames) or "none"
                raise UserError(f"dataset={spec}: clip {episode.name or i} has no camera '{own}' (it has: {there}).")
            if not episode.text.strip():
                raise UserError(
                    f"dataset={spec}: clip {episode.name or i} does not say what is done in it, which is what "
                    "is learned here. In a folder of clips, the column text of captions.csv (a line a clip) or of "
                    "steps.csv says it."
                )
            yield Source(episode.text, iter(episode.frames[own]))
        except CorruptEpisode as error:
            raise UserError(f"dataset={spec}: clip {i} {error}.") from error


def rendered(count: int, size: tuple[int, int], seed: int) -> Iterator[Source]:
    """Yield clips of `GOALS` in turn, each from another start, at another pace, and never quite straight.

    They are negatives: what is white is black. The embedded encoder has never seen such pictures, as a
    lab's camera shows what no encoder was trained on; what it knows of them it has learned here.

    Args:
        count: Number of clips.
        size: (height, width) in pixels.
        seed: Of starts and paces.
    """
    import gymnasium as gym

    import vlmrl  # noqa: F401  (registers environments)

    rng = np.random.default_rng(seed)
    envs = {
        name: gym.make(f"vlmrl/{ids}-v0", render_mode="rgb_array", height=size[0], width=size[1])
        for name, ids in (("cartpole", "CartPole"), ("mountaincar", "MountainCar"))
    }
    try:
        for env in envs.values():
            env.reset(seed=seed)
        for i in range(count):
            name, text, goal = GOALS[i % len(GOALS)]
            yield Source(text, _way(envs[name], name, goal, rng))
    finally:
        for env in envs.values():
            env.close()


def _way(env: object, name: str, goal: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the frames of a way to the goal."""
    pace = rng.uniform(0.6, 1.6)
    share = np.minimum(np.linspace(0, 1, LENGTH) ** pace * 1.15, 1)
    share = np.clip(share + 0.08 * np.sin(np.linspace(0, rng.uniform(3, 9), LENGTH)) * (1 - share), 0, 1)
    if name == "cartpole":
        side, place = rng.choice([-1.0, 1.0]), rng.uniform(-1.8, 1.8)
        starts = [angle for angle in (0.0, np.pi / 2, np.pi) if abs(angle - goal) > 0.5]
        start = float(rng.choice(starts)) + rng.uniform(-0.25, 0.25)
        states = [np.array([place, 0, side * (start + (goal - start) * s), 0]) for s in share]
    else:
        start = rng.uniform(-1.1, -0.1) if goal > 0 else rng.choice([-1.1, 0.4]) + rng.uniform(-0.05, 0.05)
        states = [np.array([start + (goal - start) * s, 0]) for s in share]
    inner = env.unwrapped  # type: ignore[attr-defined]
    for state in states:
        inner.state = state
        yield 255 - inner.render()
