"""Rewards of clips: how probable it is that the last frames show the goal and not something else.

Sources: MineCLIP (Fan et al.: "MineDojo: Building Open-Ended Embodied Agents with Internet-Scale Knowledge", 2022,
arXiv 2206.08853, section 4.1 and appendix) and CLIP4MC (Ding et al., 2023, arXiv 2303.10571; Jiang et al.:
"Reinforcement Learning Friendly Vision-Language Model for Minecraft", ECCV 2024).

A frame is embedded once, when it is drawn; a step's reward is a small head over the embeddings of the last frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from vlmrl.encoders.base import Encoder, video_head_of
from vlmrl.errors import UserError, unknown
from vlmrl.reward_models.base import Views, Words, combine_views
from vlmrl.reward_models.fitted import check_file
from vlmrl.rows import Rows
from vlmrl.typed import Count

if TYPE_CHECKING:
    from vlmrl.reward_models.video_heads import VideoHead

Kind = Literal["direct", "delta", "probability"]
KINDS = ("direct", "delta", "probability")
BATCH = 256  # clips that go through the head at once


def clip_indices(first: int, last: int, frames: int, stride: int = 1) -> np.ndarray:
    """Return which rows the clips that end at rows `first` to `last` are made of.

    Where an episode is younger than a clip is long, its first frame stands in for those before it, so that the first
    steps are rewarded for a clip that stands still and then moves. The papers do not say what they do; users of the
    released model do the same.

    Args:
        first: First row, counted from the first of the episode that is there.
        last: Last row, included.
        frames: Frames T of a clip.
        stride: Rows from one frame of a clip to the next.

    Returns:
        (n, T) int64, in the order of time.
    """
    ends = np.arange(first, last + 1)[:, None]
    return np.maximum(ends - np.arange(frames - 1, -1, -1) * stride, 0)


class VideoReward:
    """How probable the goal is among goal and negatives, in the last frames.

    With P the softmax of the head's logits at the goal, and N the number of sentences, the goal among them, a step is
    rewarded with "direct" max(P - 1/N, 0), "delta" P minus that of the step before, or the "probability" P. Below 1/N
    the model knows no better than chance, so that "direct" pays nothing there.

    Args:
        words: Goal and negatives; of several goals the mean embedding counts.
        encoder: Embeds frames and sentences.
        head: Makes clips of frames; with weights.
        kind: See above.
        stride: Rows from one frame of a clip to the next.
        views: How the probabilities of several cameras become one: "mean" or "min".

    Raises:
        UserError: There are no negatives, a setting is unknown, or the head has random weights or is another encoder's.
    """

    needs = frozenset({"embeddings"})
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(
        self,
        words: Words,
        encoder: Encoder,
        head: VideoHead,
        kind: Kind = "direct",
        stride: int = 1,
        views: Views = "mean",
    ):
        if kind not in KINDS:
            raise unknown("kind of video reward:", kind, KINDS)
        if not words.negatives:
            raise UserError(
                "A video reward is the probability of the goal among goal and negatives, and there are no negatives: "
                "task.negatives=['...','...'], sentences about what the agent may do instead."
            )
        if stride < 1:
            raise UserError(f"reward.stride is {stride}; it must be at least 1.")
        check_head(head, encoder)
        self.words, self.encoder, self.head = words, encoder, head
        self.kind, self.stride, self.views = kind, stride, views
        self.frames = head.config.frames
        self.context = (self.frames - 1) * stride + (kind == "delta")
        goal = encoder.encode_texts(words.goal).mean(axis=0, keepdims=True)
        self._sentences = np.concatenate([goal, encoder.encode_texts(words.negatives)])
        self._device = "cpu"
        self.to("cpu")

    def to(self, device: str) -> VideoReward:
        """Move the head to a torch device."""
        import torch

        self._device = device
        self.head.to(device)
        with torch.inference_mode():
            self._texts = self.head.texts(torch.from_numpy(self._sentences).to(device))
        return self

    @property
    def no_potential(self) -> str:
        """Why the reward cannot be taken for a potential; empty where it can."""
        if self.kind != "delta":
            return ""
        return "reward.kind=delta is the change of a probability. Take the probability: reward.kind=probability."

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        span = (self.frames - 1) * self.stride + 1
        return (
            f"clips of {self.frames} frames over {span} steps, head {self.head.source}, {self.kind} reward against "
            f"{len(self.words.negatives)} negatives"
        )

    def logits(self, clips: np.ndarray) -> np.ndarray:
        """Score clips.

        Args:
            clips: (n, T, E) float32 embeddings of frames.

        Returns:
            (n, N) float64, at the goal and at each negative.
        """
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(clips), BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(clips[start : start + BATCH], dtype=np.float32))
                embedded = self.head(batch.to(self._device))
                parts.append(self.head.logits(embedded, self._texts).sum(dim=1).double().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self._sentences)))

    def probabilities(self, clips: np.ndarray) -> np.ndarray:
        """Return the probability of the goal in each of (n, T, E) clips, (n,) float64."""
        logits = self.logits(clips)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))  # no overflow
        return weights[:, 0] / weights.sum(axis=1)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32; see `kind`. Rows that are there as context alone get 0."""
        return self.reward_all([rows])[0]

    def reward_all(self, parts: Sequence[Rows]) -> list[np.ndarray]:
        """Reward rows of several episodes with few calls of the head; see `base.BatchedRewardModel`.

        Raises:
            ValueError: Rows of an episode are out of order, or some are missing.
        """
        for rows in parts:
            if (np.diff(rows.t) != 1).any():
                raise ValueError(f"Rows of a clip must be consecutive and in the order of time, got {rows.t.tolist()}.")
        cameras = list(parts[0]["embeddings"]) if parts else []
        spans = [self._span(rows) for rows in parts]
        probabilities = []
        for camera in cameras:
            clips = [
                np.asarray(rows["embeddings"][camera])[clip_indices(first, len(rows) - 1, self.frames, self.stride)]
                for rows, first in zip(parts, spans, strict=True)
            ]
            probabilities.append(self.probabilities(np.concatenate(clips)))
        combined = combine_views(probabilities, self.views) if cameras else np.zeros(0)
        rewards, done = [], 0
        for rows, first in zip(parts, spans, strict=True):
            own = combined[done : done + len(rows) - first]
            done += len(own)
            rewards.append(np.concatenate([np.zeros(first), self._rewards(own)]).astype(np.float32))
        return rewards

    def _span(self, rows: Rows) -> int:
        """Return the first row that has a clip: rows before it are context, unless the episode begins with them."""
        if len(rows) == 0 or rows.t[0] == 0:
            return 0
        return min((self.frames - 1) * self.stride, len(rows))

    def _rewards(self, probability: np.ndarray) -> np.ndarray:
        if self.kind == "direct":
            return np.maximum(probability - 1 / len(self._sentences), 0)
        if self.kind == "delta":
            return np.diff(probability, prepend=probability[:1])
        return probability


@dataclass(frozen=True)
class VideoRewardConfig:
    """Settings of `reward=clip4mc` and, in its own name, `reward=mineclip`.

    Attributes:
        weights: Head for clips: a file of `vlmrl.fit`, or a released checkpoint; empty takes the one that comes with
            the encoder.
        kind: "direct", "delta" or "probability"; see `VideoReward`.
        stride: Steps from one frame of a clip to the next.
        views: How the probabilities of several cameras become one.

    Raises:
        UserError: There is no such file.
    """

    weights: str = ""
    kind: Kind = "direct"
    stride: Count = 1
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_file("reward.weights", self.weights)

    def build(self, words: Words, encoder: Encoder) -> VideoReward:
        """Make the reward model.

        Raises:
            UserError: There is no head, or it is none of this encoder.
        """
        return VideoReward(words, encoder, read_head(self.weights, encoder), self.kind, self.stride, self.views)


def check_head(head: VideoHead, encoder: Encoder) -> None:
    """Refuse a head for clips that cannot reward what this encoder embeds.

    Raises:
        UserError: It has random weights, or is another encoder's.
    """
    if not head.source:
        raise UserError(
            "This head for clips has the random weights that it was made with: its rewards would mean nothing. Load "
            "weights into it first (vlmrl.reward_models.video_heads.load_head)."
        )
    if head.config.dim != encoder.dim:
        raise UserError(
            f"The head '{head.source}' reads embeddings of {head.config.dim} numbers, and {encoder.name} gives "
            f"{encoder.dim}."
        )


def read_head(weights: str, encoder: Encoder) -> VideoHead:
    """Read the head for clips that is named, or the one that comes with the encoder.

    Args:
        weights: Path of a head or of a released checkpoint; empty takes the encoder's.
        encoder: Whose embeddings it will be given.

    Raises:
        UserError: There is none, or it is none of this encoder.
    """
    from vlmrl.reward_models.video_heads import load_head, load_released_head

    path = Path(weights) if weights else video_head_of(encoder)
    if path is None:
        raise UserError(
            f"A video reward needs a head that was trained for clips, and encoder {encoder.name} comes with none. With "
            "a released checkpoint: encoder=mineclip encoder.path=<attn.pth or avg.pth>, which is encoder and head. "
            "With a head of your own for this encoder: reward.weights=<head.safetensors>, as vlmrl.fit makes it."
        )
    return (load_head if path.suffix == ".safetensors" else load_released_head)(path, encoder)
