"""Labelled states: drawn from an environment and judged by the task's predicate, in a mix that tells rewards apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.abstraction import StateReader
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import look
from vlmrl.envs.tasks import dense_reward, holds
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
    inner: Any = env.unwrapped
    wanted = {kind: round(share * n) for kind, share in MIX.items()}
    kept: dict[str, list[Any]] = {name: [] for name in ("done", "truth", "source", "group")}
    frames: dict[str, list[np.ndarray]] = {}
    state: dict[str, list[np.ndarray]] = {}
    reader = StateReader(env) if quantities else None
    numbers: list[np.ndarray] = []
    group = drawn = 0
    bar = tracked(total=sum(wanted.values()), desc="drawing states", unit="state", show=progress)
    try:
        env.reset(seed=int(rng.integers(2**31)))
        found = sources(env, task.name, rng)
        useless = dict.fromkeys(found, 0)  # states in a row of which no more were wanted
        while any(wanted.values()) and any(useless[name] < source.patience for name, source in found.items()):
            for name, source in found.items():
                turn = drawn + TURN
                while drawn < turn and useless[name] < source.patience:
                    group += 1
                    for _ in source.group():
                        drawn += 1
                        now = inner.simulator_state()
                        conditions = task.predicate(now)
                        done, truth = holds(conditions), dense_reward(conditions)
                        kind = "done" if done else "nearly" if truth >= NEARLY else "not done"
                        useless[name] += 1
                        if not wanted[kind]:
                            continue
                        useless[name] = 0
                        wanted[kind] -= 1
                        bar.update()
                        for column, value in zip(kept.values(), (done, truth, name, group), strict=True):
                            column.append(value)
                        for key, value in now.items():
                            state.setdefault(key, []).append(value)
                        if reader is not None:
                            numbers.append(reader())
                        if pictures:
                            for camera, picture in look(env, task.cameras).items():
                                frames.setdefault(camera, []).append(picture)
    finally:
        bar.close()
        env.close()
    states = LabelledStates(
        {camera: np.stack(views) for camera, views in frames.items()},
        np.array(kept["done"], dtype=bool),
        np.array(kept["truth"], dtype=np.float32),
        tuple(kept["source"]),
        np.array(kept["group"], dtype=np.int64),
        {name: np.stack(values) for name, values in state.items()},
        np.stack(numbers) if numbers else None,
        reader.abstraction if reader is not None else None,
    )
    check_labels(
        states, f"In {drawn:,} states drawn from {', '.join(found)}", "bring labelled pictures, frames=<folder>"
    )
    return states


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
