"""What a dataset is: episodes that somebody recorded, one after the other, whatever the files are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from vlmrl.datasets import DATASETS
from vlmrl.errors import UserError, unknown

FRAMES = "frames"  # where in an episode's infos pictures are kept: {camera: (T + 1, H, W, 3) uint8}
STATE = "state"  # and simulator quantities: {name: (T + 1, ...)}
ORIGINAL_REWARD = "original_reward"  # and the rewards that relabelling replaced: (T,)


class Frames:
    """The pictures of one camera in one episode, decoded when they are read, in order and one at a time.

    Args:
        count: How many there are.
        opened: Starts again at the first picture; gives (H, W, 3) uint8 RGB.
    """

    def __init__(self, count: int, opened: Callable[[], Iterator[np.ndarray]]):
        self._count, self._opened = count, opened

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield every picture.

        Raises:
            CorruptEpisode: There are fewer or more than was said, or one cannot be decoded.
        """
        seen = 0
        for frame in self._opened():
            seen += 1
            if seen > self._count:
                break
            yield frame
        if seen != self._count:
            raise CorruptEpisode(
                f"{'more than ' * (seen > self._count)}{min(seen, self._count)} frames of {self._count}"
            )

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the pictures as arrays (n, H, W, 3) uint8, n = `size` but for the last."""
        frames = iter(self)
        while chunk := list(islice(frames, size)):
            yield np.stack(chunk)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return them all, (n, H, W, 3) uint8."""
        return np.asarray(np.stack(list(self)), dtype=dtype)


class CorruptEpisode(Exception):
    """An episode that is not what it should be; the text says what is wrong and goes behind the episode's name."""


@dataclass(frozen=True)
class Episode:
    """What was recorded of one episode of T steps. Nobody may write into the arrays.

    Row t of what has T + 1 entries is what things were like at t, row 0 after the reset; entry t of what has T entries
    belongs to the step from t to t + 1.

    Attributes:
        id: Its number in the dataset.
        length: T, at least 1.
        observations: (T + 1, ...) array, or a dict of such arrays, nested or not; None where none were recorded.
        actions: (T, ...), or a dict of such arrays; None where none were recorded.
        rewards: (T,) float64; None where none were recorded.
        terminations: (T,) bool, whether the episode ended there by its own rules.
        truncations: (T,) bool, whether it was cut off there.
        infos: {name: (T, ...) or (T + 1, ...) array, or a dict of such}; without the frames.
        frames: {camera: T + 1 pictures}, decoded when read.
        text: What should be done, in words; empty where nobody said.
        fps: Frames a second; None where nobody said.
        name: What a person finds it by, such as the name of its file.
        metadata: What else the files say of it, such as its seed.
    """

    id: int
    length: int
    observations: Any = None
    actions: Any = None
    rewards: np.ndarray | None = None
    terminations: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    truncations: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    infos: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, Frames] = field(default_factory=dict)
    text: str = ""
    fps: float | None = None
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Look at counts and numbers; pictures are counted when they are read.

        Raises:
            CorruptEpisode: A count does not fit the number of steps, or an observation, action or reward is not finite.
        """
        if self.length < 1:
            raise CorruptEpisode("has no step")
        for name, value, counts in (
            ("observations", self.observations, (self.length + 1,)),
            ("actions", self.actions, (self.length,)),
            ("rewards", self.rewards, (self.length,)),
            ("terminations", self.terminations, (self.length,)),
            ("truncations", self.truncations, (self.length,)),
            ("infos", dict(self.infos), (self.length, self.length + 1)),
        ):
            for path, leaf in leaves(value, name):
                if len(leaf) not in counts:
                    raise CorruptEpisode(f"has {self.length} steps and {len(leaf)} {path}, not {counts[-1]}")
                if name != "infos" and leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                    where = int(np.argwhere(~np.isfinite(leaf))[0][0])
                    raise CorruptEpisode(f"{path} at step {where} are not finite ({leaf[where]})")
        early = np.flatnonzero((self.terminations | self.truncations)[:-1])
        if len(early):
            raise CorruptEpisode(f"says that it ended at step {early[0]}, and goes on to step {self.length - 1}")
        for camera, frames in self.frames.items():
            if len(frames) != self.length + 1:
                raise CorruptEpisode(
                    f"has {self.length} steps and {len(frames)} frames of camera {camera}, not {self.length + 1}"
                )


class Dataset(Protocol):
    """Recorded episodes. `len` is their number.

    Attributes:
        spec: What a person opened it with.
        format: Its entry in `DATASETS`.
        path: The folder or file that it is.
        observation_space: Space of the observations; None where none were recorded.
        action_space: Space of the actions; None where none were recorded.
        metadata: What the files say of the whole, ready for JSON; "vlmrl" holds what this suite wrote there: the scene
            that was recorded, and for relabelled data what the rewards come from.
    """

    @property
    def spec(self) -> str: ...  # noqa: D102

    @property
    def format(self) -> str: ...  # noqa: D102

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def observation_space(self) -> gym.Space | None: ...  # noqa: D102

    @property
    def action_space(self) -> gym.Space | None: ...  # noqa: D102

    @property
    def metadata(self) -> Mapping[str, Any]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def episode(self, i: int) -> Episode:
        """Read episode `i`, 0 to len - 1.

        Raises:
            CorruptEpisode: Its files are missing or cannot be read.
        """
        ...

    def episodes(self) -> Iterator[Episode]:
        """Read one episode after the other; only one is in memory.

        Raises:
            CorruptEpisode: See `episode`.
        """
        ...

    def recover_environment(self) -> gym.Env:
        """Make the environment that was recorded.

        Raises:
            UserError: The files do not say which it was, or it cannot be made here.
        """
        ...


class DatasetFormat(Protocol):
    """What an entry of `DATASETS` offers."""

    @classmethod
    def recognises(cls, spec: str) -> bool:
        """Say whether `spec` is a dataset of this kind, after a look that costs nothing."""
        ...

    @classmethod
    def open(cls, spec: str) -> Dataset:
        """Open it.

        Raises:
            UserError: It cannot be read.
        """
        ...


def open_dataset(spec: str) -> Dataset:
    """Open a dataset, whatever it is.

    Args:
        spec: Id of a Minari dataset, or a path: of a Minari dataset, a LeRobot dataset (v3), an HDF5 file of D4RL, or a
            folder of clips or of pictures. "<format>:<spec>", such as "clips:my_folder", says which it is.

    Raises:
        UserError: There is no such thing, or nobody can tell what it is.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in DATASETS:
        return DATASETS.load(prefix).open(rest)
    if colon and prefix.isidentifier() and len(prefix) > 1:  # C:\data is a path
        raise unknown("dataset format", prefix, DATASETS)
    for name in DATASETS:
        kind = DATASETS.load(name)
        if kind.recognises(spec):
            return kind.open(spec)
    raise UserError(
        f"dataset={spec} is no dataset: it is neither the id of a Minari dataset on this machine (minari list local), "
        "nor a folder of a Minari or LeRobot (v3) dataset, an HDF5 file of D4RL, or a folder with clips (mp4) or "
        f"pictures. To say which it is: <format>:<path>, with one of {', '.join(DATASETS)}."
    )


@dataclass(frozen=True)
class Transitions:
    """All steps of a dataset, one after the other; what offline learners read.

    Attributes:
        observations: (N, D) float32, flattened as `gymnasium.spaces.flatten` does; discrete ones are one-hot.
        actions: (N, ...) float32, or (N,) int64 for a discrete space.
        rewards: (N,) float32.
        next_observations: (N, D) float32; at an episode's end its true last observation.
        terminations: (N,) bool; learners do not bootstrap there.
        timeouts: (N,) bool, whether the episode ended there though it need not have.
        episode_ids: (N,) int64.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminations: np.ndarray
    timeouts: np.ndarray
    episode_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)


def transitions(dataset: Dataset) -> Transitions:
    """Read all steps of a dataset into memory, without the pictures.

    Raises:
        UserError: An episode is corrupt, or there are no observations, actions or rewards to learn from.
    """
    if dataset.observation_space is None or dataset.action_space is None:
        what = " and ".join(
            name
            for name, space in (("observations", dataset.observation_space), ("actions", dataset.action_space))
            if space is None
        )
        raise UserError(f"The dataset '{dataset.spec}' has no {what}, so no policy can be learned from it.")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in Transitions.__dataclass_fields__}
    for i in range(len(dataset)):
        try:
            episode = dataset.episode(i)
            episode.check()
        except CorruptEpisode as error:
            raise UserError(
                f"The dataset '{dataset.spec}': episode {i} {error}. vlmrl.relabel with on_error=skip writes a dataset "
                "without such episodes."
            ) from error
        if episode.rewards is None:
            raise UserError(
                f"The dataset '{dataset.spec}' has no rewards. Give it some: python -m vlmrl.relabel "
                f"dataset={dataset.spec} reward=clip goal='...' out=<id>"
            )
        seen = flatten(dataset.observation_space, episode.observations)
        columns["observations"].append(seen[:-1])
        columns["next_observations"].append(seen[1:])
        columns["actions"].append(_actions(dataset.action_space, episode.actions))
        columns["rewards"].append(episode.rewards.astype(np.float32))
        columns["terminations"].append(episode.terminations)
        ends = np.zeros(episode.length, dtype=bool)
        ends[-1] = True  # a recording that just stops was cut off as well
        columns["timeouts"].append((episode.truncations | ends) & ~episode.terminations)
        columns["episode_ids"].append(np.full(episode.length, episode.id, dtype=np.int64))
    if not columns["rewards"]:
        raise UserError(f"The dataset '{dataset.spec}' has no episodes.")
    return Transitions(**{name: np.concatenate(parts) for name, parts in columns.items()})


def flatten(space: gym.Space, values: Any) -> np.ndarray:
    """Flatten n samples of a space, column by column, into (n, D) float32, in the order of `gymnasium.spaces.flatten`.

    Args:
        space: Space of one sample; one of Box, Discrete, MultiBinary, MultiDiscrete, Dict, Tuple.
        values: n samples: an array (n, ...), or a dict or tuple of such.

    Raises:
        UserError: Another kind of space.
    """
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([flatten(part, values[name]) for name, part in space.spaces.items()], axis=1)
    if isinstance(space, gym.spaces.Tuple):
        return np.concatenate([flatten(part, value) for part, value in zip(space, values, strict=True)], axis=1)
    array = np.asarray(values)
    if isinstance(space, gym.spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[array.reshape(-1) - space.start]
    if isinstance(space, gym.spaces.MultiDiscrete):
        digits = (array - space.start).reshape(len(array), -1)
        return np.concatenate(
            [np.eye(n, dtype=np.float32)[digits[:, j]] for j, n in enumerate(space.nvec.flat)], axis=1
        )
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return array.reshape(len(array), -1).astype(np.float32)
    raise UserError(f"Observations of a space {space} cannot be flattened; Box, Discrete and dicts of them can.")


def _actions(space: gym.Space, actions: Any) -> np.ndarray:
    """Return actions as learners take them."""
    if isinstance(space, gym.spaces.Box):
        return np.asarray(actions, dtype=np.float32)
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(actions, dtype=np.int64).reshape(-1)
    raise UserError(f"Policies are learned for actions in a Box or a Discrete space; these are in {space}.")


def leaves(value: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (path, array) of every array in nested dicts and tuples, "infos.state.angle"; None has none."""
    if value is None:
        return
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from leaves(part, f"{path}.{name}")
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from leaves(part, f"{path}.{i}")
    else:
        yield path, np.asarray(value)
