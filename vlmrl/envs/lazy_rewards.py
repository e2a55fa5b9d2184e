"""Rewards that are computed when somebody reads them.

Rows come in as environments step; their frames go to the scorer at once and the environments step on. A buffer asks
for the rewards of its transitions at the last moment, and then they are filled in, in batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, Protocol

import numpy as np

from vlmrl.envs.shaping import PotentialShaping, RewardBonus, Shaping, check_potential
from vlmrl.episodes import EpisodeStore
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, awaits_end, called, in_background, is_batched, is_learned
from vlmrl.rows import Row, RowKey, Rows
from vlmrl.serving.scorer import Scorer, Ticket

Between = Literal["hold", "interpolate"]
Place = tuple[int, int]  # an episode: index of its environment, and its number there

EVER = 2**31 - 1  # more time steps than any episode has
KEY_DTYPE = np.dtype([("env", np.int32), ("episode", np.int32), ("t", np.int32)])

# Takes positions among the keys of a fill, (n,) int, and what is retained of their rows, in the form of `Rows.arrays`.
Keep = Callable[[np.ndarray, Mapping[str, np.ndarray]], None]


class RowListener(Protocol):
    """Looks on as rows come in and as their rewards are filled in.

    Attributes:
        needs: Row fields that it reads beside those of the reward model.
    """

    @property
    def needs(self) -> frozenset[str]: ...  # noqa: D102

    def arrived(self, key: RowKey, row: Row) -> None:
        """Take note of a row, its pictures as they were drawn; the reset's come too."""
        ...

    def filled(self, env: int, episode: int, rows: Rows) -> None:
        """Take note of consecutive rows whose rewards are in, with the model's columns and `reward`."""
        ...


@dataclass
class RewardScale:
    """An affine map of the reward that the learner sees, fixed by the first rewards and saved with the learner.

    CLIP's cosines live in a band a few hundredths wide. Dividing by the standard deviation of the first rewards (those
    of random actions, mostly) brings them to the size that default entropy and learning-rate settings expect. It is
    never updated: a moving scale would give one transition different rewards at different times. A reward model that
    learns has one for each version: every transition that is kept is rewarded again, and those rewards fix the scale
    that they and all to come have until the next version.

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

    def forget(self) -> None:
        """Let the next rewards fix the scale again."""
        self.mean = self.std = None


@dataclass(frozen=True)
class _Unshaped:
    """What shaping wants to know of n consecutive steps of an episode; nothing where rewards are not shaped.

    Attributes:
        rewards: (n,) float64, what the environment gave.
        terminated: (n,) bool.
        start: The model's reward of the reset row, where the steps begin right after it.
        before: Else the potential of the row before them.
    """

    rewards: np.ndarray | None = None
    terminated: np.ndarray | None = None
    start: float | None = None
    before: float | None = None


class LazyRewards:
    """Keeps the rows that rewards still need and turns them into rewards on demand.

    Each row's reward is filled once, in the order of time within an episode; rows that no later reward looks at are
    dropped as it goes. A row whose frame was not drawn has the embeddings of the row before it, or its reward lies on
    the line between those of its neighbours that were drawn. It is rewards that are interpolated, and not embeddings: a
    point between two unit vectors is none, and for rewards that are linear in the embedding, as a cosine is, both come
    to the same.

    What the learner sees is made in this order: the model's rewards, interpolated, scaled, and, with `shaping`, taken
    as potentials or as a bonus. The returns that are reported are sums of the first two.

    Args:
        model: The reward model.
        scorer: Where its encoder runs; needed if the model reads embeddings.
        scale: How the learner sees the rewards; the returns that are reported are not scaled.
        shaping: Take the scaled rewards as potentials that shape the environment's own reward, or add them to it; None
            takes them as the reward itself.
        every: A frame is drawn at every so many steps, see `RowWriter`.
        between: "hold" or "interpolate". The line to the next drawn frame is known once that is there, so
            interpolated rewards should be asked for `lag` steps later. Where the next frame has not come when they are
            asked for, at the end of a rollout or where an episode is cut, the last one is held.
        delay: Vector steps after which scorer or model have surely had time for a row; see `lag`.
        listener: Is told of every row.

    Raises:
        UserError: The options contradict the model.
    """

    def __init__(
        self,
        model: RewardModel,
        scorer: Scorer | None = None,
        scale: RewardScale | None = None,
        shaping: Shaping | None = None,
        every: int = 1,
        between: Between = "hold",
        delay: int = 0,
        listener: RowListener | None = None,
    ):
        if "embeddings" in model.needs and scorer is None:
            raise ValueError("A reward model that reads embeddings needs a scorer.")
        context = EVER if model.context == "episode" else model.context
        if between == "interpolate" and (context > 0 or model.requires_sync):
            raise UserError(
                "between=interpolate gives the steps between two looks a reward between both; "
                f"{called(model)} {'ends episodes' if model.requires_sync else 'compares steps'} and cannot "
                "wait for the second. Use between=hold."
            )
        if shaping is not None and model.requires_sync:
            if isinstance(shaping, RewardBonus):
                raise UserError(
                    f"use_as=bonus adds to the rewards of whole episodes of the task, and {called(model)} would "
                    "end them. Use reward.ends_episode=false or use_as=reward."
                )
            raise UserError(
                f"use_as=potential leaves the task as it is, and {called(model)} would end its episodes. "
                "Use reward.ends_episode=false or use_as=reward."
            )
        if is_learned(model):
            _check_learned(model, shaping, between == "interpolate" and every > 1)
        if awaits_end(model):
            _check_hindsight(model, shaping)
        if isinstance(shaping, PotentialShaping):
            check_potential(model)
        self.model = model
        self.listener = listener
        self.scale = scale or RewardScale()
        self.shaping = shaping
        self._context = context
        self._interpolates = between == "interpolate" and every > 1
        self._every = every
        self._scorer = scorer
        self._delay = delay
        self._store = EpisodeStore()
        self._tickets: dict[RowKey, dict[str, Ticket]] = {}
        self._begun: dict[RowKey, Any] = {}  # for a model that computes in the background: what it said of each row
        self._next: defaultdict[Place, int] = defaultdict(lambda: 1)  # time step whose reward comes next
        self._last: dict[Place, int] = {}  # last time step of episodes that have ended
        self._running: set[Place] = set()
        self._returns: defaultdict[Place, float] = defaultdict(float)
        self._cut: set[Place] = set()  # episodes that were left before their end
        self._held: dict[Place, dict[str, np.ndarray]] = {}  # newest embeddings of each running episode
        # For interpolation: time steps of drawn frames that wait, and that of the newest one that was filled, with its
        # reward.
        self._drawn: defaultdict[Place, list[int]] = defaultdict(list)
        self._anchor: dict[Place, tuple[int, float]] = {}
        self._potential: dict[Place, float] = {}  # for shaping: that of the row whose reward was filled last
        self._finished: list[float] = []

    def __len__(self) -> int:
        """Number of rows kept."""
        return len(self._store)

    @property
    def lag(self) -> int:
        """Number of steps after which a reward is known: the delay, from the next drawn frame on."""
        return self._delay + (self._every - 1 if self._interpolates else 0)

    def pending(self, newest: np.ndarray) -> int:
        """Return the number of newest vector steps whose rewards are not asked for yet.

        It is `lag`, and with a model that awaits an episode's end all steps since the oldest running episode began.

        Args:
            newest: (n_envs,) of `KEY_DTYPE`, rows that the newest of the vector steps arrived at.
        """
        if not awaits_end(self.model):
            return self.lag
        running = (int(key["t"]) for key in newest if (int(key["env"]), int(key["episode"])) in self._running)
        return max(self.lag, *running, 0)

    @property
    def needs(self) -> frozenset[str]:
        """Row fields that environments must write."""
        return self.model.needs | (self.listener.needs if self.listener is not None else frozenset())

    @property
    def reads_reset(self) -> bool:
        """Whether the row of the reset is looked at."""
        return self._context > 0 or self.shaping is not None

    def observe(self, rows: Sequence[tuple[RowKey, Row]]) -> None:
        """Take in rows, several environments' at once so that their frames travel together.

        A row whose embeddings are known may come with these in place of its frames.
        """
        encode = "embeddings" in self.model.needs
        claims: list[tuple[RowKey, str]] = []
        frames: list[np.ndarray] = []
        kept: list[tuple[RowKey, Row]] = []
        for key, row in rows:
            if self.listener is not None:
                self.listener.arrived(key, row)
            if self._interpolates and (row.frames is not None or row.embeddings is not None):
                self._drawn[key.env, key.episode].append(key.t)
            if encode and row.frames is not None:
                for camera, frame in row.frames.items():
                    claims.append((key, camera))
                    frames.append(frame)
            if row.frames is not None and "frames" not in self.model.needs:
                row = replace(row, frames=None)
            if is_learned(self.model):
                row = self.model.prepare(key, row)
            if row.terminated or row.truncated:
                self._last[key.env, key.episode] = key.t
                self._running.discard((key.env, key.episode))
            else:
                self._running.add((key.env, key.episode))
            if key.t > 0 or self.reads_reset:
                self._store.add(key, row)
                kept.append((key, row))
        if kept and in_background(self.model):
            begun = self.model.start([row for _, row in kept])
            self._begun.update(zip((key for key, _ in kept), begun, strict=True))
        if frames:
            assert self._scorer is not None
            for (key, camera), ticket in zip(claims, self._scorer.submit(frames), strict=True):
                self._tickets.setdefault(key, {})[camera] = ticket

    def fill(self, keys: np.ndarray, keep: Keep | None = None) -> np.ndarray:
        """Compute rewards, waiting for embeddings that are still on their way.

        Args:
            keys: (n,) of `KEY_DTYPE`; within an episode they continue where the last call stopped.
            keep: Is given what a model that learns retains of each row, for `again`.

        Returns:
            (n,) float32, as the learner sees them.

        Raises:
            FloatingPointError: The model gave a reward that is not finite.
            RuntimeError: A reward was asked for twice or out of order, or before the end of its episode that it awaits.
        """
        asked: defaultdict[Place, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            asked[int(key["env"]), int(key["episode"])].append(i)
        order = {place: sorted(where, key=lambda i: keys[i]["t"]) for place, where in asked.items()}
        steps = {place: [int(keys[i]["t"]) for i in where] for place, where in order.items()}
        self._collect(steps)
        raw = np.empty(len(keys), dtype=np.float32)
        unshaped: dict[Place, _Unshaped] = {}
        looked_at = {place: self._rows(place, steps[place]) for place in order}
        for (place, where), rewards in zip(order.items(), self._ask(looked_at), strict=True):
            raw[where], rows, unshaped[place] = self._fill_episode(place, steps[place], looked_at[place], rewards)
            if keep is not None and self.model.retains:
                keep(np.array(where), rows.arrays(self.model.retains))
        scaled = self.scale(raw)
        if self.shaping is None:
            return scaled
        for place, where in order.items():
            scaled[where] = self._shape(place, unshaped[place], scaled[where])
        return scaled

    def again(self, retained: Mapping[str, np.ndarray]) -> np.ndarray:
        """Reward rows that were rewarded before, as the model now does.

        Args:
            retained: What `fill` gave to `keep`, of n rows.

        Returns:
            (n,) float32, not scaled.

        Raises:
            FloatingPointError: The model gave a reward that is not finite.
        """
        rewards = np.asarray(self.model(Rows.from_arrays(retained)), dtype=np.float32)
        if not np.isfinite(rewards).all():
            raise FloatingPointError(f"{type(self.model).__name__} gave rewards that are not finite.")
        return rewards

    def cut(self, key: RowKey) -> None:
        """Take note that an episode was left at this row, before its end; its return is not reported."""
        place = (key.env, key.episode)
        if place not in self._last:
            self._cut.add(place)
            self.end(key)

    def end(self, key: RowKey) -> None:
        """Take note that an episode has ended at this row, though the row itself does not say so."""
        place = (key.env, key.episode)
        self._last[place] = key.t
        self._running.discard(place)
        if self._next[place] > key.t:
            self._finish(place)

    def pop_returns(self) -> list[float]:
        """Return the unscaled sums of rewards of the episodes that were completed since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: the fixed scale, and returns that nobody has read yet."""
        return {"mean": self.scale.mean, "std": self.scale.std, "finished": list(self._finished)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.scale.mean, self.scale.std = state["mean"], state["std"]
        self._finished = list(state["finished"])

    def pop_model_stats(self) -> dict[str, float]:
        """Return what the reward model says of its rewards since the last call; empty where it says nothing."""
        pop = getattr(self.model, "pop_stats", None)
        return pop() if pop is not None else {}

    def pop_scorer_stats(self) -> dict[str, float]:
        """Return what the scorer did since the last call; see `BatchingScorer.pop_stats`. Empty without one."""
        return self._scorer.pop_stats() if self._scorer is not None else {}

    def close(self) -> None:
        """Close the scorer."""
        if self._scorer is not None:
            self._scorer.close()

    def _collect(self, asked: Mapping[Place, list[int]]) -> None:
        """Put the embeddings of rows that are asked for, and of all others that they look at, into the store."""
        claims = [
            (key, camera, ticket)
            for (env, episode), steps in asked.items()
            for t in range(self._first(steps), self._look_ahead((env, episode), steps[-1]) + 1)
            for key in [RowKey(env, episode, t)]
            for camera, ticket in self._tickets.pop(key, {}).items()
        ]
        if not claims:
            return
        for (key, camera, _), embedding in zip(claims, self._embeddings(claims), strict=True):
            row = self._store[key]
            row.embeddings = {**(row.embeddings or {}), camera: embedding}

    def _embeddings(self, claims: list[tuple[RowKey, str, Ticket]]) -> np.ndarray:
        """Wait for embeddings, (n, E) float32, and say what was being scored where they are no good.

        Raises:
            UserError: The encoder refuses, or gives numbers that are not finite.
        """
        assert self._scorer is not None
        words = getattr(self.model, "words", None)
        scored = f"That was at {claims[0][0]} to {claims[-1][0]}" + (f", goal {list(words.goal)}." if words else ".")
        try:
            embeddings = self._scorer.collect([ticket for _, _, ticket in claims])
        except UserError as error:
            raise UserError(f"{error} {scored}") from error
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():
            key, camera, _ = claims[int(np.flatnonzero(~finite)[0])]
            raise UserError(
                f"Encoder {self.model.encoder.name} gave numbers that are not finite for {(~finite).sum()} of "  # type: ignore[attr-defined]
                f"{len(finite)} pictures, the first from camera {camera} at {key}. {scored}"
            )
        return embeddings

    def _first(self, steps: list[int]) -> int:
        """First row that the rewards of these steps look at."""
        if steps[0] == 1 and self.shaping is not None:
            return 0
        return max(0 if self._context else 1, steps[0] - self._context)

    def _look_ahead(self, place: Place, t: int) -> int:
        """Last row that the reward of step `t` looks at.

        It is `t` itself, the next drawn frame where that is there and rewards are interpolated, or the episode's end.
        """
        if awaits_end(self.model):
            return self._last.get(place, t)
        return next((drawn for drawn in self._drawn.get(place, ()) if drawn >= t), t)

    def _rows(self, place: Place, steps: list[int]) -> Rows:
        """Return the rows that the rewards of consecutive steps look at."""
        env, episode = place
        expected = self._next[place]
        if steps != list(range(expected, expected + len(steps))):
            raise RuntimeError(
                f"Environment {env}, episode {episode}: the next reward is that of t = {expected}, not {steps[:3]}."
            )
        if awaits_end(self.model) and place not in self._last:
            raise RuntimeError(
                f"Environment {env}, episode {episode} has not ended, and {type(self.model).__name__} rewards its "
                "steps when it has. What is saved is saved where episodes start, as vlmrl.agents.checkpoints does."
            )
        first, last = self._first(steps), self._look_ahead(place, steps[-1])
        if "embeddings" in self.model.needs:
            self._hold(place, first, last)
        fields = frozenset() if in_background(self.model) else self.model.needs  # else it has read them already
        if self.shaping is not None:
            fields = fields | {"reward", "terminated"}
        if self.listener is not None:
            fields = fields | {"reward"}
        return self._store.rows(env, episode, first, last, fields)

    def _ask(self, parts: Mapping[Place, Rows]) -> list[np.ndarray]:
        """Have the model reward rows of several episodes, in one call where it takes them so."""
        if in_background(self.model):
            keys = [RowKey(*place, int(t)) for place, rows in parts.items() for t in rows.t]
            rewards = self.model.finish([self._begun.pop(key) for key in keys])
            ends = accumulate(len(rows) for rows in parts.values())
            return [rewards[end - len(rows) : end] for rows, end in zip(parts.values(), ends, strict=True)]
        if is_batched(self.model):
            return self.model.reward_all(list(parts.values()))
        return [self.model(rows) for rows in parts.values()]

    def _fill_episode(
        self, place: Place, steps: list[int], rows: Rows, rewards: np.ndarray
    ) -> tuple[np.ndarray, Rows, _Unshaped]:
        """Check the model's rewards of the rows of consecutive steps, and make of them what is asked for.

        Returns:
            Rewards of the steps, (n,) float32, their n rows, and what shaping wants to know of them.
        """
        env, episode = place
        first = int(rows.t[0])
        rewards = np.asarray(rewards, dtype=np.float32)
        if rewards.shape != (len(rows),):
            raise ValueError(f"{type(self.model).__name__} gave shape {rewards.shape} for {len(rows)} rows.")
        # With a context, the first entries know too little; at the start of an episode they know all there is.
        start = first if first == 0 and self.shaping is not None else steps[0]
        if not np.isfinite(rewards[start - first :]).all():
            bad = start + int(np.flatnonzero(~np.isfinite(rewards[start - first :]))[0])
            words = getattr(self.model, "words", None)  # not every model is told any
            asked = f" for {list(words.goal)}" if words is not None else ""
            raise FloatingPointError(
                f"{type(self.model).__name__} gave {rewards[bad - first]}{asked} "
                f"at environment {env}, episode {episode}, t = {bad}."
            )
        if self._interpolates:
            rewards = self._interpolate(place, first, rewards, steps[-1])
        own = slice(steps[0] - first, steps[-1] + 1 - first)
        self._returns[place] += float(rewards[own].sum())
        self._next[place] = steps[-1] + 1
        self._store.drop_before(env, episode, steps[-1] + 1 - self._context)
        unshaped = _Unshaped()
        if self.shaping is not None:
            unshaped = _Unshaped(
                rows["reward"][own].astype(np.float64),
                rows["terminated"][own],
                start=float(rewards[0]) if steps[0] == 1 else None,
                before=self._potential.pop(place, None),
            )
        own_rows = rows.part(steps[0], steps[-1])
        if self.listener is not None:
            self.listener.filled(env, episode, own_rows)
        if self._last.get(place) == steps[-1]:
            self._finish(place)
        return rewards[own], own_rows, unshaped

    def _interpolate(self, place: Place, first: int, rewards: np.ndarray, last: int) -> np.ndarray:
        """Give rows between two drawn frames a reward on the line between theirs; after the newest one it is held.

        Args:
            place: The episode.
            first: Time step of the first row.
            rewards: (n,) float32, right where a frame was drawn.
            last: Time step of the last row whose reward is asked for; the next call begins after it.
        """
        waiting = self._drawn.pop(place, [])
        drawn = [(t, float(rewards[t - first])) for t in waiting if t < first + len(rewards)]
        known = [self._anchor[place], *drawn] if place in self._anchor else drawn
        if not known:  # the model reads no frames
            return rewards
        self._drawn[place] = [t for t in waiting if t > last]
        self._anchor[place] = max(point for point in known if point[0] <= last)
        times, values = zip(*known, strict=True)
        return np.interp(np.arange(first, first + len(rewards)), times, values).astype(np.float32)

    def _shape(self, place: Place, unshaped: _Unshaped, potentials: np.ndarray) -> np.ndarray:
        """Turn scaled rewards of consecutive steps, (n,) float32, into the shaped reward of the environment."""
        assert self.shaping is not None and unshaped.rewards is not None and unshaped.terminated is not None
        before = unshaped.before
        if unshaped.start is not None:
            before = float(self.scale(np.array([unshaped.start], dtype=np.float32))[0])
        assert before is not None
        if place in self._next:  # more steps follow
            self._potential[place] = float(potentials[-1])
        return self.shaping(unshaped.rewards, potentials, unshaped.terminated, before)

    def _hold(self, place: Place, first: int, last: int) -> None:
        """Give rows without a frame of their own the embeddings of the row before them."""
        for t in range(first, last + 1):
            row = self._store[RowKey(*place, t)]
            if row.embeddings is None:
                row.embeddings = self._held.get(place)
            elif t >= self._next[place] or place not in self._held:
                self._held[place] = row.embeddings

    def _finish(self, place: Place) -> None:
        """All rewards of an episode are out: report its return and forget it."""
        self._store.drop_before(*place, self._last.pop(place) + 1)
        del self._next[place]
        for state in (self._held, self._drawn, self._anchor, self._potential):
            state.pop(place, None)
        total = self._returns.pop(place, 0.0)
        if place in self._cut:
            self._cut.remove(place)
        else:
            self._finished.append(total)


def _check_hindsight(model: RewardModel, shaping: Shaping | None) -> None:
    """Refuse what needs the reward of a step before its episode has ended.

    Raises:
        UserError: The options contradict the model.
    """
    if model.context != "episode" or model.requires_sync:
        raise ValueError(
            f"{type(model).__name__} awaits the end of episodes: its context must be 'episode', and it can end none."
        )
    if isinstance(shaping, RewardBonus):
        raise UserError(
            "use_as=bonus adds up what environment and model give for the same step, and "
            f"{called(model)} knows its part only when the episode has ended. Use use_as=reward."
        )
    if shaping is not None:
        raise UserError(
            "use_as=potential leaves what is optimal as it is because the potential of a state is the same whatever "
            f"follows, and {called(model)} rewards a step by what follows. Use use_as=reward."
        )


def _check_learned(model: RewardModel, shaping: Shaping | None, interpolates: bool) -> None:
    """Refuse what cannot be rewarded again, transition by transition.

    Raises:
        UserError: The options contradict the model.
    """
    if model.context != 0:
        raise ValueError(f"{type(model).__name__} learns, and looks at more than one row: its context must be 0.")
    if isinstance(shaping, RewardBonus):
        raise UserError(
            f"use_as=bonus adds a reward that stays what it was, and {called(model)} changes as it learns, and "
            "rewards again what is kept. Use use_as=reward."
        )
    if shaping is not None:
        raise UserError(
            f"use_as=potential leaves what is optimal as it is only while the potential stays the same, and "
            f"{called(model)} changes as it learns. Use use_as=reward."
        )
    if interpolates:
        raise UserError(
            f"{called(model)} learns, so every step is rewarded again by its own picture; between=interpolate "
            "would reward some by their neighbours'. Use between=hold."
        )
