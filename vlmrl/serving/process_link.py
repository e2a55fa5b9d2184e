"""How a run is tied to the process that encodes for it: one of its own, or one that it shares with other runs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from vlmrl.serving.process_worker import serve
from vlmrl.serving.shared_worker import Hello, locked, socket_path

LISTENS_WITHIN = 60.0  # seconds until a shared process listens; it loads its model later


class Link(Protocol):
    """A tie to a process. It may be killed or left any number of times.

    Attributes:
        connection: Over which to talk; see `process_worker.Desk`.
        sentinels: Handles that are ready when the process is gone, beside the connection.
        pid: Number of the process.
    """

    connection: Connection
    sentinels: list[int]
    pid: int

    def kill(self) -> str:
        """End the process now, and return how it ended."""
        ...

    def leave(self) -> None:
        """Tell the process that this run needs nothing more of it."""
        ...


class OwnProcess:
    """A process of this run's own.

    Args:
        hello: What it shall load.
    """

    def __init__(self, hello: Hello):
        context = multiprocessing.get_context("spawn")  # CUDA, threads and OpenGL do not survive a fork
        self.connection, theirs = context.Pipe()
        arguments = (theirs, hello.encoder, hello.device, hello.threads)
        self._process = context.Process(target=serve, args=arguments, name="scorer", daemon=True)
        self._process.start()
        theirs.close()
        self.sentinels = [self._process.sentinel]
        assert self._process.pid is not None
        self.pid = self._process.pid

    def kill(self) -> str:
        """See `Link.kill`."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        return f"exit code {self._process.exitcode}"

    def leave(self) -> None:
        """See `Link.leave`."""
        self.connection.close()  # the process ends when nothing more can come
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class SharedProcess:
    """The process of a name, started if it is not there.

    Args:
        name: The name.
        hello: What it shall load; it must be what others loaded.

    Raises:
        UserError: The name is none.
        OSError: The process cannot be started.
    """

    sentinels: list[int] = []  # the connection ends when the process does

    def __init__(self, name: str, hello: Hello):
        path = socket_path(name)
        with locked(path):
            self.connection = _connect(path) or _start(path, hello)
            self.pid = _peer(self.connection)
        # A handle and not only a number: by the time that it is to be killed, the number may be another's.
        self._handle: int | None = os.pidfd_open(self.pid)
        self.connection.send(hello)

    def kill(self) -> str:
        """See `Link.kill`: for all runs, which will start another one."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self.leave()
        return "it is gone"

    def leave(self) -> None:
        """See `Link.leave`."""
        self.connection.close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _connect(path: Path) -> Connection | None:
    """Connect to a socket; None where nobody listens."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):  # the second: whoever listened was killed
        client.close()
        return None
    return Connection(client.detach())


def _start(path: Path, hello: Hello) -> Connection:
    """Start a process that listens at a socket, and connect.

    Raises:
        OSError: It does not come up; its log says why.
    """
    path.unlink(missing_ok=True)
    log = path.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlmrl.serving.shared_worker", str(path)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            start_new_session=True,  # it outlives this run, and a Ctrl-C that is meant for it
        )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(pickle.dumps(hello))
    until = time.monotonic() + LISTENS_WITHIN
    while process.poll() is None and time.monotonic() < until:
        connection = _connect(path)
        if connection is not None:
            return connection
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise OSError(f"the shared process does not come up; see {log}")


def _peer(connection: Connection) -> int:
    """Return the number of the process at the other end of a Unix domain socket."""
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        credentials: Any = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    return int.from_bytes(credentials[:4], sys.byteorder)
