"""What a reward makes of a film: the rows of an episode that looks so, and what it would earn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmrl.reward_models.base import RewardModel, is_learned
from vlmrl.rows import Rows

FIELDS = frozenset({"embeddings", "frames", "terminated", "truncated"})  # what is known of a film's rows


def film_rows(
    model: RewardModel, embeddings: Mapping[str, np.ndarray], frames: Mapping[str, np.ndarray] | None = None
) -> Rows:
    """Return the rows of an episode that begins and is cut off with a film, with what a model reads of them.

    Args:
        model: Reads nothing but `FIELDS`, and no frames where there are none.
        embeddings: {camera: (n, E) float32} of the film's frames.
        frames: {camera: (n, H, W, 3) uint8 RGB}, likewise.
    """
    n = len(next(iter(embeddings.values())))
    columns: dict[str, Any] = {
        "embeddings": embeddings,
        "frames": frames,
        "terminated": np.zeros(n, dtype=bool),
        "truncated": np.arange(n) == n - 1,
    }
    return Rows(np.arange(n), {name: columns[name] for name in model.needs})


def film_score(model: RewardModel, rewards: np.ndarray) -> float:
    """Return what a film earns by its rewards, (n,): their mean, or the last of a model that looks at whole episodes.

    Such a model says it all in the last row; of the others the mean is what an episode that looks so would earn a step.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    return float(rewards[-1] if model.context == "episode" else rewards.mean())


def why_no_film(model: RewardModel) -> str:
    """Say why a reward model cannot be asked about films of which the frames' embeddings are kept; empty if it can."""
    if is_learned(model) and model.version == 0:
        return (
            "it has learned nothing yet; what a run has learned is reward.weights=<run folder>/reward_model.safetensors"
        )
    missing = sorted(model.needs - FIELDS | model.needs & {"frames"})
    return f"it reads {', '.join(missing)}, which clips do not hold" if missing else ""
