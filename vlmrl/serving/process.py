"""The encoder in a process of its own, which owns the device; frames travel through shared memory."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.serving.engine import Engine, Job, ScorerFailure
from vlmrl.serving.process_link import Link, OwnProcess, SharedProcess
from vlmrl.serving.process_worker import results
from vlmrl.serving.remote import Answer, Card, RemoteEncoder
from vlmrl.serving.settings import AsyncSettings, Service
from vlmrl.serving.shared_worker import Hello
from vlmrl.typed import Natural

START_TIMEOUT = 900.0  # seconds to load a model in; the largest, from a slow disk, take minutes
ALIGNMENT = 64  # bytes; results start on a line of the cache


@dataclass(frozen=True)
class ProcessConfig(AsyncSettings):
    """Settings of `scorer=process`, beside those of every scorer that does not wait.

    Attributes:
        restarts: How often in a row the process may die or hang before the run ends.
        share: Name of a process that serves all runs on this machine that give it; None has one of its own. The first
            run starts it, and it ends when the last has left. With `eager`, frames of several runs are encoded
            together.
    """

    restarts: Natural = 3
    share: str | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not sys.platform.startswith("linux"):
            raise UserError("scorer.share hands memory from process to process as Linux does; leave it out here.")

    def build(self, encoder: Any, device: str) -> Service:
        """Start the process, which loads the encoder, and serve it.

        Args:
            encoder: Its settings, an entry of `ENCODERS`; they travel to the process.
            device: Torch device.

        Raises:
            UserError: The encoder cannot be loaded.
        """
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch is not None else 1
        hello = Hello(encoder, device, threads, self.batch_size, self.eager)
        return self.serve(
            ProcessEngine(
                partial(OwnProcess, hello) if self.share is None else partial(SharedProcess, self.share, hello),
                self.batch_size,
                self.slots,
                self.eager,
                self.timeout_s,
                self.restarts,
            )
        )


class ProcessEngine(Engine):
    """Encodes in another process.

    All frames lie in one block of shared memory, allocated once, and so do the embeddings; what goes through the pipe
    is the number of a slot. The block has no name, only handles, so the memory is free when both processes have ended,
    however they end. Where the process dies, or is silent for too long, it is killed and started anew, and does the
    batches again that were under way: their frames are still in their slots.

    Args:
        link: Ties this run to a process that loads the encoder; called again where that had to be killed.
        batch_size: Frames encoded at once.
        slots: Batches that are filled or under way at the same time.
        pad: See `Engine`.
        timeout_s: Seconds without a sign of life, while there is work, after which the process counts as hung.
        restarts: How often in a row it may be started anew without finishing a batch in between.

    Raises:
        UserError: The encoder cannot be loaded.
    """

    def __init__(
        self,
        link: Callable[[], Link],
        batch_size: int,
        slots: int,
        pad: bool,
        timeout_s: float,
        restarts: int,
    ):
        self._make_link = link
        self._timeout = timeout_s
        self._may_restart = restarts
        self._failures = 0  # in a row
        self._handle: int | None = None  # of the shared memory
        self._bytes = np.zeros(0, dtype=np.uint8)
        self._slot_bytes = self._results_at = 0
        try:
            card = self._start_process()
        except (OSError, EOFError) as error:
            why = str(error) or self._link.kill()
            raise ScorerFailure(
                f"The encoder's process ended before it was ready ({why}); exit code -9 mostly means that memory ran "
                "out."
            ) from error
        super().__init__(RemoteEncoder(card, self._ask, self.encode_now), batch_size, slots, pad)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._link.pid

    def close(self) -> None:
        """End the process and free the shared memory."""
        super().close()
        self._link.leave()
        self._free_memory()

    # What the base class needs.

    def _allocate(self, slots: int, size: int) -> None:
        self._results_at = -(-size // ALIGNMENT) * ALIGNMENT
        slot = self._results_at + 4 * self.batch_size * self.encoder.dim
        self._slot_bytes = -(-slot // ALIGNMENT) * ALIGNMENT
        self._free_memory()
        self._handle = anonymous_file(slots * self._slot_bytes)
        self._bytes = np.frombuffer(mmap.mmap(self._handle, slots * self._slot_bytes), dtype=np.uint8)
        try:
            self._offer_memory()
        except (OSError, EOFError) as error:
            self._restart(error)

    def _memory(self, slot: int) -> np.ndarray:
        return self._bytes[slot * self._slot_bytes : (slot + 1) * self._slot_bytes]

    def _launch(self, job: Job) -> None:
        if len(self._running) == 1:
            self._heard = time.monotonic()
        try:
            self._send(job)
        except OSError as error:
            self._restart(error)  # which sends all running jobs, this one among them

    def _advance(self, wait: bool) -> bool:
        try:
            message = self._receive(wait)
        except (OSError, EOFError) as error:
            self._restart(error)
            return True
        if message is None:
            return False
        kind, slot, *rest = message
        (job,) = (job for job in self._running if job.slot == slot)
        self._failures = 0
        place = self._memory(slot)
        self._finish(
            job, rest[0] if kind == "failed" else results(place, self._results_at, self.encoder.dim, job.n).copy()
        )
        return True

    # Talking to the process.

    def _send(self, job: Job) -> None:
        self._link.connection.send(("encode", job.slot, self.frames(job).shape, job.n))

    def _receive(self, block: bool, timeout: float | None = None) -> Any:
        """Return the next message; None if there is none yet and nobody waits.

        Raises:
            EOFError: The process is gone.
            TimeoutError: It has been silent for too long (an OSError).
        """
        limit = self._timeout if timeout is None else timeout
        remaining = self._heard + limit - time.monotonic() if block else 0.0
        ready = wait([self._link.connection, *self._link.sentinels], max(0.0, remaining))
        if self._link.connection in ready:  # first what it said before it died
            message = self._link.connection.recv()
            self._heard = time.monotonic()
            return message
        if ready:
            raise EOFError
        if time.monotonic() - self._heard >= limit and (block or self._running):
            raise TimeoutError(f"silent for {limit:g} seconds")
        return None

    def _ask(self, what: str, *arguments: Any) -> Answer:
        """Put a question to the encoder and wait; batches that were under way are finished first."""

        def exchange() -> Answer:
            self._heard = time.monotonic()
            self._link.connection.send(("ask", what, *arguments))
            return self._receive(block=True)[1]

        return self._safely(exchange)

    def _safely(self, exchange: Callable[[], Any]) -> Any:
        """Talk to the process while no batch is under way, again where it had to be brought back."""
        while True:
            while self._running:
                self._advance(wait=True)
            try:
                return exchange()
            except (OSError, EOFError) as error:
                self._restart(error)

    # The process and its memory.

    def _start_process(self) -> Card:
        self._link = self._make_link()
        self._heard = time.monotonic()
        kind, value = self._receive(block=True, timeout=START_TIMEOUT)
        if kind == "broken":
            self._link.leave()
            raise value
        return value

    def _restart(self, error: Exception) -> None:
        """Kill what is left of the process, start another one, and give it the batches that were under way.

        Raises:
            ScorerFailure: That has been in vain too often.
        """
        while True:
            ended = self._link.kill()
            self._failures += 1
            reason = str(error) if isinstance(error, TimeoutError) else ended
            if self._failures > self._may_restart:
                raise ScorerFailure(
                    f"The process of encoder {self.encoder.name} failed {self._failures} times in a row "
                    f"(scorer.restarts={self._may_restart}); the last time: {reason}. Less memory is needed "
                    "with a smaller scorer.batch_size; a batch that takes longer than scorer.timeout_s counts as hung."
                ) from error
            warnings.warn(
                f"The process of encoder {self.encoder.name} failed: {reason}. It is started anew, and does again what "
                "was under way; no number changes.",
                RuntimeWarning,
                stacklevel=2,
            )
            self.restarts += 1
            try:
                self._start_process()
                if self._handle is not None:
                    self._offer_memory()
                for job in self._running:
                    self._send(job)
                return
            except (OSError, EOFError) as again:
                error = again

    def _offer_memory(self) -> None:
        """Give the process a handle of the shared memory."""
        assert self._handle is not None
        self._heard = time.monotonic()
        self._link.connection.send(("memory", len(self._bytes), self._results_at, self._slot_bytes))
        send_handle(self._link.connection, self._handle, self._link.pid)
        self._receive(block=True)

    def _free_memory(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self._bytes = np.zeros(0, dtype=np.uint8)  # the mapping ends with the last array that looks into it


def anonymous_file(size: int) -> int:
    """Make a file of `size` zero bytes that has no name, and return its handle: it lives as long as the handles do."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("vlmrl-frames")
    else:  # not Linux
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.truncate(handle, size)
    return handle
