"""What a reward model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.rows import Rows


@dataclass(frozen=True)
class Words:
    """The sentences that say what is wanted.

    Attributes:
        goal: What the agent should do; several sentences are an ensemble.
        baseline: What the scene shows anyway.
        negatives: What the agent may do instead.

    Raises:
        UserError: A sentence is empty.
    """

    goal: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.goal:
            raise UserError(
                "The goal is empty: say in words what the agent should do, goal='a humanoid robot kneeling'."
            )
        for name in ("goal", "baseline", "negatives"):
            for sentence in getattr(self, name):
                if not sentence.strip():
                    raise UserError(f"{name} holds an empty sentence; write words, or leave the key out.")


def sentences(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one sentence or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


Views = Literal["mean", "min"]


def combine_views(values: Sequence[np.ndarray], views: Views) -> np.ndarray:
    """Make one value a row of one value a camera and row.

    Args:
        values: For each camera (n,) float; at least one camera.
        views: "mean" of the cameras; "min", the least of them: what is wanted must be seen in every view, so that a
            picture that fools the model from one side earns nothing.

    Returns:
        (n,) of the values' type.

    Raises:
        UserError: `views` is neither.
    """
    if views not in get_args(Views):
        raise unknown("way of combining views:", views, get_args(Views))
    return np.mean(values, axis=0) if views == "mean" else np.min(values, axis=0)


def or_embedded(encoder: Encoder | None) -> Encoder:
    """Return the encoder that was given, else the embedded one on the CPU."""
    if encoder is not None:
        return encoder
    from vlmrl.encoders.mini import MiniConfig

    return MiniConfig().build("cpu")


class RewardModel(Protocol):
    """Turns rows of one episode into rewards. Light and local; whatever is heavy is an encoder or a judge.

    Attributes:
        needs: Row fields that it reads; no other field is produced.
        context: How many earlier rows one reward looks at, or "episode".
        retains: Fields to keep with a transition so that a later version of the model can reward it again.
        requires_sync: True where its output ends episodes; it is then an `EpisodeEndingModel`.
    """

    @property
    def needs(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def context(self) -> int | Literal["episode"]: ...  # noqa: D102

    @property
    def retains(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def requires_sync(self) -> bool: ...  # noqa: D102

    def __call__(self, rows: Rows) -> np.ndarray:
        """Reward each row.

        Args:
            rows: n consecutive rows of one episode, with the columns in `needs`.

        Returns:
            (n,) float32, finite; entry i is the reward for arriving at row i. The first `context` entries may have
            less context than they look at, unless they are the first of the episode.
        """
        ...


class EpisodeEndingModel(RewardModel, Protocol):
    """A reward model that can end an episode, as one that tells success does. Its `requires_sync` says whether it will.

    The episode then terminates: nothing is to be had after it, and learners do not bootstrap there.
    """

    def ends(self, rewards: np.ndarray) -> np.ndarray:
        """Say which of its own rewards, (n,) float32, end their episode, (n,) bool."""
        ...
