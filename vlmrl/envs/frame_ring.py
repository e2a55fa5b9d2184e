"""Pictures from worker processes through shared memory: a pickled one costs many times its copy."""

from __future__ import annotations

import mmap
import os
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

import numpy as np

from vlmrl.rows import Row
from vlmrl.serving.process import anonymous_file

ROWS = 2  # that one message may hold: the last one of an episode, and the first one of the next


class SharedFrame(NamedTuple):
    """A picture that lies in a ring.

    Attributes:
        slot: Where.
        shape: (height, width, 3).
    """

    slot: int
    shape: tuple[int, int, int]


class FrameRing:
    """Room for the pictures of one environment, written by its process and read by this one.

    The environment waits for its next action, and that is sent when the rows of the last step have been taken: so as
    many slots as one message has pictures are enough. The memory has no name, and is free when both processes have
    ended.

    Args:
        cameras: Pictures of a row.
        height: Of a picture, in pixels.
        width: Of a picture, in pixels.
    """

    _at: int = 0  # the slot that was written last

    def __init__(self, cameras: int, height: int, width: int):
        slots, size = ROWS * cameras, 3 * height * width
        self._attach(anonymous_file(slots * size), slots, size)

    def put(self, row: Row) -> None:
        """Put the pictures of a row here; one that is larger than a slot stays in the row, and is pickled."""
        frames: Any = row.frames or {}
        for camera, frame in frames.items():
            if frame.nbytes <= self._size:
                self._at = (self._at + 1) % self._slots
                self._view(self._at, frame.shape)[:] = frame
                frames[camera] = SharedFrame(self._at, frame.shape)

    def take(self, row: Row) -> Row:
        """Give a row its pictures back, as copies: the slots are written again."""
        frames: Any = row.frames or {}
        for camera, frame in frames.items():
            if isinstance(frame, SharedFrame):
                frames[camera] = self._view(frame.slot, frame.shape).copy()
        return row

    def _view(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._bytes[slot * self._size :][: int(np.prod(shape))].reshape(shape)

    def _attach(self, handle: int, slots: int, size: int) -> None:
        self._handle, self._slots, self._size = handle, slots, size
        self._bytes = np.frombuffer(mmap.mmap(handle, slots * size), dtype=np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a process that is being started; its handle goes with it."""
        return _attached, (DupFd(self._handle), self._slots, self._size)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def _attached(handle: Any, slots: int, size: int) -> FrameRing:
    ring = FrameRing.__new__(FrameRing)
    ring._attach(handle.detach(), slots, size)
    return ring
