"""What all scorers share: the settings of batches, and the service that a run gets its scorers from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmrl.encoders.base import Encoder
from vlmrl.encoders.store import EmbeddingStore
from vlmrl.serving.engine import Engine
from vlmrl.serving.scorer import BatchingScorer
from vlmrl.typed import Count, Natural, Positive

BATCHES_OF_LAG = 2  # one that fills while another is encoded


@dataclass(frozen=True)
class BatchSettings:
    """Settings of every scorer.

    Attributes:
        batch_size: Frames encoded at once.
        deduplicate: Number of newest distinct frames whose embedding is used again when the same frame comes.
        store: Folder in which embeddings are kept by content, so that no frame is encoded twice in any run.
    """

    batch_size: Count = 64
    deduplicate: Natural = 0
    store: str | None = None

    def serve(self, engine: Engine) -> Service:
        """Make the service of an engine."""
        return Service(engine, self)


@dataclass(frozen=True)
class AsyncSettings(BatchSettings):
    """Settings of scorers that encode while everything else goes on.

    Attributes:
        slots: Batches that are filled or under way at the same time; when all are, environments wait.
        eager: Start a batch that is not full when nothing else is to be encoded. The order of calls alone no longer
            decides what is encoded together, so that last digits may differ from run to run.
        lag: Newest vector steps that off-policy learners leave alone; None takes as many as bring two batches.
        timeout_s: Seconds without a sign of life, while a batch is under way, after which the encoder counts as hung.
    """

    slots: Count = 4
    eager: bool = False
    lag: Natural | None = None
    timeout_s: Positive = 300.0


class Service:
    """An encoder that runs somewhere, for the whole of a run.

    Args:
        engine: Where it runs.
        settings: How frames are batched.

    Raises:
        UserError: The embedding store cannot be used.
    """

    def __init__(self, engine: Engine, settings: BatchSettings):
        self._engine = engine
        self._settings = settings
        self._store = EmbeddingStore(settings.store, engine.encoder) if settings.store else None

    @property
    def encoder(self) -> Encoder:
        """The encoder, for sentences and for pictures that somebody waits for."""
        return self._engine.encoder

    @property
    def store(self) -> EmbeddingStore | None:
        """Embeddings that are kept beyond the run; None where none are."""
        return self._store

    def scorer(self) -> BatchingScorer:
        """Make a scorer; any number of them share the encoder."""
        eager = isinstance(self._settings, AsyncSettings) and self._settings.eager
        return BatchingScorer(self._engine, eager=eager, deduplicate=self._settings.deduplicate, store=self._store)

    def lag(self, frames_per_step: float) -> int:
        """Return the number of newest vector steps that off-policy learners leave alone.

        Args:
            frames_per_step: Frames that a step of all environments together brings, on average.
        """
        if not isinstance(self._settings, AsyncSettings):
            return 0
        if self._settings.lag is not None:
            return self._settings.lag
        return math.ceil(BATCHES_OF_LAG * self._settings.batch_size / frames_per_step)

    def close(self) -> None:
        """Stop the engine and close the store."""
        self._engine.close()
        if self._store is not None:
            self._store.close()
