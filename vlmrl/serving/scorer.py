"""Scorers: frames go in, a ticket comes out at once, embeddings are collected later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vlmrl.encoders.base import Encoder


class Ticket(NamedTuple):
    """A claim on the embedding of one submitted frame.

    Attributes:
        number: Position in the order of submission.
    """

    number: int


class Scorer(Protocol):
    """Runs an encoder somewhere.

    Stateless towards its user and idempotent: a frame's embedding does not depend on which replica computes it or when.
    """

    def submit(self, frames: np.ndarray) -> list[Ticket]:
        """Hand over frames, (n, H, W, 3) uint8 RGB, and get one ticket for each."""
        ...

    def collect(self, tickets: Sequence[Ticket]) -> np.ndarray:
        """Wait for the embeddings of these tickets, (n, E) float32 in their order; each ticket is good once."""
        ...

    def close(self) -> None:
        """Free what the scorer holds."""
        ...


class LocalScorer:
    """Encodes in this process, on the caller's time: the reference that all other scorers must equal.

    Frames wait until somebody collects, or until `batch_size` of them are there: batches are as large as they can be
    and memory stays bounded. What is encoded together depends on the order of calls alone, never on time, so the same
    run gives the same numbers.

    Args:
        encoder: The encoder.
        batch_size: Frames encoded at once, at least 1.
    """

    def __init__(self, encoder: Encoder, batch_size: int = 64):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self._encoder = encoder
        self._batch_size = batch_size
        self._waiting: list[np.ndarray] = []
        self._done: dict[int, np.ndarray] = {}
        self._submitted = 0

    def submit(self, frames: np.ndarray) -> list[Ticket]:
        """See `Scorer.submit`."""
        tickets = [Ticket(self._submitted + i) for i in range(len(frames))]
        self._submitted += len(frames)
        self._waiting.extend(frames)
        while len(self._waiting) >= self._batch_size:
            self._encode(self._batch_size)
        return tickets

    def collect(self, tickets: Sequence[Ticket]) -> np.ndarray:
        """See `Scorer.collect`."""
        if any(ticket.number not in self._done for ticket in tickets):
            self._encode(len(self._waiting))
        return np.stack([self._done.pop(ticket.number) for ticket in tickets])

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._done.clear()

    def _encode(self, n: int) -> None:
        """Encode the `n` frames that have waited longest."""
        first = self._submitted - len(self._waiting)
        batch, self._waiting = self._waiting[:n], self._waiting[n:]
        if batch:
            self._done.update(enumerate(self._encoder.encode_images(np.stack(batch)), start=first))
