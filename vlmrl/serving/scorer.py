"""Scorers: frames go in, a ticket comes out at once, embeddings are collected later."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.encoders.store import EmbeddingStore, frame_digest
from vlmrl.serving.engine import Engine, Job, LocalEngine


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

    def submit(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[Ticket]:
        """Hand over frames, each (H, W, 3) uint8 RGB, and get one ticket for each; the frames may change afterwards."""
        ...

    def collect(self, tickets: Sequence[Ticket]) -> np.ndarray:
        """Wait for the embeddings of these tickets, (n, E) float32 in their order; each ticket is good once."""
        ...

    def pop_stats(self) -> dict[str, float]:
        """Return what happened since the last call, for logs; see `BatchingScorer.pop_stats`."""
        ...

    def close(self) -> None:
        """Forget what waits."""
        ...


class _Frame:
    """One distinct frame: the batch and row where its embedding will be, then the embedding, (E,) float32."""

    __slots__ = ("embedding", "place")

    def __init__(self, place: tuple[_Batch, int] | None, embedding: np.ndarray | None = None):
        self.place = place
        self.embedding = embedding


class _Batch:
    """Frames that are encoded together, the job that does it, and their digests where there is a store."""

    __slots__ = ("digests", "frames", "job", "started")

    def __init__(self, job: Job):
        self.job = job
        self.started = False
        self.frames: list[_Frame] = []
        self.digests: list[bytes] = []


class BatchingScorer:
    """Gathers frames into batches for an engine.

    A batch starts when it is full, or when somebody collects one of its frames. What is encoded together then depends
    on the order of calls alone, never on time: the same run gives the same numbers, to the bit, wherever the engine
    is, as long as the device is of the same kind. With `eager` a batch also starts when the engine has nothing else to
    do; then time does decide, and last digits may differ where a device's kernels differ between batch sizes.

    Args:
        engine: Where the encoder runs; several scorers may share one. Closing a scorer leaves it open.
        eager: Start a batch that is not full when the engine is idle.
        deduplicate: Number of newest distinct frames whose embedding is given again when the same frame comes; 0 looks
            at none.
        store: Embeddings that are kept beyond this run; a frame that it knows is not encoded.
    """

    def __init__(
        self, engine: Engine, *, eager: bool = False, deduplicate: int = 0, store: EmbeddingStore | None = None
    ):
        self._engine = engine
        self._eager = eager
        self._deduplicate = deduplicate
        self._store = store
        self._open: tuple[_Batch, np.ndarray] | None = None
        self._known: OrderedDict[bytes, _Frame] = OrderedDict()
        self._tickets: dict[int, tuple[_Frame, float]] = {}  # with the time of submission
        self._submitted = 0
        self._reused = 0
        self._waited = 0.0
        self._ages: list[float] = []

    def submit(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[Ticket]:
        """See `Scorer.submit`. Waits while the engine has no room."""
        now = time.monotonic()
        tickets = []
        digests, stored = self._looked_up(frames)
        for frame, digest in zip(frames, digests, strict=True):
            known = self._known.get(digest) or stored.get(digest)
            if known is None:
                known = self._add(frame, digest)
            else:
                self._reused += 1
            if self._deduplicate:
                self._remember(digest, known)
            tickets.append(Ticket(self._submitted))
            self._tickets[self._submitted] = (known, now)
            self._submitted += 1
        if self._eager and self._open is not None:
            self._engine.poll()
            if self._engine.idle:
                self._start()
        return tickets

    def collect(self, tickets: Sequence[Ticket]) -> np.ndarray:
        """See `Scorer.collect`.

        Raises:
            KeyError: A ticket was collected before.
            UserError: What the encoder says is wrong.
            ScorerFailure: The engine hangs or died, and could not be brought back.
        """
        claims = [self._tickets.pop(ticket.number) for ticket in tickets]
        started = time.monotonic()
        for frame, _ in claims:
            if frame.place is not None:
                self._settle(frame.place[0])
        now = time.monotonic()
        self._waited += now - started
        self._ages += [now - submitted for _, submitted in claims]
        return np.stack([frame.embedding for frame, _ in claims])  # type: ignore[misc]

    def pop_stats(self) -> dict[str, float]:
        """Return what happened since the last call.

        Returns:
            `queue_depth` (frames that wait or are being encoded now), `age_s` (mean seconds from submission to
            collection, if any were collected), `wait_s` (seconds that callers waited), `reused` (frames that were not
            encoded because their embedding was known), `restarts` (of the engine, ever).
        """
        self._engine.poll()
        depth = self._engine.queued + (len(self._open[0].frames) if self._open is not None else 0)
        stats = {
            "queue_depth": float(depth),
            "wait_s": self._waited,
            "reused": float(self._reused),
            "restarts": float(self._engine.restarts),
        }
        if self._ages:
            stats["age_s"] = sum(self._ages) / len(self._ages)
        self._ages, self._waited, self._reused = [], 0.0, 0
        return stats

    def close(self) -> None:
        """Forget what waits, and give the engine its slot back."""
        if self._open is not None:
            self._engine.cancel(self._open[0].job)
            self._open = None
        self._tickets.clear()
        self._known.clear()

    def _looked_up(self, frames: Sequence[np.ndarray] | np.ndarray) -> tuple[list[bytes], dict[bytes, _Frame]]:
        """Return a digest of each frame, empty where nobody needs it, and what the store knows of them."""
        if not self._deduplicate and self._store is None:
            return [b""] * len(frames), {}
        digests = [frame_digest(frame) for frame in frames]
        if self._store is None:
            return digests, {}
        stored = self._store.get([digest for digest in digests if digest not in self._known])
        return digests, {digest: _Frame(None, embedding) for digest, embedding in stored.items()}

    def _remember(self, digest: bytes, frame: _Frame) -> None:
        self._known[digest] = frame
        self._known.move_to_end(digest)
        if len(self._known) > self._deduplicate:
            self._known.popitem(last=False)

    def _add(self, frame: np.ndarray, digest: bytes) -> _Frame:
        """Write a frame into the open batch, and start that if it is full."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"Expected frames (H, W, 3) uint8, got {frame.shape} {frame.dtype}.")
        if self._open is not None and self._open[0].job.shape != frame.shape:
            self._start()
        if self._open is None:
            before = time.monotonic()
            job, room = self._engine.open(frame.shape)
            self._waited += time.monotonic() - before
            self._open = (_Batch(job), room)
        batch, room = self._open
        added = _Frame((batch, len(batch.frames)))
        room[len(batch.frames)] = frame
        batch.frames.append(added)
        batch.digests.append(digest)
        if len(batch.frames) == self._engine.batch_size:
            self._start()
        return added

    def _start(self) -> None:
        assert self._open is not None
        (batch, _), self._open = self._open, None
        batch.started = True
        self._engine.start(batch.job, len(batch.frames))

    def _settle(self, batch: _Batch) -> None:
        """Wait for a batch and hand each of its frames its embedding."""
        if not batch.started:
            self._start()
        self._engine.wait(batch.job)
        if batch.job.error is not None:
            raise batch.job.error
        assert batch.job.result is not None
        for frame, embedding in zip(batch.frames, batch.job.result, strict=True):
            frame.embedding, frame.place = embedding, None
        if self._store is not None:
            self._store.put(batch.digests, batch.job.result)


class LocalScorer(BatchingScorer):
    """Encodes in this process, on the caller's time: the reference that all other scorers must equal.

    Args:
        encoder: The encoder.
        batch_size: Frames encoded at once, at least 1.
    """

    def __init__(self, encoder: Encoder, batch_size: int = 64):
        super().__init__(LocalEngine(encoder, batch_size))
