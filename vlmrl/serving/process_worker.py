"""What runs in the process of `scorer=process`."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from typing import Any, NamedTuple

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.serving.engine import encode
from vlmrl.serving.remote import answer, card, portable


class Batch(NamedTuple):
    """Frames that a run wants encoded.

    Attributes:
        slot: Number of the slot in which they lie.
        frames: (at least n, H, W, 3) uint8, in shared memory.
        n: Number of embeddings that are wanted.
    """

    slot: int
    frames: np.ndarray
    n: int


class Desk:
    """One run that is served: its connection, and the memory that it shares.

    Messages in: ("memory", bytes in all, bytes of a slot's frames, bytes of a slot) followed by a handle,
    ("encode", slot, shape, number of embeddings to keep), ("ask", ...). Messages out: ("ready", card), ("memory",),
    ("done", slot), ("failed", slot, error), ("answer", ...), and ("broken", error) where the encoder cannot be had.

    Args:
        connection: This end.
        encoder: The encoder.
    """

    def __init__(self, connection: Connection, encoder: Encoder):
        self.connection = connection
        self._encoder = encoder
        self._memory = np.zeros(0, dtype=np.uint8)
        self._frame_bytes = self._slot_bytes = 0
        connection.send(("ready", card(encoder)))

    def next(self) -> Batch | None:
        """Read a message and answer it, unless it is a batch: that is returned.

        Raises:
            EOFError: The run is gone (or an OSError).
        """
        kind, *message = self.connection.recv()
        if kind == "memory":
            size, self._frame_bytes, self._slot_bytes = message
            handle = recv_handle(self.connection)
            self._memory = np.frombuffer(mmap.mmap(handle, size), dtype=np.uint8)
            os.close(handle)
            self.connection.send(("memory",))
        elif kind == "encode":
            slot, shape, n = message
            return Batch(slot, self._place(slot)[: int(np.prod(shape))].reshape(shape), n)
        else:
            self.connection.send(("answer", answer(self._encoder, *message)))
        return None

    def deliver(self, batch: Batch, outcome: np.ndarray | Exception) -> None:
        """Hand over embeddings, (n, E) float32, or what the encoder raised."""
        if isinstance(outcome, Exception):
            self.connection.send(("failed", batch.slot, portable(outcome)))
        else:
            results(self._place(batch.slot), self._frame_bytes, self._encoder.dim, batch.n)[:] = outcome
            self.connection.send(("done", batch.slot))

    def _place(self, slot: int) -> np.ndarray:
        return self._memory[slot * self._slot_bytes : (slot + 1) * self._slot_bytes]


def serve(connection: Connection, encoder_config: Any, device: str, threads: int) -> None:
    """Load the encoder, then do what the other end says until it closes.

    Args:
        connection: This end; see `Desk`.
        encoder_config: The encoder's settings.
        device: Torch device.
        threads: Threads that torch computes with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process; the other end decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        encoder = load(encoder_config, device, threads)
    except Exception as error:
        connection.send(("broken", portable(error)))
        return
    desk = Desk(connection, encoder)
    while True:
        try:
            batch = desk.next()
        except EOFError:
            break
        if batch is not None:
            desk.deliver(batch, encode(encoder, batch.frames, batch.n))


def load(encoder_config: Any, device: str, threads: int) -> Encoder:
    """Load an encoder, which may take `threads` threads of torch."""
    encoder = encoder_config.build(device)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return encoder


def results(slot: np.ndarray, frame_bytes: int, dim: int, n: int) -> np.ndarray:
    """Return the part of a slot that holds embeddings, (n, dim) float32, after its `frame_bytes` bytes of frames."""
    return slot[frame_bytes : frame_bytes + 4 * n * dim].view(np.float32).reshape(n, dim)


def _end_with_parent() -> None:
    """End at once where the parent is gone, even if the encoder hangs: nothing that it computes has a reader."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
