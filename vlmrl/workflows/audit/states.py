"""Labelled states: drawn from an environment and judged by the task's predicate, in a mix that tells rewards apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.abstraction import StateReader
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import check_cameras, look
from vlmrl.envs.tasks import Task, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.base import RewardModel, is_learned, quantities_of
from vlmrl.rows import Rows
from vlmrl.workflows.audit.sources import sources
from vlmrl.workflows.report import tracked

# Share of the states in which the task is done; in which it is nearly done, so that only the details tell; and others.
MIX = {"done": 0.4, "nearly": 0.3, "not done": 0.3}
NEARLY = 0.5  # ground-truth reward, 0 to 1, from which on a state counts as nearly done
TURN = 5  # states that a source draws before it is the next one's turn
FEWEST = 10  # states that an audit needs of each label
FIELDS = frozenset({"embeddings", "frames", "quantities", "reward", "state"})  # row fields that a state by itself has
BATCH = 64  # pictures encoded at once


@dataclass(frozen=True)
class LabelledStates:
    """n states, and whether the task is done in each.

    Attributes:
        frames: {camera: (n, H, W, 3) uint8 RGB}, or a list of n pictures where their sizes differ; empty if nobody
            looks.
        done: (n,) bool, the label.
        truth: (n,) float32, the task's dense ground-truth reward, 0 to 1; of a person's own frames, the label.
        source: n strings: where each comes from.
        group: (n,) int64: states with the same number come from one episode or clip.
        state: {name: (n, ...)}, simulator state; empty for a person's own frames.
        quantities: (n, size) float64, all that programs may read; None where none does.
        abstraction: What the quantities mean.
    """

    frames: Mapping[str, Any]
    done: np.ndarray
    truth: np.ndarray
    source: tuple[str, ...]
    group: np.ndarray
    state: Mapping[str, np.ndarray]
    quantities: np.ndarray | None = None
    abstraction: Abstraction | None = None
    noun = "state"  # what one of them is called
    more = "states=<n>"  # how one asks for more of them

    def __len__(self) -> int:
        return len(self.done)

    @property
    def kind(self) -> np.ndarray:
        """(n,) str, the kinds of `MIX`."""
        return np.where(self.done, "done", np.where(self.truth >= NEARLY, "nearly", "not done"))

    def rows(self, embeddings: Mapping[str, np.ndarray], model: RewardModel) -> Rows:
        """Return the states as rows for a reward model that looks at one row at a time.

        Nobody has acted to get into a state that was put up: to a program the action is one of zeros.

        Args:
            embeddings: {camera: (n, E) float32}; empty if the model reads none.
            model: The reward model.
        """
        columns = {"embeddings": embeddings, "frames": self.frames, "reward": self.truth, "state": self.state}
        if self.quantities is not None and self.abstraction is not None:
            read = quantities_of(model)
            chosen = slice(None) if read is None else self.abstraction.narrowed(read)[1]
            columns["quantities"] = self.quantities[:, chosen]
            columns["action"] = np.zeros((len(self), len(self.abstraction.action)))
        return Rows(np.arange(len(self)), columns)

    def score(self, model: RewardModel, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
        """Reward the states, (n,) float32; see `rows`."""
        return np.asarray(model(self.rows(embeddings, model)), dtype=np.float32)

    def embed(self, encoder: Encoder, progress: bool) -> dict[str, np.ndarray]:
        """Encode the pictures: {camera: (n, E) float32}."""
        total = sum(len(pictures) for pictures in self.frames.values())
        with tracked(total=total, desc=f"encoding with {encoder.name}", unit="frame", show=progress) as bar:
            embeddings = {}
            for camera, pictures in self.frames.items():
                parts = []
                for batch in _batches(pictures):
                    parts.append(encoder.encode_images(batch))
                    bar.update(len(batch))
                embeddings[camera] = np.concatenate(parts)
        return embeddings


def _batches(pictures: Any) -> list[np.ndarray]:
    """Split pictures into batches of one size each, in order."""
    if isinstance(pictures, np.ndarray):
        return [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    batches: list[list[np.ndarray]] = []
    for picture in pictures:
        if not batches or len(batches[-1]) == BATCH or batches[-1][0].shape != picture.shape:
            batches.append([])
        batches[-1].append(picture)
    return [np.stack(batch) for batch in batches]


def why_not(model: RewardModel) -> str:
    """Say why a reward model cannot be audited on states by themselves; empty if it can."""
    if is_learned(model) and model.version == 0:
        return (
            "it has learned nothing yet; what a run has learned is reward.weights=<run folder>/reward_model.safetensors"
        )
    if model.context != 0:
        return (
            f"it looks at {model.context if model.context == 'episode' else 'earlier'} rows, and an audit scores "
            + ("states by themselves")
        )
    # The reward of a program is mostly of the state; its penalty of effort is then that of no action.
    missing = sorted(model.needs - FIELDS - ({"action"} if "quantities" in model.needs else set()))
    return f"it reads {', '.join(missing)}, which a state by itself does not have" if missing else ""


def draw_states(
    settings: EnvSettings, n: int, seed: int, pictures: bool, progress: bool = False, quantities: bool = False
) -> LabelledStates:
    """Draw states of a task from all sources of its environment, until there are enough of each kind of `MIX`.

    What is rare stays rarer than it should be: a source that is of no use any more is left (`Source.patience`).

    Args:
        settings: The environment and its task, which has a predicate.
        n: Number of states.
        seed: Seed; the same one gives the same states.
        pictures: Whether pictures are needed.
        progress: Whether to show a progress bar.
        quantities: Whether what programs read is needed.

    Raises:
        UserError: Too few states of one label were found, or programs cannot read the environment.
        ValueError: The task has no predicate.
    """
    task = settings.task
    if task.predicate is None:
        raise ValueError(f"Task '{task.name}' has no predicate to label states by.")
    rng = np.random.default_rng(seed)
    env = make_env(settings, render=pictures)
    wanted = {kind: round(share * n) for kind, share in MIX.items()}
    kept = _Kept(env, task, wanted, pictures, quantities)
    bar = tracked(total=sum(wanted.values()), desc="drawing states", unit="state", show=progress)
    group = 0
    try:
        env.reset(seed=int(rng.integers(2**31)))
        found = sources(env, task.name, rng)
        useless = dict.fromkeys(found, 0)  # states in a row of which no more were wanted, or tries that gave none
        while any(wanted.values()) and any(useless[name] < source.patience for name, source in found.items()):
            for name, source in found.items():
                turn = kept.seen + TURN
                while kept.seen < turn and useless[name] < source.patience:
                    group += 1
                    before = kept.seen
                    for _ in source.group():
                        useful = kept.take(name, group)
                        bar.update(useful)
                        useless[name] = 0 if useful else useless[name] + 1
                    if kept.seen == before:  # such as a body that passed through itself
                        useless[name] += 1
    finally:
        bar.close()
        env.close()
    states = kept.states()
    check_labels(
        states, f"In {kept.seen:,} states drawn from {', '.join(found)}", "bring labelled pictures, frames=<folder>"
    )
    return states


class _Kept:
    """Labels the state that an environment is in, and keeps it while there are too few of its kind.

    Args:
        env: The environment.
        task: The task, which has a predicate.
        wanted: {kind of `MIX`: how many more are wanted}; counted down.
        pictures: Whether pictures are needed.
        quantities: Whether what programs read is needed.

    Raises:
        UserError: Programs cannot read the environment, or it has no such camera.
    """

    def __init__(self, env: gym.Env, task: Task, wanted: dict[str, int], pictures: bool, quantities: bool):
        assert task.predicate is not None
        if pictures:
            check_cameras(env, task.cameras)
        self.seen = 0  # states that were looked at
        self._env, self._task, self._predicate = env, task, task.predicate
        self._inner: Any = env.unwrapped
        self._wanted, self._pictures = wanted, pictures
        self._reader = StateReader(env) if quantities else None
        self._labels: list[tuple[bool, float, str, int]] = []
        self._state: dict[str, list[np.ndarray]] = {}
        self._frames: dict[str, list[np.ndarray]] = {}
        self._numbers: list[np.ndarray] = []

    def take(self, source: str, group: int) -> bool:
        """Look at the state, and return whether it was kept.

        Args:
            source: Where it comes from.
            group: Number of its episode.
        """
        self.seen += 1
        now = self._inner.simulator_state()
        conditions = self._predicate(now)
        done, truth = holds(conditions), dense_reward(conditions)
        kind = "done" if done else "nearly" if truth >= NEARLY else "not done"
        if not self._wanted[kind]:
            return False
        self._wanted[kind] -= 1
        self._labels.append((done, truth, source, group))
        for name, value in now.items():
            self._state.setdefault(name, []).append(value)
        if self._reader is not None:
            self._numbers.append(self._reader())
        if self._pictures:
            for camera, picture in look(self._env, self._task.cameras).items():
                self._frames.setdefault(camera, []).append(picture)
        return True

    def states(self) -> LabelledStates:
        """Return all that were kept."""
        done, truth, source, group = zip(*self._labels, strict=True) if self._labels else ((), (), (), ())
        return LabelledStates(
            {camera: np.stack(views) for camera, views in self._frames.items()},
            np.array(done, dtype=bool),
            np.array(truth, dtype=np.float32),
            tuple(source),
            np.array(group, dtype=np.int64),
            {name: np.stack(values) for name, values in self._state.items()},
            np.stack(self._numbers) if self._numbers else None,
            self._reader.abstraction if self._reader is not None else None,
        )


def check_labels(states: LabelledStates, where: str, advice: str) -> None:
    """Refuse states of which too few have one of the two labels.

    Raises:
        UserError: There are fewer than `FEWEST` of one label, or they all come from one group.
    """
    for done, name in ((True, "done"), (False, "not done")):
        chosen = states.done == done
        if chosen.sum() < FEWEST or len(np.unique(states.group[chosen])) < 2:
            raise UserError(
                f"{where} the task is {name} in {chosen.sum()}, of {len(np.unique(states.group[chosen]))} episodes or "
                f"clips; an audit needs {FEWEST} of each label, from at least 2. Ask for more, {states.more}, or "
                f"{advice}."
            )


def counts(states: LabelledStates) -> dict[str, dict[str, int]]:
    """Count the states by source: {source: {kind: number}}, both in the order in which they first come."""
    kinds = Counter(zip(states.source, states.kind.tolist(), strict=True))
    return {source: {kind: kinds[source, kind] for kind in MIX} for source in dict.fromkeys(states.source)}
