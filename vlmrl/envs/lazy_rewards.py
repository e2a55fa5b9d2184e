"""Rewards that are computed when somebody reads them.

Rows come in as environments step; their frames go to the scorer at once and the environments step on. A buffer asks
for the rewards of its transitions at the last moment, and then they are filled in, in batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlmrl.episodes import EpisodeStore
from vlmrl.reward_models.base import RewardModel
from vlmrl.rows import Row, RowKey
from vlmrl.serving.scorer import Scorer, Ticket

KEY_DTYPE = np.dtype([("env", np.int32), ("episode", np.int32), ("t", np.int32)])


@dataclass
class RewardScale:
    """An affine map of the reward that the learner sees, fixed by the first rewards and saved with the learner.

    CLIP's cosines live in a band a few hundredths wide. Dividing by the standard deviation of the first rewards (those
    of random actions, mostly) brings them to the size that default entropy and learning-rate settings expect. It is
    never updated: a moving scale would give one transition different rewards at different times.

    Attributes:
        enabled: Whether to scale at all.
        centre: Whether to subtract the mean as well. Right only where episodes do not end early: there it moves
            every return by a constant, elsewhere it changes what is optimal.
        mean, std: Fixed values; None until the first rewards are there.
    """

    enabled: bool = False
    centre: bool = False
    mean: float | None = None
    std: float | None = None

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Return scaled rewards, (n,) float32; the first call with rewards fixes the scale."""
        if not self.enabled or len(rewards) == 0:
            return rewards
        if self.std is None:
            self.mean = float(rewards.mean()) if self.centre else 0.0
            spread = float(rewards.std())
            self.std = spread if spread > 1e-6 else 1.0  # a constant reward stays as it is
        return ((rewards - self.mean) / self.std).astype(np.float32)


class LazyRewards:
    """Keeps the rows that rewards still need and turns them into rewards on demand.

    Each row's reward is filled once, in the order of time within an episode; rows that no later reward looks at are
    dropped as it goes. A row whose frame was not drawn has the embeddings of the row before it.

    Args:
        model: The reward model.
        scorer: Where its encoder runs; needed if the model reads embeddings.
        scale: How the learner sees the rewards; the returns that are reported are not scaled.
    """

    def __init__(self, model: RewardModel, scorer: Scorer | None = None, scale: RewardScale | None = None):
        if "embeddings" in model.needs and scorer is None:
            raise ValueError("A reward model that reads embeddings needs a scorer.")
        if model.context == "episode":
            raise ValueError("Rewards over whole episodes cannot be filled step by step.")
        self.model = model
        self.scale = scale or RewardScale()
        self._context: int = model.context
        self._scorer = scorer
        self._store = EpisodeStore()
        self._tickets: dict[RowKey, dict[str, Ticket]] = {}
        self._next: defaultdict[tuple[int, int], int] = defaultdict(lambda: 1)  # time step whose reward comes next
        self._last: dict[tuple[int, int], int] = {}  # last time step of episodes that have ended
        self._returns: defaultdict[tuple[int, int], float] = defaultdict(float)
        self._cut: set[tuple[int, int]] = set()  # episodes that were left before their end
        self._held: dict[tuple[int, int], dict[str, np.ndarray]] = {}  # newest embeddings of each running episode
        self._finished: list[float] = []

    def __len__(self) -> int:
        """Number of rows kept."""
        return len(self._store)

    def observe(self, rows: Sequence[tuple[RowKey, Row]]) -> None:
        """Take in rows, several environments' at once so that their frames travel together."""
        encode = "embeddings" in self.model.needs
        claims: list[tuple[RowKey, str]] = []
        frames: list[np.ndarray] = []
        for key, row in rows:
            if encode and row.frames is not None:
                for camera, frame in row.frames.items():
                    claims.append((key, camera))
                    frames.append(frame)
                if "frames" not in self.model.needs:
                    row = replace(row, frames=None)
            if row.terminated or row.truncated:
                self._last[key.env, key.episode] = key.t
            if key.t > 0 or self._context > 0:
                self._store.add(key, row)
        if frames:
            assert self._scorer is not None
            for (key, camera), ticket in zip(claims, self._scorer.submit(np.stack(frames)), strict=True):
                self._tickets.setdefault(key, {})[camera] = ticket

    def fill(self, keys: np.ndarray) -> np.ndarray:
        """Compute rewards, waiting for embeddings that are still on their way.

        Args:
            keys: (n,) of `KEY_DTYPE`; within an episode they continue where the last call stopped.

        Returns:
            (n,) float32, scaled.

        Raises:
            FloatingPointError: The model gave a reward that is not finite.
            RuntimeError: A reward was asked for twice or out of order.
        """
        places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            places[int(key["env"]), int(key["episode"])].append(place)
        self._collect([RowKey(*map(int, key)) for key in keys])
        raw = np.empty(len(keys), dtype=np.float32)
        for (env, episode), where in places.items():
            where = sorted(where, key=lambda place: keys[place]["t"])
            raw[where] = self._fill_episode(env, episode, [int(keys[place]["t"]) for place in where])
        return self.scale(raw)

    def cut(self, key: RowKey) -> None:
        """Take note that an episode was left at this row, before its end; its return is not reported."""
        place = (key.env, key.episode)
        if place in self._last:
            return
        self._last[place] = key.t
        self._cut.add(place)
        if self._next[place] > key.t:
            self._finish(place)

    def pop_returns(self) -> list[float]:
        """Return the unscaled sums of rewards of the episodes that were completed since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: the fixed scale."""
        return {"mean": self.scale.mean, "std": self.scale.std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's scale."""
        self.scale.mean, self.scale.std = state["mean"], state["std"]

    def close(self) -> None:
        """Close the scorer."""
        if self._scorer is not None:
            self._scorer.close()

    def _collect(self, keys: list[RowKey]) -> None:
        """Put the embeddings of these rows, and of the rows before them that they look at, into the store."""
        wanted = dict.fromkeys(
            RowKey(key.env, key.episode, t) for key in keys for t in range(max(0, key.t - self._context), key.t + 1)
        )
        claims = [(key, camera, ticket) for key in wanted for camera, ticket in self._tickets.pop(key, {}).items()]
        if not claims:
            return
        assert self._scorer is not None
        for (key, camera, _), embedding in zip(
            claims, self._scorer.collect([claim[2] for claim in claims]), strict=True
        ):
            row = self._store[key]
            row.embeddings = {**(row.embeddings or {}), camera: embedding}

    def _fill_episode(self, env: int, episode: int, steps: list[int]) -> np.ndarray:
        expected = self._next[env, episode]
        if steps != list(range(expected, expected + len(steps))):
            raise RuntimeError(
                f"Environment {env}, episode {episode}: the next reward is that of t = {expected}, not {steps[:3]}."
            )
        first = max(1 if self._context == 0 else 0, steps[0] - self._context)
        if "embeddings" in self.model.needs:
            self._hold(env, episode, first, steps[-1])
        rows = self._store.rows(env, episode, first, steps[-1], self.model.needs)
        rewards = np.asarray(self.model(rows), dtype=np.float32)
        if rewards.shape != (len(rows),):
            raise ValueError(f"{type(self.model).__name__} gave shape {rewards.shape} for {len(rows)} rows.")
        rewards = rewards[-len(steps) :]
        if not np.isfinite(rewards).all():
            bad = steps[int(np.flatnonzero(~np.isfinite(rewards))[0])]
            raise FloatingPointError(
                f"{type(self.model).__name__} gave {rewards[steps.index(bad)]} "
                f"at environment {env}, episode {episode}, t = {bad}."
            )
        self._returns[env, episode] += float(rewards.sum())
        self._next[env, episode] = steps[-1] + 1
        self._store.drop_before(env, episode, steps[-1] + 1 - self._context)
        if self._last.get((env, episode)) == steps[-1]:
            self._finish((env, episode))
        return rewards

    def _hold(self, env: int, episode: int, first: int, last: int) -> None:
        """Give rows without a frame of their own the embeddings of the row before them."""
        for t in range(first, last + 1):
            row = self._store[RowKey(env, episode, t)]
            if row.embeddings is None:
                row.embeddings = self._held.get((env, episode))
            elif t >= self._next[env, episode] or (env, episode) not in self._held:
                self._held[env, episode] = row.embeddings

    def _finish(self, place: tuple[int, int]) -> None:
        """All rewards of an episode are out: report its return and forget it."""
        self._store.drop_before(*place, self._last.pop(place) + 1)
        del self._next[place]
        self._held.pop(place, None)
        total = self._returns.pop(place, 0.0)
        if place in self._cut:
            self._cut.remove(place)
        else:
            self._finished.append(total)
