"""What a reward model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeGuard, get_args

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.rows import Row, Rows


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


class LearnedRewardModel(RewardModel, Protocol):
    """A reward model that is trained while its rewards are used; its `retains` is not empty.

    What it retains is kept beside each transition in the form of `Rows.arrays`, and is all that it needs to reward the
    transition again once it has a new version. It looks at single rows: its `context` is 0.

    Attributes:
        version: How often it was trained; 0 is a model that knows nothing yet.
    """

    @property
    def version(self) -> int: ...  # noqa: D102

    def to(self, device: str) -> object:
        """Move what is trained to a torch device."""
        ...

    def prepare(self, row: Row) -> Row:
        """Return a row as it is to be kept until its reward is asked for, its pictures no larger than need be."""
        ...

    def save(self, path: Path) -> None:
        """Write what was learned, so that `load` of another model with the same settings can read it."""
        ...

    def load(self, path: Path) -> object:
        """Read what `save` wrote.

        Raises:
            UserError: There is no such file, or it is none of these.
        """
        ...


def is_learned(model: RewardModel) -> TypeGuard[LearnedRewardModel]:
    """Return whether a model is trained while its rewards are used."""
    return bool(model.retains)


class BatchedRewardModel(RewardModel, Protocol):
    """A reward model for which one large call is cheaper than several small ones; its `context` is 0."""

    def reward_all(self, parts: Sequence[Rows]) -> list[np.ndarray]:
        """Reward rows of several episodes, each as `__call__` would: for each part (n,) float32."""
        ...


def is_batched(model: RewardModel) -> TypeGuard[BatchedRewardModel]:
    """Return whether a model takes rows of several episodes in one call."""
    return hasattr(model, "reward_all")


class EpisodeEndingModel(RewardModel, Protocol):
    """A reward model that can end an episode, as one that tells success does. Its `requires_sync` says whether it will.

    The episode then terminates: nothing is to be had after it, and learners do not bootstrap there.
    """

    def ends(self, rewards: np.ndarray) -> np.ndarray:
        """Say which of its own rewards, (n,) float32, end their episode, (n,) bool."""
        ...
