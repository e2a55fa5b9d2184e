"""Unsupervised perceptual rewards: steps of a task found in a few demonstrations, and how well a picture fits them.

Source: Sermanet, Xu, Levine: "Unsupervised Perceptual Rewards for Imitation Learning", 2017 (arXiv 1612.06699). Theirs
are activations of an Inception network; here features are those of an encoder. `vlmrl.fit reward=perceptual` finds the
steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Views, combine_views
from vlmrl.reward_models.fitted import read_fitted
from vlmrl.rows import Rows

ALPHA = 5.0  # weight of the distance of means against their spreads, section III-B
FLOOR = 1e-3  # least standard deviation of a feature: one that never varied in a few frames would decide alone


def split_steps(features: np.ndarray, steps: int, least: int = 2) -> list[int]:
    """Divide a demonstration into steps, each as little varied as can be.

    What is least is the mean standard deviation of the features within a step, weighted by its frames. The paper's
    algorithm 1 cuts in two and each part again; all divisions are looked at here, by dynamic programming.

    Args:
        features: (T, E) float.
        steps: Number of steps, at least 1.
        least: Fewest frames of a step.

    Returns:
        `steps` - 1 increasing borders; a border is the first frame of the next step.

    Raises:
        ValueError: There are too few frames.
    """
    frames = np.asarray(features, dtype=np.float64)
    total = len(frames)
    if total < steps * least:
        raise ValueError(f"{total} frames are too few for {steps} steps of at least {least}.")
    sums = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, axis=0)])
    squares = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames**2, axis=0)])

    def spreads(starts: np.ndarray, end: int) -> np.ndarray:
        n = (end - starts)[:, None]
        variance = (squares[end] - squares[starts]) / n - ((sums[end] - sums[starts]) / n) ** 2
        return np.sqrt(np.maximum(variance, 0)).mean(axis=1) * n[:, 0]

    cost = np.full((steps + 1, total + 1), np.inf)
    came = np.zeros((steps + 1, total + 1), dtype=int)
    cost[0, 0] = 0.0
    for step in range(1, steps + 1):
        for end in range(step * least, total + 1):
            starts = np.arange((step - 1) * least, end - least + 1)
            sums_so_far = cost[step - 1, starts] + spreads(starts, end)
            best = int(sums_so_far.argmin())
            cost[step, end], came[step, end] = sums_so_far[best], starts[best]
    borders, end = [], total
    for step in range(steps, 1, -1):
        end = int(came[step, end])
        borders.append(end)
    return borders[::-1]


@dataclass(frozen=True)
class Steps:
    """Steps of a task, each a Gaussian of the features that tell it from what came before.

    Attributes:
        chosen: (S, n) int, features of each step.
        means: (S, n) float.
        deviations: (S, n) float.
        encoder: Fingerprint of the encoder whose embeddings these are.
    """

    chosen: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    encoder: str

    @classmethod
    def found_in(cls, demonstrations: Sequence[np.ndarray], steps: int, features: int, encoder: str) -> Steps:
        """Find steps in demonstrations.

        The first step is where things begin; each of the others keeps the features with the greatest
        z = alpha |mu+ - mu-| - (sigma+ + sigma-) (equation 1), + in the step and - in all other frames.

        Args:
            demonstrations: (T, E) float embeddings each.
            steps: Number of steps after the beginning, at least 1.
            features: Features that a step keeps; at most E.
            encoder: Fingerprint.

        Raises:
            UserError: A demonstration is too short.
        """
        parts: list[list[np.ndarray]] = [[] for _ in range(steps + 1)]
        for i, frames in enumerate(demonstrations):
            try:
                borders = split_steps(frames, steps + 1)
            except ValueError as error:
                raise UserError(
                    f"Demonstration {i} is too short: {error} Bring longer ones, or fewer steps."
                ) from error
            for part, own in zip(parts, np.split(frames, borders), strict=True):
                part.append(own)
        chosen, means, deviations = [], [], []
        for step in range(1, steps + 1):
            inside = np.concatenate(parts[step])
            outside = np.concatenate([own for i, part in enumerate(parts) if i != step for own in part])
            z = ALPHA * np.abs(inside.mean(axis=0) - outside.mean(axis=0)) - inside.std(axis=0) - outside.std(axis=0)
            best = np.sort(np.argsort(-z, kind="stable")[:features])
            chosen.append(best)
            means.append(inside[:, best].mean(axis=0))
            deviations.append(np.maximum(inside[:, best].std(axis=0), FLOOR))
        return cls(np.array(chosen), np.array(means), np.array(deviations), encoder)

    def save(self, path: Path) -> None:
        """Write them into an npz file."""
        np.savez(path, chosen=self.chosen, means=self.means, deviations=self.deviations, encoder=self.encoder)

    @classmethod
    def load(cls, path: str, encoder: Encoder) -> Steps:
        """Read them.

        Raises:
            UserError: There is no such file, or it was made with another encoder.
        """
        how = (
            "It is made from a few demonstrations: python -m vlmrl.fit reward=perceptual dataset=<clips> "
            "out=<folder>; then reward.steps=<folder>/steps.npz."
        )
        content = read_fitted("reward.steps", path, "steps", ("chosen", "means", "deviations"), how, encoder)
        return cls(content["chosen"], content["means"], content["deviations"], str(content["encoder"]))


class PerceptualReward:
    """How well a picture fits the steps of a task, later steps counting more.

    For each step, a Gaussian of independent features (equation 2): minus the mean squared distance from the step's
    mean, in its standard deviations, brought between 0 and 1 by an exponential. The reward is the mean of the steps'
    fits weighted by their numbers, so that the last step counts most, as in the paper.

    Args:
        steps: What `Steps.found_in` found.
        views: How the rewards of several cameras become one: "mean" or "min".
    """

    needs = frozenset({"embeddings"})
    context = 0
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(self, steps: Steps, views: Views = "mean"):
        self.steps, self.views = steps, views

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, 0 to 1."""
        pictures = rows["embeddings"].values()
        return combine_views([self._fit(np.asarray(view)) for view in pictures], self.views).astype(np.float32)

    def _fit(self, embeddings: np.ndarray) -> np.ndarray:
        steps = self.steps
        total = np.zeros(len(embeddings))
        for i, (chosen, mean, deviation) in enumerate(zip(steps.chosen, steps.means, steps.deviations, strict=True)):
            distance = ((embeddings[:, chosen] - mean) / deviation) ** 2
            total += (i + 1) * np.exp(-distance.mean(axis=1) / 2)
        return total / (len(steps.chosen) * (len(steps.chosen) + 1) / 2)


@dataclass(frozen=True)
class PerceptualConfig:
    """Settings of `reward=perceptual`.

    Attributes:
        steps: File that `vlmrl.fit reward=perceptual` made of demonstrations.
        views: How the rewards of several cameras become one.
    """

    steps: str = ""
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True
    uses_words: ClassVar[bool] = False

    def build(self, words: object, encoder: Encoder) -> PerceptualReward:
        """Make the reward model.

        Raises:
            UserError: The file is missing or was made with another encoder.
        """
        return PerceptualReward(Steps.load(self.steps, encoder), self.views)
