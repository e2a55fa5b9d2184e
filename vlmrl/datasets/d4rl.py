"""HDF5 files of D4RL: flat arrays, cut into episodes where `terminals` or `timeouts` say so.

Source: Fu et al.: "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020 (arXiv 2004.07219), and the layout
that its `get_dataset` documents. A file says what was seen before each step. What was seen after an episode's last step
is in `next_observations` where there is such an array. Where there is none, the last step of an episode that was cut
off is left out, as D4RL's own `qlearning_dataset` does, and that of one that terminated leads to where it began: nobody
bootstraps from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets.base import CorruptEpisode, Episode
from vlmrl.errors import UserError, require

SUFFIXES = (".hdf5", ".h5")
NEEDED = ("observations", "actions", "rewards", "terminals")


class D4rlDataset:
    """An HDF5 file in D4RL's layout; `open` makes one.

    Args:
        spec: Path of the file.

    Raises:
        UserError: It cannot be read, lacks an array, or its arrays differ in length.
    """

    format = "d4rl"

    def __init__(self, spec: str):
        h5py = require("h5py", extra="minari")
        self.spec, self.path = spec, Path(spec)
        self.metadata: dict[str, Any] = {}
        try:
            with h5py.File(spec, "r") as file:
                missing = [name for name in NEEDED if name not in file]
                if missing:
                    raise UserError(
                        f"dataset={spec} is no file of D4RL: it has no {', '.join(missing)}. It has: "
                        f"{', '.join(file) or 'nothing'}."
                    )
                self._names = [name for name in (*NEEDED, "timeouts", "next_observations") if name in file]
                lengths = {name: len(file[name]) for name in self._names}
                if len(set(lengths.values())) > 1:
                    raise UserError(f"dataset={spec}: its arrays differ in length: {lengths}.")
                self._infos = [
                    name for name in file.get("infos", {}) if file["infos"][name].shape[:1] == (lengths["rewards"],)
                ]
                terminals = file["terminals"][()].astype(bool)
                timeouts = file["timeouts"][()].astype(bool) if "timeouts" in file else np.zeros_like(terminals)
                sizes = {name: file[name].shape[1:] for name in ("observations", "actions")}
                low, high = (file["actions"][()].min(initial=0), file["actions"][()].max(initial=0))
        except OSError as error:
            raise UserError(f"dataset={spec} cannot be read as HDF5: {error}.") from error
        self.observation_space: gym.Space = gym.spaces.Box(-np.inf, np.inf, sizes["observations"], np.float32)
        bound = max(1.0, float(-low), float(high))  # the file does not say; D4RL's environments act within [-1, 1]
        self.action_space: gym.Space = gym.spaces.Box(-bound, bound, sizes["actions"], np.float32)
        self._spans = self._cut(terminals, timeouts)

    @classmethod
    def recognises(cls, spec: str) -> bool:
        """See `DatasetFormat`."""
        return Path(spec).suffix in SUFFIXES and Path(spec).is_file()

    @classmethod
    def open(cls, spec: str) -> D4rlDataset:
        """See `DatasetFormat`."""
        return cls(spec)

    def __len__(self) -> int:
        return len(self._spans)

    def episode(self, i: int) -> Episode:
        """See `Dataset`."""
        h5py = require("h5py", extra="minari")
        first, last, terminated = self._spans[i]
        try:
            with h5py.File(self.spec, "r") as file:
                seen = file["observations"][first : last + 1]
                if "next_observations" in self._names:
                    observations = np.concatenate([seen, file["next_observations"][last : last + 1]])
                elif terminated:
                    observations = np.concatenate([seen, seen[-1:]])
                else:
                    observations, last = seen, last - 1
                steps = slice(first, last + 1)
                length = last + 1 - first
                ends = np.arange(length) == length - 1
                return Episode(
                    id=i,
                    length=length,
                    observations=observations,
                    actions=file["actions"][steps],
                    rewards=file["rewards"][steps].astype(np.float64).reshape(-1),
                    terminations=ends & terminated,
                    truncations=ends & (not terminated),
                    infos={name: file["infos"][name][steps] for name in self._infos},
                    name=f"steps {first} to {last}",
                )
        except OSError as error:
            raise CorruptEpisode(f"cannot be read ({error})") from error

    def episodes(self) -> Iterator[Episode]:
        """See `Dataset`."""
        return map(self.episode, range(len(self)))

    def recover_environment(self) -> gym.Env:
        """Refuse: a file of D4RL does not say what it was recorded in."""
        raise UserError(f"The file '{self.spec}' does not say in which environment it was recorded. Name it: env=...")

    def _cut(self, terminals: np.ndarray, timeouts: np.ndarray) -> list[tuple[int, int, bool]]:
        """Return (first step, last step, whether it terminated) of each episode of at least one whole step."""
        ends = np.flatnonzero(terminals | timeouts)
        if len(terminals) and (len(ends) == 0 or ends[-1] != len(terminals) - 1):
            ends = np.append(ends, len(terminals) - 1)  # the file stops within an episode
        firsts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
        spans = [(int(first), int(last), bool(terminals[last])) for first, last in zip(firsts, ends, strict=True)]
        whole = "next_observations" in self._names
        return [span for span in spans if whole or span[2] or span[1] > span[0]]
