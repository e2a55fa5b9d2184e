"""The encoder in a thread of this process, with a CUDA stream of its own where there is a GPU."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.serving.engine import HereEngine, Job, ScorerFailure, encode
from vlmrl.serving.settings import AsyncSettings, Service


@dataclass(frozen=True)
class ThreadConfig(AsyncSettings):
    """Settings of `scorer=thread`: those of every scorer that does not wait."""

    def build(self, encoder: Any, device: str) -> Service:
        """Load the encoder and serve it.

        Args:
            encoder: Its settings, an entry of `ENCODERS`.
            device: Torch device.
        """
        return self.serve(
            ThreadEngine(encoder.build(device), device, self.batch_size, self.slots, self.eager, self.timeout_s)
        )


class ThreadEngine(HereEngine):
    """Encodes in a thread. Python's lock is free while torch computes, so everything else goes on.

    Args:
        encoder: The encoder.
        device: Torch device that it is on.
        batch_size: Frames encoded at once.
        slots: Batches that are filled or under way at the same time.
        pad: See `Engine`.
        timeout_s: Seconds after which a batch counts as hung.
    """

    def __init__(self, encoder: Encoder, device: str, batch_size: int, slots: int, pad: bool, timeout_s: float):
        super().__init__(encoder, batch_size, slots, pad)
        self._stream = _own_stream(device)
        self._timeout = timeout_s
        self._work: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Job, np.ndarray | Exception]] = SimpleQueue()
        self._thread = threading.Thread(target=self._encode_all, name="scorer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the batch under way end, and stop."""
        super().close()
        self._work.put(None)
        self._thread.join(self._timeout)

    def _launch(self, job: Job) -> None:
        self._work.put(job)

    def _advance(self, wait: bool) -> bool:
        try:
            job, outcome = self._done.get(wait, self._timeout if wait else None)
        except Empty:
            if wait:
                raise ScorerFailure(
                    f"Encoder {self.encoder.name} in a thread of this process has not finished a batch for "
                    f"{self._timeout:g} seconds (scorer.timeout_s). A thread cannot be restarted: scorer=process can."
                ) from None
            return False
        self._finish(job, outcome)
        return True

    def _encode_all(self) -> None:
        with self._stream:
            while (job := self._work.get()) is not None:
                self._done.put((job, encode(self.encoder, self.frames(job), job.n)))


def _own_stream(device: str) -> AbstractContextManager[Any]:
    """Return a context in whose stream batches run beside what the learner does on the same GPU."""
    if not device.startswith("cuda"):
        return nullcontext()
    torch = sys.modules["torch"]  # whoever put an encoder on a GPU has loaded it
    torch.cuda.synchronize(device)  # the weights were written by another stream
    return torch.cuda.stream(torch.cuda.Stream(device))
