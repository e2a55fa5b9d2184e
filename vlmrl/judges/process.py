"""A judge and its desk in a process of their own, for whoever must not lose time to them.

A client takes some milliseconds of a processor for each request, and Python runs one thread at a time: what a thread
beside a learner computes, the learner waits for. Here only questions and answers pass through the asking process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vlmrl.judges.base import Answer, Question
from vlmrl.judges.desk import Desk
from vlmrl.judges.settings import JudgeSettings
from vlmrl.judges.store import AnswerStore, Budget, Spent

SETTLE = 2.0  # seconds that the process has to end when it is told to


class JudgeProcess:
    """A judge in a process of its own, and its desk once `open` was called; may be used by several threads.

    Messages in: (number, method of `_Room`, arguments). Messages out: (number, value or error), and as number None a
    record for the log.

    Args:
        config: Settings of the judge, one that `answers_texts`.
        device: Torch device, for judges that run a model.

    Raises:
        UserError: See `JudgeSettings.build`.
    """

    def __init__(self, config: JudgeSettings, device: str = "cpu"):
        self._asked = 0
        self._waiting: dict[int, Future[Any]] = {}
        self._over = False  # nothing more will be heard of the process
        self._lock = threading.Lock()  # of the three above
        self._sending = threading.Lock()
        self._spent = Spent()
        context = multiprocessing.get_context("spawn")  # threads, and CUDA, do not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="judge", daemon=True)
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, name="judge", daemon=True)
        self._reader.start()
        try:
            self._do("build", config, device)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid

    def open(self, store: str | Path, budget: Budget, workers: int) -> None:
        """Open the desk; see `Desk`. How often a question is asked anew is left to whoever asks.

        Args:
            store: File of the answer store.
            budget: What may be spent.
            workers: Calls of `ask` that are under way at the same time; others wait.

        Raises:
            UserError: The store cannot be used.
        """
        self._do("open", store, budget, workers)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """See `Desk.ask`.

        Raises:
            ConnectionError: The process has ended.
        """
        answers: list[Answer] = self._do("ask", list(questions))
        return answers

    def known(self, questions: Sequence[Question]) -> list[Answer | None]:
        """See `Desk.known`; does not wait for questions that are asked meanwhile.

        Raises:
            ConnectionError: The process has ended.
        """
        answers: list[Answer | None] = self._do("known", list(questions))
        return answers

    @property
    def spent(self) -> Spent:
        """See `Desk.spent`; where the process has ended, what was last heard."""
        with suppress(ConnectionError):
            self._spent = self._do("spent")
        return self._spent

    def close(self) -> None:
        """End the process: requests under way are cancelled, and whoever waits for them gets a `ConnectionError`."""
        with self._sending, suppress(OSError):  # it, or the connection, may be gone already
            self._connection.send(None)
        self._process.join(SETTLE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reader.join()
        self._connection.close()

    def _do(self, method: str, *arguments: Any) -> Any:
        """Have the process do something, and wait for what comes of it."""
        future: Future[Any] = Future()
        with self._lock:
            if self._over:
                raise _ended()
            number = self._asked = self._asked + 1
            self._waiting[number] = future
        with self._sending, suppress(OSError):  # then the reader, too, finds that the process is gone
            self._connection.send((number, method, arguments))
        return future.result()

    def _read(self) -> None:
        """Hand answers to those who wait for them, until the process ends."""
        try:
            while True:
                number, outcome = self._connection.recv()
                if number is None:
                    logging.getLogger(outcome.name).handle(outcome)
                    continue
                with self._lock:
                    future = self._waiting.pop(number)
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        except (EOFError, OSError):
            with self._lock:
                self._over = True
            for future in self._waiting.values():
                future.set_exception(_ended())


class _Room:
    """What `JudgeProcess` does in its process."""

    desk: Desk
    pool: ThreadPoolExecutor

    def build(self, config: JudgeSettings, device: str) -> None:
        self._judge = config.build(device=device)

    def open(self, store: str | Path, budget: Budget, workers: int) -> None:
        self.desk = Desk(self._judge, AnswerStore(store), budget, attempts=None)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="asks")

    def ask(self, questions: list[Question]) -> list[Answer]:
        return self.desk.ask(questions)

    def known(self, questions: list[Question]) -> list[Answer | None]:
        return self.desk.known(questions)

    def spent(self) -> Spent:
        return self.desk.spent

    def close(self) -> None:
        if hasattr(self, "desk"):
            self.desk.close()
            self.pool.shutdown(wait=False, cancel_futures=True)


class _Sender(QueueHandler):
    """Sends the log to the other end, whose handlers it is for."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue((None, record))  # type: ignore[operator]


def _serve(connection: Connection) -> None:
    """Do what the other end says, until it says None or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process; the other end decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    logging.getLogger().addHandler(_Sender(send))  # type: ignore[arg-type]
    room = _Room()

    def do(number: int, method: str, arguments: Sequence[Any]) -> None:
        try:
            outcome = getattr(room, method)(*arguments)
        except CancelledError:
            return  # the judge is being closed; that the process ends says it all
        except Exception as error:
            outcome = _portable(error)
        send((number, outcome))

    while (message := connection.recv()) is not None:
        if message[1] == "ask":
            room.pool.submit(do, *message)
        else:
            do(*message)
    room.close()
    os._exit(0)  # not to wait for threads in which a model computes: nobody hears what it says


def _ended() -> ConnectionError:
    return ConnectionError("the process of the judge has ended")


def _portable(error: Exception) -> Exception:
    """Return an error that can travel, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # what an exception's own class makes of pickling is anybody's guess
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """End at once where the parent is gone: nothing that is answered has a reader."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
