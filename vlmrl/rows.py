"""Rows: what is known of one time step of one episode of one environment.

Environments write rows, encoders add embeddings to them, reward models read them. A row's key is
`(env, episode, t)`; `t = 0` is the reset row, and the last row of an episode is its true last frame, not the first
frame of the next episode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

FIELDS = frozenset(
    {
        "frames",
        "embeddings",
        "observation",
        "state",
        "quantities",
        "action",
        "text",
        "text_count",
        "reward",
        "native_reward",
        "success",
        "terminated",
        "truncated",
    }
)


class RowKey(NamedTuple):
    """Address of a row.

    Attributes:
        env: Index of the environment in its vector.
        episode: Number of the episode in that environment, counted from 0.
        t: Time step; 0 is the row of the reset.
    """

    env: int
    episode: int
    t: int


@dataclass(slots=True)
class Row:
    """One time step. A field that nobody asked for is None.

    Attributes:
        frames: {camera: (H, W, 3) uint8 RGB}, what the world looks like at t.
        embeddings: {camera: (E,) float32}, unit vectors.
        observation: What the policy saw, an array or a dict of arrays.
        state: {name: array}, simulator quantities that predicates read.
        quantities: (D,) float64, what reward programs read of the simulator, in the order of its abstraction
            (`vlmrl.quantities.Abstraction`).
        action: The action that led here; None at t = 0.
        text: What the environment said.
        text_count: How often it has said so in this episode, this time included.
        reward: What the environment gave on arriving here (the task's ground truth where there is a task).
        native_reward: What the environment itself gave, also where a task's ground truth took its place.
        success: Whether the task's predicate holds at t.
        terminated: Whether the episode ended here by its own rules.
        truncated: Whether the episode was cut off here.
    """

    frames: dict[str, np.ndarray] | None = None
    embeddings: dict[str, np.ndarray] | None = None
    observation: Any = None
    state: dict[str, np.ndarray] | None = None
    quantities: np.ndarray | None = None
    action: np.ndarray | None = None
    text: str | None = None
    text_count: int | None = None
    reward: float | None = None
    native_reward: float | None = None
    success: bool | None = None
    terminated: bool = False
    truncated: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Row:
        """Return the row itself.

        Stable-Baselines3's `DummyVecEnv` copies the infos of every step deeply. A row is new at each step and has one
        reader, so a copy, pictures and all, would only take time: a quarter of that of a step of NetHack.
        """
        return self


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one episode, in order, column by column.

    Attributes:
        t: (n,) int64 time steps, increasing by one.
        columns: {field: (n,) column}. `embeddings` and `frames` are {camera: (n, ...) array}, `state` is
            {name: (n, ...) array}, `text` is a list of n strings (in rows made by `from_arrays` their keys), the others
            are arrays of n entries.
    """

    t: np.ndarray
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, name: str) -> Any:
        """Return a column.

        Raises:
            KeyError: The column was not collected; the reward model did not list it in `needs`.
        """
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(
                f"These rows hold no '{name}' (they hold: {', '.join(sorted(self.columns)) or 'nothing'})."
            ) from None

    def part(self, first: int, last: int) -> Rows:
        """Return the rows at time steps `first` to `last`, both included."""
        chosen = slice(first - int(self.t[0]), last + 1 - int(self.t[0]))
        columns = {
            name: {key: part[chosen] for key, part in column.items()} if isinstance(column, Mapping) else column[chosen]
            for name, column in self.columns.items()
        }
        return Rows(self.t[chosen], columns)

    def arrays(self, fields: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns as arrays that can be kept one beside the other; `from_arrays` is the way back.

        Args:
            fields: Columns that are arrays, or dicts of arrays, or `text`, of which the keys are kept: who wants to
                read the texts again keeps a table of them.

        Returns:
            {"reward": (n,), "embeddings/front": (n, E), "text": (n,) uint64, ...}.
        """
        arrays: dict[str, np.ndarray] = {}
        for name in sorted(fields):
            column = self[name]
            if name == "text":
                arrays[name] = text_keys(column)
            elif isinstance(column, Mapping):
                arrays |= {f"{name}/{key}": np.asarray(column[key]) for key in sorted(column)}
            else:
                arrays[name] = np.asarray(column)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Rows:
        """Return rows with the columns that `arrays` made; their time steps are not known and count from 0."""
        columns: dict[str, Any] = {}
        for name, array in arrays.items():
            field_name, slash, key = name.partition("/")
            if slash:
                columns.setdefault(field_name, {})[key] = array
            else:
                columns[field_name] = array
        n = len(next(iter(arrays.values()))) if arrays else 0
        return Rows(np.arange(n), columns)


def text_keys(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return the first 64 bits of the SHA-256 of each text, (n,) uint64; keys stay as they are.

    Of a million different texts two share a key with a probability of 3e-8.
    """
    if isinstance(texts, np.ndarray) and texts.dtype == np.uint64:
        return texts
    return np.array([_text_key(text) for text in texts], dtype=np.uint64)


@lru_cache(maxsize=65536)
def _text_key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def stack(rows: Sequence[Row], t: Iterable[int], fields: Iterable[str]) -> Rows:
    """Turn rows of one episode into columns.

    Args:
        rows: Rows in order of time.
        t: Their time steps.
        fields: Names of the fields to take; every row must have them, but for `action` and the rewards at t = 0, which
            become zero.

    Raises:
        ValueError: A row lacks a field.
    """
    steps = np.fromiter(t, dtype=np.int64)
    columns: dict[str, Any] = {}
    for name in fields:
        values = [getattr(row, name) for row in rows]
        if name in ("action", "reward", "native_reward") and len(values) > 0 and values[0] is None and steps[0] == 0:
            like = next((value for value in values if value is not None), 0.0)
            values[0] = np.zeros_like(like)
        missing = [int(steps[i]) for i, value in enumerate(values) if value is None]
        if missing:
            raise ValueError(f"Rows at t = {missing[:5]} have no '{name}'.")
        if name == "text":
            columns[name] = values
        elif values and isinstance(values[0], Mapping):
            columns[name] = {key: np.stack([value[key] for value in values]) for key in values[0]}
        else:
            columns[name] = np.asarray(values)
    return Rows(steps, columns)
