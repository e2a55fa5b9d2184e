"""Reward against learned failures: how much more a clip looks like success than like any way to fail that is known.

Source: Yang et al.: "Adapt2Reward: Adapting Video-Language Models to Generalizable Robotic Rewards via Failure
Prompts", 2024 (arXiv 2407.14872). Failed clips are clustered, and each cluster has a prompt that was learned in front
of the task's sentence. `vlmrl.fit reward=failure_prompts` learns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.reward_models.base import Views, Words, combine_views
from vlmrl.reward_models.clip_contrastive import goal_probability
from vlmrl.reward_models.fitted import read_fitted
from vlmrl.rows import Rows


@dataclass(frozen=True)
class FailurePrompts:
    """Ways to fail at tasks, as embeddings of sentences with a learned prompt in front.

    Attributes:
        tasks: Sentences of the tasks, T of them.
        failures: (T, K, E) float32, unit vectors.
        temperature: Divides the cosines.
        frames: Frames whose mean embedding counts, the newest ones.
        encoder: Fingerprint of the encoder.
    """

    tasks: tuple[str, ...]
    failures: np.ndarray
    temperature: float
    frames: int
    encoder: str

    def save(self, path: Path) -> None:
        """Write them into an npz file."""
        np.savez(
            path,
            tasks=np.array(self.tasks),
            failures=self.failures,
            temperature=self.temperature,
            frames=self.frames,
            encoder=self.encoder,
        )

    @classmethod
    def load(cls, path: str, encoder: Encoder) -> FailurePrompts:
        """Read them.

        Raises:
            UserError: There is no such file, or it was made with another encoder.
        """
        how = (
            "It is learned from clips that succeed and clips that fail: python -m vlmrl.fit reward=failure_prompts "
            "dataset=<clips> out=<folder>; then reward.prompts=<folder>/prompts.npz."
        )
        names = ("tasks", "failures", "temperature", "frames")
        content = read_fitted("reward.prompts", path, "prompts", names, how, encoder)
        return cls(
            tuple(map(str, content["tasks"])),
            content["failures"],
            float(content["temperature"]),
            int(content["frames"]),
            str(content["encoder"]),
        )


def pooled(embeddings: np.ndarray, frames: int) -> np.ndarray:
    """Return the mean embedding of each row and those just before it, brought to unit length.

    Args:
        embeddings: (n, E) float, rows in order.
        frames: Rows that count, at least 1; at the beginning fewer.

    Returns:
        (n, E) float64.
    """
    sums = np.cumsum(np.asarray(embeddings, dtype=np.float64), axis=0)
    sums[frames:] -= sums[:-frames].copy()
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


class FailurePromptReward:
    """Probability that a clip shows success, and none of the ways to fail.

    The softmax of cosine / temperature over the task's sentence and its failure prompts, at the sentence: of all ways
    to fail the one that the clip looks most like weighs most.

    Args:
        task: The task's sentence, one that prompts were learned for.
        prompts: What was learned.
        encoder: Embeds the sentence.
        views: How the probabilities of several cameras become one: "mean" or "min".

    Raises:
        UserError: There are no prompts for this sentence.
    """

    needs = frozenset({"embeddings"})
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(self, task: str, prompts: FailurePrompts, encoder: Encoder, views: Views = "mean"):
        if task not in prompts.tasks:
            raise unknown("task that failures were learned of:", task, prompts.tasks)
        self.words, self.prompts, self.encoder, self.views = Words((task,)), prompts, encoder, views
        self.context = prompts.frames - 1
        self._goal = encoder.encode_texts([task])[0]
        self._failures = prompts.failures[prompts.tasks.index(task)]

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, 0 to 1."""
        clips = [pooled(view, self.prompts.frames) for view in rows["embeddings"].values()]
        return combine_views(
            [goal_probability(clip, self._goal, self._failures, self.prompts.temperature) for clip in clips], self.views
        ).astype(np.float32)


@dataclass(frozen=True)
class FailurePromptConfig:
    """Settings of `reward=failure_prompts`.

    Attributes:
        prompts: File that `vlmrl.fit reward=failure_prompts` made.
        views: How the probabilities of several cameras become one.
    """

    prompts: str = ""
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Words, encoder: Encoder) -> FailurePromptReward:
        """Make the reward model.

        Raises:
            UserError: The file is missing or was learned with another encoder, or the goal is not one sentence.
        """
        prompts = FailurePrompts.load(self.prompts, encoder)
        if len(words.goal) != 1:
            raise UserError(f"reward=failure_prompts takes one sentence as the goal, and there are {len(words.goal)}.")
        return FailurePromptReward(words.goal[0], prompts, encoder, self.views)
