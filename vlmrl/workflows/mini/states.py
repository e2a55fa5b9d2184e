"""States that agents reached: what an encoder gets wrong is found by those who are rewarded for finding it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vlmrl.errors import UserError

POSITIONS = 24  # numbers in the humanoid's `qpos`


def save_states(path: Path, episodes: Sequence[np.ndarray], seed: int = 0) -> int:
    """Write an archive of states; whole episodes go to its training or its held-out part, one in five to the latter.

    Args:
        path: The archive, `.npz`.
        episodes: (steps, 24) float each, `qpos` of the humanoid (m, quaternion, rad).
        seed: Seed of the division.

    Returns:
        The number of states.
    """
    if len(episodes) < 2:
        raise UserError(
            f"{path}: {len(episodes)} episodes cannot be divided into a training and a held-out part; give at least 2."
        )
    order = np.random.default_rng(seed).permutation(len(episodes))
    held_out = set(order[: max(1, len(episodes) // 5)].tolist())
    parts = {
        name: np.concatenate(
            [np.asarray(e, dtype=np.float32) for i, e in enumerate(episodes) if (i in held_out) == wanted]
        )
        for name, wanted in (("train", False), ("held_out", True))
    }
    np.savez_compressed(path, train=parts["train"], held_out=parts["held_out"])
    return sum(len(part) for part in parts.values())


def load_states(path: str | Path, part: Literal["train", "held out"]) -> np.ndarray:
    """Read a part of an archive, (n, 24) float64.

    Raises:
        UserError: There is no such file, or it is not such an archive.
    """
    try:
        with np.load(path) as archive:
            states = archive[part.replace(" ", "_")].astype(np.float64)
    except FileNotFoundError as error:
        raise UserError(f"There is no archive of states '{path}'.") from error
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"'{path}' is not an archive of states as `vlmrl.workflows.mini.states.save_states` writes it ({error})."
        ) from error
    if states.ndim != 2 or states.shape[1] != POSITIONS:
        raise UserError(f"'{path}': expected states (n, {POSITIONS}), got {states.shape}.")
    return states
