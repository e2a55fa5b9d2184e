"""Memory that the processes of a run share: each place is written by one of them and read by others, without a lock."""

from __future__ import annotations

import math
import time
from multiprocessing import get_context

import numpy as np

EMPTY = 0  # the key of a slot that holds none
# Share of the slots beyond which a search takes long (linear probing; Knuth: The Art of Computer Programming 3, 6.4).
FULL = 0.7


class SharedScores:
    """Scores of texts: a hash table that this process writes and others read as they step.

    A reader sees a text's old score or its new one, never half of one: each is four bytes at a multiple of four, which
    processors write whole. A text that is just being put in is found without a score, NaN, until its score is there.
    The memory has no name; it travels to a process that is being started and is free when all of them have ended.

    Args:
        capacity: Texts that fit, at least 1.
    """

    def __init__(self, capacity: int = 1_000_000):
        self._slots = 1 << math.ceil(math.log2(capacity / FULL))
        self._capacity = capacity
        shared = get_context("spawn")
        self._state = shared.RawArray("d", 2)  # version, and when it was written
        self._keys = shared.RawArray("Q", self._slots)
        self._scores = shared.RawArray("f", self._slots)
        np.frombuffer(self._scores, dtype=np.float32)[:] = np.nan
        self._places: dict[int, int] = {}  # slots of the keys that this process has written

    def __len__(self) -> int:
        return len(self._places)

    @property
    def version(self) -> int:
        """The version of the labels that `write` was told last; 0 before it."""
        return int(self._state[0])

    @property
    def age(self) -> float:
        """Seconds since there was a new version; 0 before the first."""
        return max(0.0, time.time() - self._state[1]) if self._state[1] else 0.0

    def write(self, keys: np.ndarray, scores: np.ndarray, version: int) -> int:
        """Put scores in, or new ones in the place of old ones.

        Args:
            keys: (n,) uint64, see `vlmrl.rows.text_keys`.
            scores: (n,) float32; NaN for a text that has none.
            version: What to call the labels that they are from.

        Returns:
            How many found no room.
        """
        lost = 0
        for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
            place = self._places.get(key)
            if place is None:
                if len(self._places) >= self._capacity:
                    lost += 1
                    continue
                place = self._places[key] = self._find(key)
                self._scores[place] = score
                self._keys[place] = key or 1  # only now can a reader find it
            else:
                self._scores[place] = score
        if version != self._state[0]:
            self._state[1] = time.time()
            self._state[0] = version
        return lost

    def read(self, key: int) -> float:
        """Return the score of a text, NaN where it has none."""
        place = self._find(key)
        return self._scores[place] if self._keys[place] != EMPTY else math.nan

    def _find(self, key: int) -> int:
        """Return the slot that holds a key, else the empty one that it would get."""
        key = key or 1  # 0 means empty; that two texts share a key is as likely as ever
        place = key % self._slots
        while (found := self._keys[place]) != key and found != EMPTY:
            place = (place + 1) % self._slots
        return place

    def __getstate__(self) -> dict[str, object]:
        """Leave behind what only the writer needs."""
        return {**self.__dict__, "_places": {}}


class StepClock:
    """When each environment was last asked to step, and when it had: what tells one that hangs from one that waits.

    Times are those of `time.monotonic`, which on Linux and macOS is one clock for all processes.

    Args:
        n_envs: Environments of the run.
    """

    def __init__(self, n_envs: int):
        shared = get_context("spawn")
        now = time.monotonic()
        self._entered = shared.RawArray("d", [now] * n_envs)
        self._left = shared.RawArray("d", [now] * n_envs)
        self._steps = shared.RawArray("Q", n_envs)

    def enter(self, env: int) -> None:
        """Take note that an environment begins a step or a reset."""
        self._entered[env] = time.monotonic()

    def leave(self, env: int, steps: int = 1) -> None:
        """Take note that it has ended, and of the steps that it made."""
        self._left[env] = time.monotonic()
        self._steps[env] += steps

    @property
    def steps(self) -> int:
        """Steps of all environments together."""
        return sum(self._steps)

    def stuck(self) -> dict[int, float]:
        """Return the environments that are inside a step now, and for how many seconds."""
        now = time.monotonic()
        pairs = zip(self._entered, self._left, strict=True)
        return {env: now - entered for env, (entered, left) in enumerate(pairs) if entered > left}

    def idle(self) -> float:
        """Return the seconds since any environment ended a step."""
        return time.monotonic() - max(self._left)
