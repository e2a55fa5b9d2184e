"""Clips of recent episodes, about which a judge can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from vlmrl.errors import UserError
from vlmrl.rows import Row, RowKey, Rows


@dataclass
class Clip:
    """Consecutive steps of an episode.

    Attributes:
        key: Its first row.
        length: Number of steps L.
        pictures: {step from 0: picture}, (H, W, 3) uint8 RGB; as PNG, which loses nothing, once its episode is over.
        truth: {step: what the environment gave}.
        columns: {step: what the reward model keeps of it, in the form of `Rows.arrays`}.
    """

    key: RowKey
    length: int
    pictures: dict[int, np.ndarray | bytes] = field(default_factory=dict)
    truth: dict[int, float] = field(default_factory=dict)
    columns: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all its steps are known and it has a picture."""
        return len(self.columns) == self.length and bool(self.pictures)

    @property
    def frames(self) -> np.ndarray:
        """Its pictures in order of time, (T, H, W, 3) uint8 RGB."""
        return np.stack([_unpacked(self.pictures[step]) for step in sorted(self.pictures)])

    @property
    def rewards(self) -> np.ndarray:
        """What the environment gave, (L,) float64."""
        return np.array([self.truth[step] for step in range(self.length)])

    @property
    def steps(self) -> dict[str, np.ndarray]:
        """What the reward model keeps of each step, {name: (L, ...)}."""
        return {name: np.stack([self.columns[step][name] for step in range(self.length)]) for name in self.columns[0]}

    def pack(self) -> None:
        """Compress its pictures."""
        for step, picture in self.pictures.items():
            if isinstance(picture, np.ndarray):
                self.pictures[step] = _packed(picture)


@dataclass
class _Episode:
    """What is kept of an episode: the clips that were drawn so far, by the place that each has among them."""

    rng: np.random.Generator
    clips: list[Clip] = field(default_factory=list)
    offered: int = 0


class ClipPool:
    """A `RowListener` that keeps some clips of each of the newest episodes, drawn evenly from all of theirs.

    An episode is a row of clips of one length without gaps, of which some are kept by reservoir sampling (Vitter:
    "Random Sampling with a Reservoir", ACM TOMS 1985, algorithm R), as an episode's length is not known before it ends.
    The draws depend on seed, environment and number of the episode alone, so a run that goes on draws what it would
    have drawn.

    Args:
        retains: Fields that the reward model keeps of a step.
        length: Steps of a clip.
        max_pictures: Pictures of a clip at most, evenly spread; one that is not drawn (`score_every`) is left out.
        per_episode: Clips kept of an episode.
        episodes: Number of newest episodes whose clips are kept.
        seed: Of the draws.
    """

    needs = frozenset({"frames", "reward"})

    def __init__(
        self,
        retains: frozenset[str],
        length: int = 1,
        max_pictures: int = 8,
        per_episode: int = 10,
        episodes: int = 100,
        seed: int = 0,
    ):
        self._retains, self._length = retains, length
        shown = np.linspace(0, length - 1, min(max_pictures, length))
        self._shown = set(np.round(shown).astype(int).tolist()) if length > 1 else {0}
        self._per_episode, self._newest, self._seed = per_episode, episodes, seed
        self._episodes: dict[tuple[int, int], _Episode] = {}  # the oldest first

    @property
    def clips(self) -> list[Clip]:
        """Clips that are complete, in the order of their rows."""
        found = [clip for episode in self._episodes.values() for clip in episode.clips if clip.is_complete]
        return sorted(found, key=lambda clip: clip.key)

    def arrived(self, key: RowKey, row: Row) -> None:
        """See `RowListener.arrived`."""
        episode = self._episodes.get((key.env, key.episode)) or self._begin(key)
        if key.t == 0:
            return
        step = (key.t - 1) % self._length
        if step == 0 and row.frames is not None:
            self._offer(episode, key)
        if row.frames is not None and step in self._shown:
            for clip in episode.clips:
                if clip.key.t == key.t - step:
                    # A copy, because renderers may draw into the same array again.
                    clip.pictures[step] = np.array(next(iter(row.frames.values())))

    def filled(self, env: int, episode: int, rows: Rows) -> None:
        """See `RowListener.filled`."""
        kept = self._episodes.get((env, episode))
        if kept is None:
            return
        first, last = int(rows.t[0]), int(rows.t[-1])
        wanted = [clip for clip in kept.clips if clip.key.t <= last and clip.key.t + clip.length > first]
        if not wanted:
            return
        columns, rewards = rows.arrays(self._retains), rows["reward"]
        for clip in wanted:
            for t in range(max(clip.key.t, first), min(clip.key.t + clip.length - 1, last) + 1):
                clip.columns[t - clip.key.t] = {name: np.array(column[t - first]) for name, column in columns.items()}
                clip.truth[t - clip.key.t] = float(rewards[t - first])

    def state_dict(self) -> dict[str, Any]:
        """Return the clips of all episodes but those that run: a checkpoint is taken where episodes start."""
        return {
            "episodes": {
                place: [clip for clip in episode.clips if clip.is_complete] for place, episode in self._episodes.items()
            }
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._episodes = {
            place: _Episode(self._rng(*place), clips, len(clips)) for place, clips in state["episodes"].items()
        }

    def _rng(self, env: int, episode: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, env, episode])

    def _begin(self, key: RowKey) -> _Episode:
        """Start an episode: compress the pictures of the one before it, and forget the oldest of all."""
        before = self._episodes.get((key.env, key.episode - 1))
        if before is not None:
            for clip in before.clips:
                clip.pack()
        self._episodes[key.env, key.episode] = _Episode(self._rng(key.env, key.episode))
        while len(self._episodes) > self._newest:
            del self._episodes[next(iter(self._episodes))]
        return self._episodes[key.env, key.episode]

    def _offer(self, episode: _Episode, key: RowKey) -> None:
        """Draw whether the clip that begins here is kept, and which one it replaces."""
        place = episode.offered
        episode.offered += 1
        if place >= self._per_episode:
            place = int(episode.rng.integers(episode.offered))
        if place < len(episode.clips):
            episode.clips[place] = Clip(key, self._length)
        elif place < self._per_episode:
            episode.clips.append(Clip(key, self._length))


def _packed(picture: np.ndarray) -> bytes:
    """Write a picture, (H, W, 3) uint8, as PNG."""
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise UserError(f"A picture of shape {picture.shape} cannot be written as PNG.")
    return data.tobytes()


def _unpacked(picture: np.ndarray | bytes) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        return picture
    return np.asarray(cv2.imdecode(np.frombuffer(picture, dtype=np.uint8), cv2.IMREAD_COLOR))
