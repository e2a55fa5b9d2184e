"""The process of `scorer.share`: one encoder for all runs on this machine that name it.

    python -m vlmrl.serving.shared_worker <socket>      # started by the first run, never by hand

Runs come and go through a Unix domain socket in a folder that only their user can enter; each brings a handle of memory
of its own. The process serves them in turns, a batch each, and ends when the last one has left.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.serving.engine import bucket, encode
from vlmrl.serving.process_worker import Batch, Desk, load
from vlmrl.serving.remote import portable

LINGER = 5.0  # seconds to wait for another run when the last has left; a model is dear to load
LOOK = 1.0  # seconds between looks at whether anybody is still there
LONGEST_PATH = 100  # bytes that a socket's address may have, with some to spare


class Hello(NamedTuple):
    """What a run says first.

    Attributes:
        encoder: Settings of the encoder that it wants.
        device: Torch device.
        threads: Threads that torch computes with; the first run's hold.
        batch_size: Frames encoded at once, at most.
        merge: Whether its frames may be encoded together with those of other runs; last digits then depend on time.
    """

    encoder: Any
    device: str
    threads: int
    batch_size: int
    merge: bool


def socket_path(name: str) -> Path:
    """Return where the process of this name listens; its folder is made if it is not there.

    Raises:
        UserError: The name is none, or the folder is not this user's own.
    """
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
        raise UserError(f"scorer.share is '{name}'; it is a name of letters, digits, '-', '_' and '.'.")
    folder = Path(tempfile.gettempdir(), f"vlmrl-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or folder.is_symlink():
        raise UserError(f"scorer.share: others may enter '{folder}'. Remove it, or set TMPDIR to a folder of your own.")
    path = folder / f"{name}.sock"
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UserError(f"scorer.share: '{path}' is too long for a socket; take a shorter name or TMPDIR.")
    return path


def locked(path: Path) -> IO[bytes]:
    """Wait until nobody else starts or ends the process of this socket; closing the file lets the next one."""
    file = path.with_suffix(".lock").open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


class Counter:
    """Where the process serves its runs.

    Args:
        listening: The socket.
        hello: What the first run wants.
        encoder: The encoder.
    """

    def __init__(self, listening: socket.socket, hello: Hello, encoder: Encoder):
        self._listening = listening
        self._hello = hello
        self._encoder = encoder
        self._desks: dict[Connection, Desk] = {}
        self._merging: set[Connection] = set()

    def serve(self, path: Path) -> None:
        """Serve until nobody has been there for a while."""
        alone_since = time.monotonic()
        while True:
            ready = wait([self._listening, *self._desks], LOOK)
            if self._listening in ready:
                self._welcome(Connection(self._listening.accept()[0].detach()))
            self._turn([connection for connection in ready if isinstance(connection, Connection)])
            if self._desks:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > LINGER:
                with locked(path):  # nobody comes in meanwhile
                    if not wait([self._listening], 0):
                        path.unlink()
                        return

    def _welcome(self, connection: Connection) -> None:
        with suppress(EOFError, OSError):  # it is gone already
            hello: Hello = connection.recv()
            if (hello.encoder, hello.device) != (self._hello.encoder, self._hello.device):
                error = UserError(
                    f"scorer.share: the process of this name runs {self._hello.encoder} on {self._hello.device}, and "
                    f"this run wants {hello.encoder} on {hello.device}. Give it another name."
                )
                connection.send(("broken", error))
                connection.close()
                return
            self._desks[connection] = Desk(connection, self._encoder)
            if hello.merge:
                self._merging.add(connection)

    def _turn(self, ready: Sequence[Connection]) -> None:
        """Read one message of each run that has one, and encode the batches among them."""
        batches: list[tuple[Connection, Batch]] = []
        for connection in ready:
            try:
                batch = self._desks[connection].next()
            except (EOFError, OSError):
                self._forget(connection)
                continue
            if batch is not None:
                batches.append((connection, batch))
        while batches:
            together = self._together(batches)
            batches = batches[len(together) :]
            outcomes = self._encode([batch for _, batch in together])
            for (connection, batch), outcome in zip(together, outcomes, strict=True):
                try:
                    self._desks[connection].deliver(batch, outcome)
                except OSError:
                    self._forget(connection)

    def _together(self, batches: list[tuple[Connection, Batch]]) -> list[tuple[Connection, Batch]]:
        """Return the first batches that are encoded at once: one, or several whose runs allow it."""
        first, *others = batches
        taken, n = [first], first[1].n
        for connection, batch in others:
            alike = batch.frames.shape[1:] == first[1].frames.shape[1:]
            allowed = first[0] in self._merging and connection in self._merging
            if not (alike and allowed) or n + batch.n > self._hello.batch_size:
                break
            taken.append((connection, batch))
            n += batch.n
        return taken

    def _encode(self, batches: list[Batch]) -> list[np.ndarray | Exception]:
        if len(batches) == 1:
            return [encode(self._encoder, batches[0].frames, batches[0].n)]
        n = sum(batch.n for batch in batches)
        frames = np.zeros((bucket(n, self._hello.batch_size), *batches[0].frames.shape[1:]), dtype=np.uint8)
        np.concatenate([batch.frames[: batch.n] for batch in batches], out=frames[:n])
        outcome = encode(self._encoder, frames, n)
        if isinstance(outcome, Exception):
            return [outcome for _ in batches]
        ends = np.cumsum([batch.n for batch in batches])
        return list(np.split(outcome, ends[:-1]))

    def _forget(self, connection: Connection) -> None:
        """Let go of a run and of the memory that it shared."""
        del self._desks[connection]
        self._merging.discard(connection)
        connection.close()


def main() -> None:
    """Listen first, so that nobody starts a second one, and load the model then."""
    path = Path(sys.argv[1])
    hello: Hello = pickle.load(sys.stdin.buffer)  # from the run that started this process
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        try:
            encoder = load(hello.encoder, hello.device, hello.threads)
        except Exception as error:
            with locked(path):
                path.unlink()
                while wait([listening], 0):
                    connection = Connection(listening.accept()[0].detach())
                    connection.recv()  # what is closed with a word unread resets the other end
                    connection.send(("broken", portable(error)))
                    connection.close()
            return
        Counter(listening, hello, encoder).serve(path)


if __name__ == "__main__":
    main()
