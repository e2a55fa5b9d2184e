"""Optimal transport to a demonstration: how far what an episode shows lies from what a demonstration shows.

Sources: Haldar, Mathur, Yarats, Pinto: "Watch and Match: Supercharging Imitation with Regularized Optimal Transport",
2022 (arXiv 2206.15469); Tian, Xu, Tomizuka, Malik, Bajcsy: "What Matters to You? Towards Visual Representation
Alignment for Robot Learning", 2023 (RAPL, arXiv 2310.07932), whose features are aligned with preferences first.
`vlmrl.fit reward=optimal_transport` makes the file with the demonstrations, and aligns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.reward_models.base import Views, combine_views
from vlmrl.reward_models.fitted import read_fitted
from vlmrl.rows import Rows
from vlmrl.typed import Count, Positive, Range

LOOK = 10  # iterations after which the plan is looked at
TOLERANCE = 1e-4  # of the plan's row sums, as a share: what a reward is off by is of the same order


def sinkhorn(cost: np.ndarray, epsilon: float, iterations: int = 200) -> np.ndarray:
    """Find the plan that carries one set of points to another at the least cost, made smooth by its entropy.

    Every row weighs 1 / n, every column 1 / m. Cuturi 2013 (arXiv 1306.0895), in the logarithms of Peyre and Cuturi
    2019 ("Computational Optimal Transport", section 4.4), which do not overflow however small epsilon is.

    Args:
        cost: (n, m) float, of carrying row i to column j.
        epsilon: Weight of the entropy, in the unit of the cost, more than 0; with less the plan is sharper and takes
            more iterations.
        iterations: Most iterations; fewer where rows and columns sum up before.

    Returns:
        (n, m) float64, at least 0, with columns that sum to 1 / m, and rows that do to 1 / n but for `TOLERANCE` if
        there were iterations enough.
    """
    cost = np.asarray(cost, dtype=np.float64) / epsilon
    n, m = cost.shape
    rows, columns = np.zeros(n), np.zeros(m)
    for i in range(1, iterations + 1):
        rows = -np.log(n) - _log_sum_exp(columns - cost, axis=1)
        columns = -np.log(m) - _log_sum_exp(rows[:, None] - cost, axis=0)
        if i % LOOK == 0 and np.abs(n * np.exp(rows[:, None] + columns - cost).sum(axis=1) - 1).max() < TOLERANCE:
            break
    return np.exp(rows[:, None] + columns - cost)


def _log_sum_exp(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis=axis, keepdims=True)
    return np.squeeze(most, axis) + np.log(np.exp(values - most).sum(axis=axis))


def cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 - cosine of each of n vectors with each of m: (n, E) and (m, E) to (n, m), 0 to 2."""
    one = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    other = second / np.maximum(np.linalg.norm(second, axis=1, keepdims=True), 1e-12)
    return 1 - one @ other.T


def transport(cost: np.ndarray, epsilon: float, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the plan for a matrix of costs, and what each row costs by it.

    Args:
        cost: (n, m) float, at least 0.
        epsilon: Weight of the entropy, as a share of the mean cost: so that one setting fits encoders whose pictures
            lie close together and such whose pictures do not.
        iterations: See `sinkhorn`.

    Returns:
        (n, m) float64, and (n,) float64: the mean cost of what is carried from a row.
    """
    plan = sinkhorn(cost, epsilon * max(float(np.mean(cost)), 1e-9), iterations)
    return plan, (plan * cost).sum(axis=1) / plan.sum(axis=1)


@dataclass(frozen=True)
class Demonstrations:
    """What is to be shown, as features of frames.

    Attributes:
        frames: (N, E) float32, embeddings of all frames of all demonstrations.
        starts: (n + 1,) int, demonstration i has the frames starts[i] to starts[i + 1], the last excluded.
        encoder: Fingerprint of the encoder whose embeddings these are.
        mean: (E,) float32, taken off an embedding; zeros where features are the embeddings themselves.
        projection: (E, k) float32, what is left of it is multiplied by; (E, 0) where features are the embeddings.
    """

    frames: np.ndarray
    starts: np.ndarray
    encoder: str
    mean: np.ndarray
    projection: np.ndarray

    @classmethod
    def of(cls, clips: Sequence[np.ndarray], encoder: str) -> Demonstrations:
        """Take embeddings of clips, (T, E) float each, as they are."""
        frames = np.concatenate(clips).astype(np.float32)
        starts = np.cumsum([0, *map(len, clips)])
        size = frames.shape[1]
        return cls(frames, starts, encoder, np.zeros(size, dtype=np.float32), np.zeros((size, 0), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Return what is compared of embeddings, (n, E) to (n, k)."""
        if not self.projection.size:
            return embeddings
        return (embeddings - self.mean) @ self.projection

    def clips(self) -> list[np.ndarray]:
        """Return the features of each demonstration, (T, k)."""
        features = self.features(self.frames)
        return [features[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def save(self, path: Path) -> None:
        """Write them into an npz file."""
        np.savez(
            path,
            frames=self.frames,
            starts=self.starts,
            encoder=self.encoder,
            mean=self.mean,
            projection=self.projection,
        )

    @classmethod
    def load(cls, path: str, encoder: Encoder) -> Demonstrations:
        """Read them.

        Raises:
            UserError: There is no such file, or it was made with another encoder.
        """
        how = (
            "It is made of a clip or some in which the task is done: python -m vlmrl.fit reward=optimal_transport "
            "dataset=<clips> out=<folder>; then reward.demonstrations=<folder>/demonstrations.npz."
        )
        names = ("frames", "starts", "mean", "projection")
        content = read_fitted("reward.demonstrations", path, "demonstrations", names, how, encoder)
        return cls(
            content["frames"], content["starts"], str(content["encoder"]), content["mean"], content["projection"]
        )


class OptimalTransportReward:
    """Minus the cost of carrying a frame of the episode to the demonstration that the whole episode is closest to.

    The plan is known when the episode has ended, so rewards come then. A step's is minus the mean distance, 0 to 2, of
    its frame from those of the demonstration that fall to it: n times the papers' reward for an episode of n rows, so
    that it does not shrink as episodes get longer. It is negative: where an environment ends episodes, ending early
    pays.

    Plain transport knows no order, and a reversed episode costs what the true one does. `time_weight` adds the distance
    in relative time to that of pictures (as order-preserving Wasserstein distances do, Su and Hua, CVPR 2017).

    Args:
        demonstrations: What is to be shown.
        encoder: Whose embeddings they are, for who asks; none is embedded here.
        epsilon: See `transport`.
        iterations: See `sinkhorn`.
        time_weight: Cost of carrying a frame from the beginning to the end, at least 0; a cosine distance is at most 2.
        views: How the rewards of several cameras become one: "mean" or "min".
    """

    needs = frozenset({"embeddings"})
    context = "episode"
    awaits_end = True
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(
        self,
        demonstrations: Demonstrations,
        encoder: Encoder | None = None,
        epsilon: float = 0.05,
        iterations: int = 200,
        time_weight: float = 0.0,
        views: Views = "mean",
    ):
        self.demonstrations, self.encoder, self.views = demonstrations, encoder, views
        self.epsilon, self.iterations, self.time_weight = epsilon, iterations, time_weight
        self._clips = demonstrations.clips()

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, -2 - `time_weight` to 0."""
        pictures = rows["embeddings"].values()
        return combine_views([-self._costs(np.asarray(view)) for view in pictures], self.views).astype(np.float32)

    def _costs(self, embeddings: np.ndarray) -> np.ndarray:
        """Return what each frame costs by the plan to the closest demonstration, (n,) float64."""
        features = self.demonstrations.features(embeddings)
        found = [self._costs_to(features, clip) for clip in self._clips]
        return min(found, key=lambda costs: float(costs.mean()))

    def _costs_to(self, features: np.ndarray, clip: np.ndarray) -> np.ndarray:
        cost = cosine_distances(features, clip)
        if self.time_weight:
            here, there = (np.arange(len(part)) / max(len(part) - 1, 1) for part in (features, clip))
            cost = cost + self.time_weight * np.abs(here[:, None] - there)
        return transport(cost, self.epsilon, self.iterations)[1]


@dataclass(frozen=True)
class OptimalTransportConfig:
    """Settings of `reward=optimal_transport`.

    Attributes:
        demonstrations: File that `vlmrl.fit reward=optimal_transport` made.
        epsilon: Weight of the plan's entropy, as a share of the mean cost.
        iterations: Most iterations of Sinkhorn's algorithm.
        time_weight: Weight of the distance in relative time; 0 knows no order.
        views: How the rewards of several cameras become one.
    """

    demonstrations: str = ""
    epsilon: Positive = 0.05
    iterations: Count = 200
    time_weight: Annotated[float, Range(0)] = 0.0
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True
    uses_words: ClassVar[bool] = False

    def build(self, words: object, encoder: Encoder) -> OptimalTransportReward:
        """Make the reward model.

        Raises:
            UserError: The file is missing or was made with another encoder.
        """
        demonstrations = Demonstrations.load(self.demonstrations, encoder)
        return OptimalTransportReward(
            demonstrations, encoder, self.epsilon, self.iterations, self.time_weight, self.views
        )
