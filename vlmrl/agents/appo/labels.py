"""Scores of texts for workers that reward steps as they take them, kept up to date while they do."""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from vlmrl.agents.annotations import Annotations
from vlmrl.agents.appo.shared import SharedScores
from vlmrl.agents.appo.workers import TextReward
from vlmrl.reward_models.oni import OniReward
from vlmrl.rows import text_keys

LARGEST_QUEUE = 1000  # reports of texts that may wait to be read


class PublishedScores:
    """The reward of texts as workers see it: texts come from them, and scores go to them, through shared memory.

    A step counts what is known of its text when it is taken. A label that comes later counts from then on, and for no
    step before it.

    Args:
        model: The reward model, in this process.
        annotations: Knows whoever labels.

    Attributes:
        reward: For the workers.
        feed: Where they put the texts that they meet.
    """

    def __init__(self, model: OniReward, annotations: Annotations):
        self._model, self._annotations = model, annotations
        self._scores = SharedScores()
        config = model.config
        self.reward = TextReward(self._scores, config.extrinsic_coef, config.intrinsic_coef, config.beta)
        self.feed: Any = get_context("spawn").Queue(LARGEST_QUEUE)
        self._known: dict[str, None] = {}  # texts, in the order in which they came
        self._published = -1  # version
        self._labels = -1  # that the model had
        self._lost = 0
        self.update()

    @property
    def texts(self) -> int:
        """Different texts that are known: those that were met, and those that have a label."""
        return len(self._known)

    def update(self) -> None:
        """Read what the workers have met, take in labels, and publish what has changed."""
        new: dict[str, None] = {}
        while True:
            try:
                _, said = self.feed.get_nowait()
            except Empty:
                break
            self._model.note(said)
            new |= dict.fromkeys(said)
        self._model.refresh()
        if len(self._model.labels) != self._labels:
            self._labels = len(self._model.labels)
            new |= dict.fromkeys(text for item in self._model.labels for text in item)
        new = {text: None for text in new if text not in self._known}
        self._known |= new
        if self._model.version != self._published:
            self._publish(self._known)
        elif new:
            self._publish(new)

    def figures(self) -> dict[str, float]:
        """Return how things stand, for the log."""
        return self._annotations.figures() | {
            "annotator/published": float(len(self._scores)),
            "annotator/unpublished": float(self._lost),
        }

    def save(self, folder: Path) -> None:
        """Write into a folder what a run goes on with; what was there stays until it is written."""
        draft = folder / ".labels.draft"
        draft.mkdir(parents=True, exist_ok=True)
        self._annotations.save(draft)
        for path in draft.iterdir():
            path.replace(folder / path.name)

    def close(self) -> None:
        """Stop reading."""
        self.feed.close()
        self.feed.cancel_join_thread()

    def _publish(self, texts: Iterable[str]) -> None:
        model = self._model
        self._published = model.version
        if model.version == 0:  # it has no opinion of anything
            return
        chosen = list(texts)
        scores = model.opinions(chosen).astype(np.float32)
        if model.config.variant == "retrieval":  # which knows nothing of a text without a label
            scores[[(text,) not in model.labels for text in chosen]] = np.nan
        self._lost += self._scores.write(text_keys(chosen), scores, model.version)
