"""What a reward model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, get_args

import numpy as np

from vlmrl.encoders.base import Encoder, gives_unit_vectors
from vlmrl.errors import UserError, unknown
from vlmrl.quantities import Path as QuantityPath
from vlmrl.reward_models import REWARDS
from vlmrl.rows import Row, RowKey, Rows

FILE_SETTINGS = ("weights", "demonstrations", "prompts")  # settings of rewards that name a file of what was learned


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
        values: For each camera (n, ...) float; at least one camera.
        views: "mean" of the cameras; "min", the least of them: what is wanted must be seen in every view, so that a
            picture that fools the model from one side earns nothing.

    Returns:
        (n, ...) of the values' type.

    Raises:
        UserError: `views` is neither.
    """
    if views not in get_args(Views):
        raise unknown("way of combining views:", views, get_args(Views))
    return np.mean(values, axis=0) if views == "mean" else np.min(values, axis=0)


def or_embedded(encoder: Encoder | None) -> Encoder:
    """Return the encoder that was given, else the embedded one on the CPU, for a reward made of cosines.

    Raises:
        UserError: What was given is no encoder, or one that gives features of pictures, whose products with sentences
            are no cosines.
    """
    if encoder is not None:
        if not hasattr(encoder, "encode_texts"):  # a name, or settings that were not built
            raise UserError(
                f"encoder={encoder!r} is no encoder. Give one that is built, such as OpenClipConfig('ViT-B-32', "
                "'openai').build('cpu') of vlmrl.encoders.open_clip, or None for the embedded one."
            )
        if not gives_unit_vectors(encoder):
            raise UserError(
                f"Encoder {encoder.name} gives features of single frames, for a head that was trained on them; they "
                "cannot be compared with sentences. It goes with reward=mineclip."
            )
        return encoder
    from vlmrl.encoders.mini import MiniConfig

    return MiniConfig().build("cpu")


def called(model: object) -> str:
    """Return what a person calls a reward model: `reward=<name>` if it has a name, else its class."""
    names = REWARDS.names_in(type(model).__module__)
    return " or ".join(f"reward={name}" for name in names) or type(model).__name__


class RewardModel(Protocol):
    """Turns rows of one episode into rewards. Light and local; whatever is heavy is an encoder or a judge.

    Attributes:
        needs: Row fields that it reads; no other field is produced.
        context: How many earlier rows one reward looks at, or "episode": all of them from the reset on, which are kept
            until the episode has ended.
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

    def prepare(self, key: RowKey, row: Row) -> Row:
        """Return a row as it is to be kept until its reward is asked for, its pictures no larger than need be.

        Args:
            key: Where the row is from; the rows of an environment come in the order of time.
            row: As the environment wrote it.
        """
        ...

    def refresh(self) -> None:
        """Take in what the model was taught since the last call, which may make a new version.

        On-policy learners call it before each pass over a rollout, and reward the rollout again if the version is new.
        """
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
    """A reward model for which one large call is cheaper than several small ones."""

    def reward_all(self, parts: Sequence[Rows]) -> list[np.ndarray]:
        """Reward rows of several episodes, each as `__call__` would: for each part (n,) float32."""
        ...


def is_batched(model: RewardModel) -> TypeGuard[BatchedRewardModel]:
    """Return whether a model takes rows of several episodes in one call."""
    return hasattr(model, "reward_all")


class ClipRewardModel(RewardModel, Protocol):
    """A reward model that scores clips of frames against its goal and other sentences.

    Attributes:
        frames: Frames T of a clip.
        stride: Rows from one frame of a clip to the next.
        encoder: Embeds the frames.
    """

    @property
    def frames(self) -> int: ...  # noqa: D102

    @property
    def stride(self) -> int: ...  # noqa: D102

    @property
    def encoder(self) -> Encoder: ...  # noqa: D102

    def logits(self, clips: np.ndarray) -> np.ndarray:
        """Score clips, (n, T, E) float32 embeddings of frames: (n, N) float64, the goal's first of N sentences."""
        ...


def scores_clips(model: RewardModel) -> TypeGuard[ClipRewardModel]:
    """Return whether a model scores clips against sentences."""
    return hasattr(model, "logits") and hasattr(model, "frames")


class MovableRewardModel(RewardModel, Protocol):
    """A reward model that computes with torch and can do so on a device."""

    def to(self, device: str) -> object:
        """Move its weights to a torch device."""
        ...


def is_movable(model: RewardModel) -> TypeGuard[MovableRewardModel]:
    """Return whether a model can be moved to a torch device."""
    return hasattr(model, "to")


class HindsightRewardModel(RewardModel, Protocol):
    """A reward model that knows the reward of a step once its episode has ended; its `context` is "episode".

    It is called with all rows of an episode, from the reset to the last one, or to that at which the episode was cut.
    Replay buffers fill such an episode in when it is over. Without the attribute a model rewards a step by it and those
    before it.

    Attributes:
        awaits_end: Whether it does.
    """

    @property
    def awaits_end(self) -> bool: ...  # noqa: D102


def awaits_end(model: RewardModel) -> TypeGuard[HindsightRewardModel]:
    """Return whether a model knows the reward of a step only once its episode has ended."""
    return bool(getattr(model, "awaits_end", False))


class BackgroundRewardModel(RewardModel, Protocol):
    """A reward model that computes elsewhere while environments step on; its `context` is 0.

    Rows are given to it once, as they come in, those of a vector step together: what it computes at once does not
    depend on when somebody asks.

    Attributes:
        delay: Vector steps for which a learner that can should leave the newest rewards alone, so that nobody waits.
    """

    @property
    def delay(self) -> int: ...  # noqa: D102

    def start(self, rows: Sequence[Row]) -> Sequence[Any]:
        """Begin to reward rows; return for each what `finish` is to be given."""
        ...

    def finish(self, begun: Sequence[Any]) -> np.ndarray:
        """Return rewards, (n,) float32, each once; waits for those that are still on their way."""
        ...


def in_background(model: RewardModel) -> TypeGuard[BackgroundRewardModel]:
    """Return whether a model computes elsewhere while environments step on."""
    return hasattr(model, "start") and hasattr(model, "finish")


class QuantityReadingModel(RewardModel, Protocol):
    """A reward model that needs `quantities`, and not all that an environment has: only its own are gathered.

    Attributes:
        quantities: Paths of those that it reads; its rows hold their numbers, in the order of the abstraction.
    """

    @property
    def quantities(self) -> frozenset[QuantityPath]: ...  # noqa: D102


def quantities_of(model: RewardModel) -> frozenset[QuantityPath] | None:
    """Return which quantities a reward model reads; None for one that does not say, which is given all."""
    return getattr(model, "quantities", None)


class EpisodeEndingModel(RewardModel, Protocol):
    """A reward model that can end an episode, as one that tells success does. Its `requires_sync` says whether it will.

    The episode then terminates: nothing is to be had after it, and learners do not bootstrap there.
    """

    def ends(self, rewards: np.ndarray) -> np.ndarray:
        """Say which of its own rewards, (n,) float32, end their episode, (n,) bool."""
        ...
