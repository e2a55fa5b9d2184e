"""RoboCLIP's reward: at an episode's end, how much the whole of it looks like the goal's words, or a demonstration.

Source: Sontakke et al.: "RoboCLIP: One Demonstration is Enough to Learn Robot Policies", NeurIPS 2023 (arXiv
2310.07899), section 3. Theirs are embeddings of S3D, which looks at many frames at once; here a clip is what a head
makes of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from vlmrl.encoders.base import Encoder, gives_unit_vectors, video_head_of
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Views, Words, combine_views
from vlmrl.reward_models.fitted import check_file
from vlmrl.reward_models.optimal_transport import Demonstrations
from vlmrl.reward_models.video import check_head, read_head
from vlmrl.rows import Rows
from vlmrl.typed import Count

if TYPE_CHECKING:
    from vlmrl.reward_models.video_heads import VideoHead


def spread_indices(rows: int, frames: int) -> np.ndarray:
    """Return which of `rows` rows stand for an episode, (frames,) int64, evenly spread, first and last among them."""
    return np.round(np.linspace(0, rows - 1, frames)).astype(np.int64)


class RoboClipReward:
    """The cosine of an episode with what is wanted, at its last step; 0 at all others.

    An episode is made into one clip of the head's number of frames, evenly spread over it. Without a head it is the
    mean of the embeddings of as many frames, which knows nothing of their order.

    Args:
        words: Goal; of several sentences the mean embedding counts. None with demonstrations.
        encoder: Embeds frames and sentences.
        head: Makes a clip of frames; None takes their mean.
        demonstrations: Clips that show what is wanted, in place of words; the greatest cosine counts.
        frames: Frames of a clip without a head.
        views: How the rewards of several cameras become one: "mean" or "min".

    Raises:
        UserError: There is neither words nor a demonstration, or the head has random weights or is another encoder's.
    """

    needs = frozenset({"embeddings", "terminated", "truncated"})
    context: Literal["episode"] = "episode"
    retains: frozenset[str] = frozenset()
    requires_sync = False
    no_potential = (
        "it is 0 in every state but an episode's last, whose potential counts 0 where it terminates. Use use_as=reward "
        "or bonus."
    )

    def __init__(
        self,
        words: Words | None,
        encoder: Encoder,
        head: VideoHead | None = None,
        demonstrations: Demonstrations | None = None,
        frames: int = 16,
        views: Views = "mean",
    ):
        if (words is None) == (demonstrations is None):
            raise UserError("RoboCLIP's goal is said in words or shown in demonstrations; give one of them.")
        if head is not None:
            check_head(head, encoder)
        elif not gives_unit_vectors(encoder):
            raise UserError(
                f"Encoder {encoder.name} gives features for a head, and there is none: reward.weights=<head>."
            )
        self.words, self.encoder, self.views = words, encoder, views
        self.head, self.demonstrations = head, demonstrations
        self.frames = head.config.frames if head is not None else frames
        self._device = "cpu"
        self._target = self._wanted()

    def to(self, device: str) -> RoboClipReward:
        """Move the head to a torch device."""
        self._device = device
        if self.head is not None:
            self.head.to(device)
        return self

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        pooled = f"head {self.head.source}" if self.head is not None else "the mean of frames"
        return f"one reward at each episode's end, of {self.frames} frames spread over it, by {pooled}"

    def embed(self, episode: np.ndarray) -> np.ndarray:
        """Make one clip of an episode's embeddings, (n, E) float32 to (K, E') float32, unit vectors."""
        chosen = np.asarray(episode)[spread_indices(len(episode), self.frames)]
        if self.head is None:
            mean = chosen.mean(axis=0, keepdims=True)
            return mean / max(float(np.linalg.norm(mean)), 1e-12)
        import torch

        with torch.inference_mode():
            return self.head(torch.from_numpy(chosen[None]).to(self._device))[0].cpu().numpy()

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32: 0, and at the last row of an episode that has ended its cosine with what is wanted."""
        rewards = np.zeros(len(rows), dtype=np.float32)
        if len(rows) and (rows["terminated"][-1] or rows["truncated"][-1]):
            rewards[-1] = combine_views([self._score(view) for view in rows["embeddings"].values()], self.views)[0]
        return rewards

    def _score(self, episode: np.ndarray) -> np.ndarray:
        """Return one camera's cosine, the mean over the head's K clips and the greatest over demonstrations, (1,)."""
        clip = self.embed(episode)
        return np.array([max(float((clip * target).sum(axis=1).mean()) for target in self._target)])

    def _wanted(self) -> list[np.ndarray]:
        """Return what an episode is compared with, (K, E') or (1, E') each."""
        if self.demonstrations is not None:
            borders = zip(self.demonstrations.starts[:-1], self.demonstrations.starts[1:], strict=True)
            return [self.embed(self.demonstrations.frames[a:b]) for a, b in borders]
        assert self.words is not None
        goal = self.encoder.encode_texts(self.words.goal).mean(axis=0, keepdims=True)
        if self.head is None:
            return [goal / max(float(np.linalg.norm(goal)), 1e-12)]
        import torch

        with torch.inference_mode():
            return [self.head.texts(torch.from_numpy(goal)).numpy()]


@dataclass(frozen=True)
class RoboClipConfig:
    """Settings of `reward=roboclip`.

    Attributes:
        weights: Head for clips, as in `reward=clip4mc`; empty takes the one that comes with the encoder, or the mean.
        demonstrations: File that `vlmrl.fit reward=optimal_transport` made of clips, in place of words.
        frames: Frames of a clip without a head.
        views: How the rewards of several cameras become one.

    Raises:
        UserError: There is no such file.
    """

    weights: str = ""
    demonstrations: str = ""
    frames: Count = 16
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_file("reward.weights", self.weights)

    @property
    def uses_words(self) -> bool:
        """Whether the goal is said in words."""
        return not self.demonstrations

    def build(self, words: Words | None, encoder: Encoder) -> RoboClipReward:
        """Make the reward model.

        Raises:
            UserError: A file is missing, or was made with another encoder.
        """
        has_head = bool(self.weights) or video_head_of(encoder) is not None
        head = read_head(self.weights, encoder) if has_head else None
        shown = Demonstrations.load(self.demonstrations, encoder) if self.demonstrations else None
        return RoboClipReward(words if shown is None else None, encoder, head, shown, self.frames, self.views)
