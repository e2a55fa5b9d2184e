"""What a video-text model learns from: frames on disk, clips of them, and what each clip shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmrl.envs.crafter_text import ACHIEVEMENTS
from vlmrl.errors import UserError
from vlmrl.reward_models.video import clip_indices
from vlmrl.workflows.liv.clips import gather
from vlmrl.workflows.report import tracked
from vlmrl.workflows.video import phrases
from vlmrl.workflows.video.play import ENTITIES, FACED, NAMES, Scene, scenes

FRAMES, INDEX, ARRAYS = "frames.bin", "footage.json", "footage.npz"
FEWEST = 6  # frames of a scene; below, the player died at once
RECENT = 3  # frames before a clip's end in which a behaviour tells what the clip shows
LEAST_PART = 0.6  # of a recorded clip, that a window of it has


@dataclass(frozen=True)
class Footage:
    """Frames, and W clips of T of them.

    Attributes:
        frames: (N, H, W, 3) uint8 RGB, mapped from a file.
        clips: (W, T) int64 numbers of frames, in the order of time.
        shown: What each clip shows, one or several of `meanings`.
        group: (W,) int64, which scene or recording a clip is from.
        state: (N, S) float32, what the game says of each frame, see `play.STATE`; None for recordings.
        sizes: (W, 22) float32, greatest share of the picture, 0 to 1, that what each achievement is about takes in any
            frame of a clip; None for recordings.
    """

    frames: np.ndarray
    clips: np.ndarray
    shown: tuple[tuple[str, ...], ...]
    group: np.ndarray
    state: np.ndarray | None = None
    sizes: np.ndarray | None = None

    @property
    def meanings(self) -> list[str]:
        """All that clips show, sorted."""
        return sorted({meaning for own in self.shown for meaning in own})

    def split(self, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Divide the clips, by scenes or recordings: numbers of those to learn from, and of those held out.

        Raises:
            UserError: There are too few.
        """
        groups = np.random.default_rng(seed).permutation(np.unique(self.group))
        held_out = np.isin(self.group, groups[: round(share * len(groups))])
        if not held_out.any() or len(groups) - round(share * len(groups)) < 2:
            raise UserError(
                f"{len(groups)} clips are too few to learn from some and measure on others; bring more, or change "
                "fit.held_out."
            )
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def size(self, clip: int, meaning: str) -> float:
        """Share of the picture that what a sentence is about takes; 1 where it is about nothing that is seen."""
        kind, _, name = meaning.partition(":")
        if self.sizes is None or kind != "achievement" or name not in ENTITIES:
            return 1.0
        return float(self.sizes[clip, NAMES.index(name)])


def say(meaning: str, rng: np.random.Generator) -> str:
    """Put into words what a clip shows."""
    kind, _, name = meaning.partition(":")
    ways: dict[str, Callable[[], str]] = {
        "achievement": lambda: phrases.achievement(name, rng),
        "behaviour": lambda: phrases.behaviour(name, rng),
        "text": lambda: name,
    }
    return ways[kind]()


def plainly(meaning: str) -> str:
    """Put it into the suite's own words."""
    kind, _, name = meaning.partition(":")
    if kind == "achievement":
        return ACHIEVEMENTS[name]
    return phrases.BEHAVIOURS[name][0] if kind == "behaviour" else name


def from_play(count: int, length: int, size: tuple[int, int], folder: Path, seed: int, progress: bool) -> Footage:
    """Play Crafter into a folder, or find what was played there.

    Every frame of a scene ends a clip; where the scene is younger than a clip is long, its first frame stands in for
    those before it, as in the reward.

    Args:
        count: Number of scenes.
        length: Frames T of a clip.
        size: (height, width) in pixels.
        folder: Where frames are kept.
        seed: Of everything.
        progress: Show a progress bar.
    """
    if not (folder / ARRAYS).exists():
        kept: dict[str, list[np.ndarray]] = {"state": [], "clips": [], "group": [], "sizes": []}
        shown: list[list[str]] = []
        n = 0
        with (folder / FRAMES).open("wb") as file:
            played = tracked(scenes(count, size, seed), total=count, desc="playing", unit="scene", show=progress)
            for i, scene in enumerate(played):
                if len(scene.frames) < FEWEST:
                    continue
                file.write(scene.frames.tobytes())
                places = clip_indices(0, len(scene.frames) - 1, length)
                kept["clips"].append(places + n)
                kept["state"].append(scene.state)
                kept["group"].append(np.full(len(places), i))
                kept["sizes"].append(_sizes(scene)[places].max(axis=1))
                shown += [_shown(scene, own) for own in places]
                n += len(scene.frames)
        (folder / INDEX).write_text(json.dumps(shown))
        np.savez(folder / ARRAYS, **{name: np.concatenate(parts) for name, parts in kept.items()})  # type: ignore[arg-type]
    arrays = np.load(folder / ARRAYS)
    return Footage(
        _map(folder, len(arrays["state"]), size),
        arrays["clips"],
        tuple(tuple(own) for own in json.loads((folder / INDEX).read_text())),
        arrays["group"],
        arrays["state"],
        arrays["sizes"],
    )


def from_recordings(
    spec: str, camera: str, windows: int, length: int, size: tuple[int, int], folder: Path, seed: int, progress: bool
) -> Footage:
    """Copy recorded clips into a folder, at the encoder's size, or find them there.

    Each clip gives some windows, the first of which is all of it, the others parts that are drawn; T frames of a window
    at equal distances are what is learned from.

    Args:
        spec: What `open_dataset` takes.
        camera: Camera; empty takes the first.
        windows: Windows of each clip.
        length: Frames T of a window.
        size: (height, width) in pixels.
        folder: Where frames are kept.
        seed: Of the windows.
        progress: Show a progress bar.

    Raises:
        UserError: A clip cannot be read, or does not say what it shows.
    """
    copied = gather(spec, 0, camera, size, folder, seed, progress)
    rng = np.random.default_rng(seed)
    clips, group = [], []
    for i, (first, end) in enumerate(zip(copied.starts[:-1], copied.starts[1:], strict=True)):
        for k in range(windows):
            part = 1.0 if k == 0 else rng.uniform(LEAST_PART, 1)
            span = part * (end - 1 - first)
            start = first + rng.uniform(0, end - 1 - first - span) if k else first
            clips.append(np.round(np.linspace(start, start + span, length)).astype(np.int64))
            group.append(i)
    shown = tuple((f"text:{copied.texts[i]}",) for i in group)
    return Footage(copied.frames, np.stack(clips), shown, np.array(group))


def _map(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    # Copied where written, which torch wants.
    return np.memmap(folder / FRAMES, dtype=np.uint8, mode="c", shape=(count, *size, 3))


def _shown(scene: Scene, places: np.ndarray) -> list[str]:
    """Say what a clip shows: all that is achieved in it or, where that is nothing, what was done at its end."""
    # What was achieved on arriving at the first frame cannot be seen: there is no frame before it.
    achieved = scene.achieved[np.unique(places)[1:]].any(axis=0)
    if achieved.any():
        return [f"achievement:{name}" for name, is_so in zip(NAMES, achieved, strict=True) if is_so]
    recent = scene.behaviour[places[-RECENT:]].tolist()
    for telling in ("sleep", "hurt"):
        if telling in recent:
            return [f"behaviour:{telling}"]
    if recent[-1].startswith("approach"):
        return [f"behaviour:{recent[-1]}"]
    moved = np.mean(scene.behaviour[places] != "still")
    return ["behaviour:walk" if moved > 0.4 else "behaviour:still"]


def _sizes(scene: Scene) -> np.ndarray:
    """Return the share of each frame that what each achievement is about takes, (n, 22); 1 where that is nothing."""
    sizes = np.ones((len(scene.frames), len(NAMES)), dtype=np.float32)
    for name, entity in ENTITIES.items():
        sizes[:, NAMES.index(name)] = scene.shares[:, FACED.index(entity) - 1]
    return sizes
