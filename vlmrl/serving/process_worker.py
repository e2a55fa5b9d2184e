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
from typing import Any

import numpy as np

from vlmrl.serving.engine import encode
from vlmrl.serving.remote import answer, card, portable


def serve(connection: Connection, encoder_config: Any, device: str, threads: int) -> None:
    """Load the encoder, then do what the other end says until it closes.

    Messages in: ("memory", bytes in all, bytes of a slot's frames, bytes of a slot) followed by a handle,
    ("encode", slot, shape, number of embeddings to keep), ("ask", ...). Messages out: ("ready", card), ("memory",),
    ("done", slot), ("failed", slot, error), ("answer", ...), and ("broken", error) where the encoder cannot be loaded.

    Args:
        connection: This end.
        encoder_config: The encoder's settings.
        device: Torch device.
        threads: Threads that torch computes with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process; the other end decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        encoder = encoder_config.build(device)
    except Exception as error:
        connection.send(("broken", portable(error)))
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    connection.send(("ready", card(encoder)))
    memory = np.zeros(0, dtype=np.uint8)
    frame_bytes, slot_bytes = 0, 0
    while True:
        try:
            kind, *message = connection.recv()
        except EOFError:
            break
        if kind == "memory":
            size, frame_bytes, slot_bytes = message
            handle = recv_handle(connection)
            memory = np.frombuffer(mmap.mmap(handle, size), dtype=np.uint8)
            os.close(handle)
            connection.send(("memory",))
        elif kind == "encode":
            slot, shape, n = message
            place = memory[slot * slot_bytes : (slot + 1) * slot_bytes]
            embeddings = encode(encoder, place[: int(np.prod(shape))].reshape(shape), n)
            if isinstance(embeddings, Exception):
                connection.send(("failed", slot, portable(embeddings)))
            else:
                results(place, frame_bytes, encoder.dim, n)[:] = embeddings
                connection.send(("done", slot))
        else:
            connection.send(("answer", answer(encoder, *message)))


def results(slot: np.ndarray, frame_bytes: int, dim: int, n: int) -> np.ndarray:
    """Return the part of a slot that holds embeddings, (n, dim) float32, after its `frame_bytes` bytes of frames."""
    return slot[frame_bytes : frame_bytes + 4 * n * dim].view(np.float32).reshape(n, dim)


def _end_with_parent() -> None:
    """End at once where the parent is gone, even if the encoder hangs: nothing that it computes has a reader."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
