"""Engines: where an encoder computes. A scorer fills slots with frames, an engine turns each slot into embeddings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import numpy as np

from vlmrl.encoders.base import Encoder

LEAST_BUCKET = 8  # frames; smaller batches take different kernels of the CPU's libraries, and other last digits


class ScorerFailure(RuntimeError):
    """An engine hangs, or died and could not be brought back."""


@dataclass(eq=False, slots=True)
class Job:
    """One batch under way.

    Attributes:
        slot: Number of the slot that holds its frames.
        shape: (height, width, channels) of a frame.
        n: Number of frames.
        result: (n, E) float32, once it is done.
        error: What the encoder raised instead.
    """

    slot: int
    shape: tuple[int, int, int]
    n: int
    result: np.ndarray | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None


class Engine(ABC):
    """Runs an encoder on batches that lie in a fixed number of slots.

    Slots are allocated once, at the first frame's size. Where all are taken, `open` waits for the oldest batch: work
    never piles up, whoever produces it slows down. Called from one thread.

    Args:
        encoder: Makes embeddings of sentences, and of pictures on the caller's time.
        batch_size: Frames of a batch, at most.
        slots: Batches that are filled or under way at the same time.
        pad: Whether batches that are not full are padded to the next of 8, 16, 32, ..., `batch_size`: few shapes, for
            which a device chooses few kernels. What is in the padding changes no embedding.
    """

    def __init__(self, encoder: Encoder, batch_size: int, slots: int, pad: bool = False):
        if batch_size < 1 or slots < 1:
            raise ValueError(f"batch_size is {batch_size} and slots is {slots}; both must be at least 1.")
        self.encoder = encoder
        self.batch_size = batch_size
        self.restarts = 0  # how often it had to be brought back
        self._pad = pad
        self._slots = slots
        self._free: deque[int] = deque(range(slots))
        self._running: deque[Job] = deque()
        self._frame_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether no batch is under way, as far as was seen."""
        return not self._running

    @property
    def queued(self) -> int:
        """Frames in batches under way, as far as was seen."""
        return sum(job.n for job in self._running)

    def open(self, shape: tuple[int, int, int]) -> tuple[Job, np.ndarray]:
        """Take a free slot, waiting for one if need be.

        Args:
            shape: (height, width, 3) of the frames to come.

        Returns:
            A job that has not started, and its frames to be written, (batch_size, height, width, 3) uint8.

        Raises:
            ValueError: These frames are larger than those of batches that others are filling.
            ScorerFailure: The engine does not answer, or more scorers fill batches than there are slots.
        """
        size = math.prod(shape)
        if size > self._frame_bytes:
            while self._running:
                self._advance(wait=True)
            if len(self._free) < self._slots:
                raise ValueError(f"Frames of {shape} are larger than those of a batch that is being filled.")
            self._frame_bytes = size
            self._allocate(self._slots, self.batch_size * size)
        while not self._free:
            if not self._running:
                raise ScorerFailure(f"All {self._slots} slots are being filled by other scorers; close one.")
            self._advance(wait=True)
        job = Job(self._free.popleft(), shape, self.batch_size)
        return job, self.frames(job)

    def frames(self, job: Job) -> np.ndarray:
        """Return the frames of a job, (n, height, width, 3) uint8 in its slot, with its padding."""
        n = bucket(job.n, self.batch_size) if self._pad else job.n
        return self._memory(job.slot)[: n * math.prod(job.shape)].reshape(n, *job.shape)

    def start(self, job: Job, n: int) -> None:
        """Begin with the first `n` frames of an opened job."""
        job.n = n
        self._running.append(job)
        self._launch(job)

    def cancel(self, job: Job) -> None:
        """Give back the slot of a job that was opened and not started."""
        self._free.appendleft(job.slot)

    def wait(self, job: Job) -> None:
        """Return when a job is done.

        Raises:
            ScorerFailure: The engine does not answer.
        """
        while not job.done:
            self._advance(wait=True)

    def poll(self) -> None:
        """Take note of what is done, without waiting."""
        while self._running and self._advance(wait=False):
            pass

    def encode_now(self, frames: np.ndarray) -> np.ndarray:
        """Encode pictures that somebody waits for, (n, H, W, 3) uint8; returns (n, E) float32."""
        parts = [np.zeros((0, self.encoder.dim), dtype=np.float32)]
        for start in range(0, len(frames), self.batch_size):
            chunk = frames[start : start + self.batch_size]
            job, room = self.open(chunk.shape[1:])
            room[: len(chunk)] = chunk
            self.start(job, len(chunk))
            self.wait(job)
            if job.error is not None:
                raise job.error
            assert job.result is not None
            parts.append(job.result)
        return np.concatenate(parts)

    def close(self) -> None:
        """Stop, and free what the engine holds."""
        self._running.clear()

    def _finish(self, job: Job, outcome: np.ndarray | Exception) -> None:
        """Take over a result, (n, E) float32 of its own memory, or an error, and free the slot."""
        if isinstance(outcome, Exception):
            job.error = outcome
        else:
            job.result = outcome
        self._running.remove(job)
        self._free.appendleft(job.slot)  # the memory that was touched last is in the cache

    @abstractmethod
    def _allocate(self, slots: int, size: int) -> None:
        """Make `slots` slots of `size` bytes, zeroed; those that were there before are no longer needed."""

    @abstractmethod
    def _memory(self, slot: int) -> np.ndarray:
        """Return the bytes of a slot, (size,) uint8."""

    @abstractmethod
    def _launch(self, job: Job) -> None:
        """Begin with a job, the newest of `_running`."""

    @abstractmethod
    def _advance(self, wait: bool) -> bool:
        """Finish a running job, or bring the engine back.

        Args:
            wait: Whether to wait until there is something to do.

        Returns:
            Whether anything happened.
        """


class HereEngine(Engine):
    """Slots are ordinary memory of this process; for engines in this process."""

    def _allocate(self, slots: int, size: int) -> None:
        self._ring = np.zeros((slots, size), dtype=np.uint8)

    def _memory(self, slot: int) -> np.ndarray:
        return self._ring[slot]


class LocalEngine(HereEngine):
    """Encodes in this process, on the caller's time.

    Args:
        encoder: The encoder.
        batch_size: Frames encoded at once, at least 1.
    """

    def __init__(self, encoder: Encoder, batch_size: int = 64):
        super().__init__(encoder, batch_size, slots=8)  # none is ever under way; eight scorers may fill one each

    def _launch(self, job: Job) -> None:
        self._finish(job, encode(self.encoder, self.frames(job), job.n))

    def _advance(self, wait: bool) -> bool:
        return False


def encode(encoder: Encoder, frames: np.ndarray, n: int) -> np.ndarray | Exception:
    """Encode a batch whose first `n` frames count.

    Args:
        encoder: The encoder.
        frames: (at least n, H, W, 3) uint8 RGB; what comes after the first n is padding.
        n: Number of embeddings that are wanted.

    Returns:
        (n, E) float32, or what the encoder raised: whoever collects shall see it.
    """
    try:
        return np.ascontiguousarray(encoder.encode_images(frames)[:n])
    except Exception as error:
        return error


def bucket(n: int, batch_size: int) -> int:
    """Return the smallest of 8, 16, 32, ... that is at least `n`, and no more than `batch_size`."""
    return min(max(LEAST_BUCKET, 1 << (n - 1).bit_length()), batch_size)
