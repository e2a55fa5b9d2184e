"""What the embedded encoder is taught: frames of all scenes, degrees of truth and geometry in one table each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlmrl.workflows.mini.captions import all_truths, joined_statements, statements
from vlmrl.workflows.mini.frames import Frames
from vlmrl.workflows.mini.scenes import SCENES

STATEMENTS = statements()
JOINED = joined_statements()


@dataclass
class Lesson:
    """Frames of all scenes as the trainer wants them.

    Attributes:
        pixels: (n, 112, 112, 3) uint8.
        truths: {statement: (n,) float32, NaN where unknown}.
        mirrored: The same for mirrored pictures.
        geometry: (n, G) float32 standardised, NaN where it is another scene's.
        mirrored_geometry: The same for mirrored pictures.
        mirrors: (n,) bool, whether the picture may be mirrored.
    """

    pixels: np.ndarray
    truths: dict[str, np.ndarray]
    mirrored: dict[str, np.ndarray]
    geometry: np.ndarray
    mirrored_geometry: np.ndarray
    mirrors: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def of(cls, sets: Mapping[str, Frames]) -> Lesson:
        """Work out what is true of the frames of each scene, and of their mirror images."""
        plain, mirrored, shapes, mirrored_shapes = [], [], [], []
        for name, frames in sets.items():
            scene = SCENES[name]
            truths = frames.truths()
            plain.append(all_truths(scene, truths, len(frames)))
            mirrored.append({key: plain[-1][scene.mirrored.get(key, key)] for key in plain[-1]})
            shape = scene.geometry(frames.state, False)
            mean, spread = shape.mean(axis=0), shape.std(axis=0) + 1e-3
            shapes.append((shape - mean) / spread)
            flipped = (scene.geometry(frames.state, True) - mean) / spread if scene.mirrors else shapes[-1]
            mirrored_shapes.append(flipped)
        return cls(
            np.concatenate([frames.pixels for frames in sets.values()]),
            {key: np.concatenate([table[key] for table in plain]) for key in STATEMENTS},
            {key: np.concatenate([table[key] for table in mirrored]) for key in STATEMENTS},
            _blocks(shapes),
            _blocks(mirrored_shapes),
            np.concatenate([np.full(len(frames), SCENES[name].mirrors) for name, frames in sets.items()]),
        )

    def degrees(self, rows: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Return the degrees of `STATEMENTS` and `JOINED` of some frames, (k, S + J) float32, NaN where unknown."""
        table = np.stack(
            [np.where(mirror, self.mirrored[key][rows], self.truths[key][rows]) for key in STATEMENTS], axis=1
        )
        index = {name: i for i, name in enumerate(STATEMENTS)}
        pairs = np.stack([table[:, index[a]] * table[:, index[b]] for a, b in JOINED], axis=1)
        return np.concatenate([table, pairs], axis=1)


def statement_weights() -> np.ndarray:
    """Return how much each of `STATEMENTS` and `JOINED` counts, (S + J,) float32; a pair as its heavier part."""
    weights = dict.fromkeys(STATEMENTS, 1.0)
    for scene in SCENES.values():
        weights |= {name: max(weight, weights[name]) for name, weight in scene.weights.items()}
    pairs = [max(weights[a], weights[b]) for a, b in JOINED]
    return np.array([*weights.values(), *pairs], dtype=np.float32)


def _blocks(parts: list[np.ndarray]) -> np.ndarray:
    """Put matrices along the diagonal of a matrix of NaN."""
    rows, columns = sum(len(part) for part in parts), sum(part.shape[1] for part in parts)
    whole = np.full((rows, columns), np.nan, dtype=np.float32)
    row = column = 0
    for part in parts:
        whole[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return whole
