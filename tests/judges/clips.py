"""Clips of one colour."""

from __future__ import annotations

import numpy as np

from vlmrl.judges.base import Comparison


def clip(red: float, frames: int = 1, size: int = 8) -> np.ndarray:
    """Return a clip that is so red, 0 to 1, and half green, (frames, size, size, 3) uint8."""
    picture = np.zeros((frames, size, size, 3), dtype=np.uint8)
    picture[..., 0], picture[..., 1] = round(255 * red), 127
    return picture


def comparison(left: float, right: float, goal: str = "a red picture", frames: int = 1) -> Comparison:
    """Compare two clips; their truth is how red they are."""
    truths = (np.full(frames, red) for red in (left, right))
    return Comparison(goal, clip(left, frames), clip(right, frames), *truths)
