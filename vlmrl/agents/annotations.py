"""Keeps the reward of texts up to date while an agent learns: labels come in, the replay is rewarded again."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from vlmrl.agents.buffers import FillsRollouts, RewardFillingReplayBuffer
from vlmrl.reward_models.oni import OniReward

STATE = "annotations.pkl"  # in a checkpoint
LOG_EVERY = 1000  # least steps between two entries in the log: an off-policy rollout is a step or two


class Annotations(BaseCallback):
    """After every rollout: hand new texts to the annotator, take in what has been labelled.

    An on-policy learner does so again before each pass over a rollout, by its buffer. A replay buffer is rewarded again
    when there is a new version, every `interact` steps at most. Nothing here waits for a model or ends training.

    Writes into the log `annotator/version`, `texts` (different ones so far), `labels`, `refills` (rollouts that were
    rewarded again) or `relabelled` (transitions), with a network also `accuracy`, `brier`, `ece` (on labels that it has
    not learned from), and where a judge is asked `alive` (1 while somebody answers), `queue`, `in_flight`, `known`
    (labels that the answer store had), `labelled` (labels that were asked for), `dropped`, `unreadable`, `given_up`,
    `failed`, `wait_s` (mean time from queue to label), `age_s` (since the newest label), `calls`, `cost`.

    Args:
        model: The reward model.
        interact: Least steps between two times that a replay buffer is rewarded again.
        labels: File into which the labels of the run are written when it ends, for other runs.
        listeners: Called with every new version of the reward.
    """

    topic = "annotations"  # in result.json

    def __init__(self, model: OniReward, interact: int, labels: Path, listeners: Sequence[Callable[[], None]] = ()):
        super().__init__()
        self._reward_model = model
        self._interact = interact
        self._labels = labels
        self._listeners = listeners
        self._version = model.version  # that the listeners and the replay buffer know
        self._due = 0
        self._relabelled = 0
        self._log_due = 0

    def summary(self) -> dict[str, Any]:
        """Return what came of it, ready for JSON."""
        model = self._reward_model
        return {
            "variant": model.config.variant,
            "version": model.version,
            "texts": model.distinct_texts,
            "labels": len(model.labels),
            **{name: round(value, 4) for name, value in model.metrics.items()},
            **{name: round(value, 4) for name, value in self._stats().items()},
        }

    def close(self) -> None:
        """End the annotator's threads, and write the labels down."""
        annotator = self._reward_model.annotator
        if annotator is not None:
            annotator.close()
            self._reward_model.annotator = None
        table = self._reward_model.label_table()
        if table is not None:
            table.save(self._labels)

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what a resumed run goes on with."""
        annotator = self._reward_model.annotator
        state = {
            "model": self._reward_model.state_dict(),
            "annotator": annotator.state_dict() if annotator is not None else None,
            "version": self._version,
            "due": self._due,
            "relabelled": self._relabelled,
        }
        folder.joinpath(STATE).write_bytes(pickle.dumps(state))

    def restore(self, folder: Path) -> None:
        """Take over what `save` wrote."""
        state = pickle.loads(folder.joinpath(STATE).read_bytes())
        self._reward_model.load_state_dict(state["model"])
        if self._reward_model.annotator is not None and state["annotator"] is not None:
            self._reward_model.annotator.load_state_dict(state["annotator"])
        self._version, self._due, self._relabelled = state["version"], state["due"], state["relabelled"]

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        # The rollout is stored, and what it teaches comes next.
        self._reward_model.refresh()
        if self._reward_model.version != self._version:
            self._spread_version()
        if self.num_timesteps >= self._log_due:
            self._log_due = self.num_timesteps + (LOG_EVERY if hasattr(self.model, "replay_buffer") else 0)
            self._record()

    def _spread_version(self) -> None:
        buffer = getattr(self.model, "replay_buffer", None)
        if isinstance(buffer, RewardFillingReplayBuffer):
            if self.num_timesteps < self._due:
                return
            self._relabelled += buffer.relabel()
            self._due = self.num_timesteps + self._interact
        self._version = self._reward_model.version
        for listen in self._listeners:
            listen()

    def _stats(self) -> dict[str, float]:
        annotator = self._reward_model.annotator
        return annotator.stats() if annotator is not None else {}

    def figures(self) -> dict[str, float]:
        """Return how things stand, {name in the log: value}."""
        model = self._reward_model
        figures = {
            "version": float(model.version),
            "texts": float(model.distinct_texts),
            "labels": float(len(model.labels)),
        }
        figures |= {name: model.metrics[name] for name in ("accuracy", "brier", "ece") if name in model.metrics}
        return {f"annotator/{name}": value for name, value in (figures | self._stats()).items()}

    def _record(self) -> None:
        rollout = getattr(self.model, "rollout_buffer", None)
        if isinstance(rollout, FillsRollouts):
            self.logger.record("annotator/refills", rollout.refills)
        else:
            self.logger.record("annotator/relabelled", self._relabelled)
        for name, value in self.figures().items():
            self.logger.record(name, value)
