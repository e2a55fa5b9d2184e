"""The side that does not trust: starts the confined process, asks with a deadline, believes nothing it is told."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vlmrl.errors import UserError, unknown
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.confinement import landlock, seccomp
from vlmrl.reward_models.confinement.limits import CPU_SECONDS
from vlmrl.reward_models.confinement.worker import (
    CALL,
    CHUNK,
    DONE,
    FAILED,
    HEADER,
    LOAD,
    LONGEST_MESSAGE,
    MOST_COMPONENTS,
    READY,
    SHAPE,
)

Level = Literal["full", "rlimit", "none"]
"""How a program is confined, each on top of the next: full, by Landlock and a filter of system calls; rlimit, by limits
of memory, files and processes; none, by a process of its own with an empty environment."""

Result = tuple[np.ndarray, dict[str, np.ndarray]]
"""Totals (n,) float64 and {component: (n,) float64}."""

ROWS = 1024  # rows of one call: what it takes stays far below the memory limit
START_TIMEOUT = 60.0  # s that a process has to import numpy, on a machine that does much else
LARGEST_REPLY = SHAPE.size + 41 * MOST_COMPONENTS + 8 * ROWS * (MOST_COMPONENTS + 1)  # bytes
_START = """
import sys
sys.path.insert(0, sys.argv[1])
from confinement import worker
del sys.path[0]
worker.main(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
"""


class ProgramError(Exception):
    """A program cannot be used.

    Attributes:
        kind: "exception": it raised; "contract": what it returned is not what was agreed; "killed": the kernel ended
            it; "cpu_limit": it used up its processor time; "timeout": it had no answer in time; "protocol": it sent
            something else than an answer.
        line: Line of the program, from 1 on; 0 where there is none.
    """

    def __init__(self, kind: str, message: str, line: int = 0):
        super().__init__(message)
        self.kind, self.line = kind, line


def measured_level() -> Level:
    """Return the strongest level that this machine has."""
    if landlock.abi() >= 1 and seccomp.available():
        return "full"
    return "rlimit" if os.name == "posix" else "none"


def check_level(level: Level) -> None:
    """Refuse a level that this machine does not have.

    Raises:
        UserError: It has not.
    """
    if level not in get_args(Level):
        raise unknown("confinement", level, get_args(Level))
    order = get_args(Level)
    best = measured_level()
    if order.index(level) < order.index(best):
        lacks = "Landlock" if landlock.abi() < 1 else "a filter of system calls"
        raise UserError(
            f"reward.confinement={level} cannot be had here: this system has no {lacks}. A program that nobody has "
            f"read could then do what you may do. If you trust where it comes from: reward.confinement={best}."
        )


class ConfinedProgram:
    """A reward program in a confined process of its own.

    Args:
        source: Its text.
        abstraction: What it reads.
        level: How it is confined.
        timeout: Seconds that a call may take; then the process is killed.
        cpu_limit: Seconds of processor time that all calls together may take; then the kernel ends the process.

    Raises:
        ProgramError: The program cannot be loaded.
        UserError: The process cannot be confined like that here.
    """

    def __init__(
        self,
        source: str,
        abstraction: Abstraction,
        level: Level = "full",
        timeout: float = 5.0,
        cpu_limit: int = CPU_SECONDS,
    ):
        check_level(level)
        self.source, self.abstraction, self.level, self.timeout = source, abstraction, level, timeout
        self._cpu_limit = cpu_limit
        self._names: tuple[bytes, tuple[str, ...]] = (b"", ())
        self._asked = 0  # requests so far
        self._waiting: deque[tuple[int, int]] = deque()  # number and rows of those that are not answered, in order
        self._answers: dict[int, Result | ProgramError] = {}  # answers that nobody has asked for yet
        self._data = b""  # of an answer that has come in part
        self._process = _spawn(level, cpu_limit)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._poll_in, self._poll_out = select.poll(), select.poll()
        self._poll_in.register(self._in, select.POLLOUT)
        self._poll_in.register(self._out, select.POLLIN)  # who dies, or speaks out of turn, shows here too
        self._poll_out.register(self._out, select.POLLIN)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __call__(self, states: np.ndarray, actions: np.ndarray) -> Result:
        """Reward states.

        Args:
            states: (n, abstraction.size) float64.
            actions: (n, A) float64, the actions that led to them.

        Returns:
            Totals (n,) float64, finite, and {component: (n,) float64}, finite.

        Raises:
            ProgramError: It failed; the process is then gone unless it raised an ordinary exception.
        """
        parts = [
            self.collect(self.submit(states[first : first + ROWS], actions[first : first + ROWS]))
            for first in range(0, len(states), ROWS)
        ]
        if len(parts) == 1:
            return parts[0]
        names = list(parts[0][1])
        if any(list(components) != names for _, components in parts):
            raise ProgramError("contract", "the names of the components change from call to call")
        return np.concatenate([total for total, _ in parts]), {
            name: np.concatenate([components[name] for _, components in parts]) for name in names
        }

    def submit(self, states: np.ndarray, actions: np.ndarray) -> int:
        """Ask for rewards without waiting for them.

        Args:
            states: (n, abstraction.size) float64, n at most `ROWS`.
            actions: (n, A) float64.

        Returns:
            The number by which `collect` names the call.

        Raises:
            ProgramError: The process is gone, or it does not take more.
            ValueError: States are of another size than the abstraction's.
        """
        rows, width = len(states), actions.shape[1]
        if states.shape[1] != self.abstraction.size:
            raise ValueError(f"States have {self.abstraction.size} numbers here, and these have {states.shape[1]}.")
        return self._ask(
            CALL,
            rows,
            SHAPE.pack(rows, states.shape[1], width, 0),
            np.ascontiguousarray(states, dtype="<f8").tobytes(),
            np.ascontiguousarray(actions, dtype="<f8").tobytes(),
        )

    def collect(self, number: int) -> Result:
        """Return what `__call__` would have, once for each call that was submitted; waits for it.

        Raises:
            ProgramError: See `__call__`.
        """
        deadline = time.monotonic() + self.timeout
        while number not in self._answers:
            self._take_answer(deadline)
        answer = self._answers.pop(number)
        if isinstance(answer, ProgramError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process and all that it may have started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it may end by itself in between
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def __enter__(self) -> ConfinedProgram:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        try:
            kind, _ = self._receive(time.monotonic() + START_TIMEOUT)
        except ProgramError as error:
            self._end_at_start()
            raise UserError(
                f"The process that reward programs run in did not start with reward.confinement={self.level}: "
                f"{error} {self._said}"
            ) from error
        if kind != READY:
            raise ProgramError("protocol", "the process did not say that it is ready")
        layout = [(list(path), leaf.start, list(leaf.shape)) for path, leaf in self.abstraction.leaves()]
        self.collect(self._ask(LOAD, 0, json.dumps({"source": self.source, "layout": layout}).encode()))

    def _end_at_start(self) -> None:
        """Keep what the process wrote on its standard error, before it could take a program, and end it."""
        self._kill()
        assert self._process.stderr is not None
        self._said = self._process.stderr.read(LONGEST_MESSAGE).decode(errors="replace")
        self.close()

    def _kill(self) -> None:
        """Kill the process group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, kind: bytes, rows: int, *payload: bytes) -> int:
        """Send a request about so many rows; return its number."""
        self._send(b"".join([HEADER.pack(kind, sum(map(len, payload))), *payload]), time.monotonic() + self.timeout)
        self._asked += 1
        self._waiting.append((self._asked, rows))
        return self._asked

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            for descriptor, _ in self._wait(self._poll_in, deadline):
                if descriptor == self._out:
                    self._take_early(deadline)
            try:
                rest = rest[os.write(self._in, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended() from None

    def _take_early(self, deadline: float) -> None:
        """Take an answer that has come before it was asked for, so that the process need not wait to write it."""
        if not self._waiting:
            raise self._ended() if self._process.poll() is not None else self._broken("an answer to nothing")
        self._take_answer(deadline)

    def _take_answer(self, deadline: float) -> None:
        """Receive the answer to the oldest request that has none."""
        kind, reply = self._receive(deadline)
        number, rows = self._waiting.popleft()
        if kind == FAILED:
            line, name, text = _parts(reply)
            failure = "contract" if name == "ContractError" else "exception"
            self._answers[number] = ProgramError(failure, _words(name, text), line)
        elif kind != DONE:
            raise self._broken("a message of an unknown kind")
        else:
            self._answers[number] = self._result(reply, rows) if rows else (np.empty(0), {})

    def _result(self, reply: bytes, rows: int) -> Result | ProgramError:
        """Read an answer of which nothing can be taken for granted."""
        if len(reply) < SHAPE.size:
            raise self._broken("an answer that is too short")
        told_rows, count, length, _ = SHAPE.unpack_from(reply)
        begin = SHAPE.size + length
        if told_rows != rows or not 1 <= count <= MOST_COMPONENTS or len(reply) != begin + 8 * rows * (count + 1):
            raise self._broken("an answer of the wrong size")
        text = reply[SHAPE.size : begin]
        if text != self._names[0]:
            names = tuple(text.decode(errors="replace").split(","))
            if len(set(names)) != count or not all(name.isidentifier() and len(name) <= 40 for name in names):
                raise self._broken("names of components that are none")
            self._names = (text, names)
        columns = np.frombuffer(reply, dtype="<f8", offset=begin).reshape(count + 1, rows)
        if not np.isfinite(columns).all():
            bad, row = (int(index[0]) for index in np.nonzero(~np.isfinite(columns)))
            what = "total" if bad == 0 else f"component '{self._names[1][bad - 1]}'"
            return ProgramError(
                "contract",
                f"{what} must be finite, and is {columns[bad, row]} for "
                f"{(~np.isfinite(columns[bad])).sum()} of {rows} states",
            )
        return columns[0], dict(zip(self._names[1], columns[1:], strict=True))

    def _receive(self, deadline: float) -> tuple[bytes, bytes]:
        """Return the next message; what comes behind it is kept for the next time."""
        while len(self._data) < HEADER.size or len(self._data) < HEADER.size + self._announced():
            self._wait(self._poll_out, deadline)
            part = os.read(self._out, CHUNK)  # does not wait; mostly the whole of it
            if not part:
                raise self._ended()
            self._data += part
        kind, length = HEADER.unpack_from(self._data)
        end = HEADER.size + length
        reply, self._data = self._data[HEADER.size : end], self._data[end:]
        if self._data and len(self._waiting) < 2:
            raise self._broken("more than one answer")
        return kind, reply

    def _announced(self) -> int:
        """Return the length of the message that is coming in."""
        kind, length = HEADER.unpack_from(self._data)
        if length > (LONGEST_MESSAGE if kind == FAILED else LARGEST_REPLY):
            raise self._broken(f"a message of {length:,} bytes")
        return length

    def _wait(self, poll: select.poll, deadline: float) -> Sequence[tuple[int, int]]:
        left = deadline - time.monotonic()
        ready = poll.poll(max(left, 0) * 1000)
        if not ready:
            self._kill()
            raise ProgramError("timeout", f"it did not answer within {self.timeout:g} s and was killed")
        return ready

    def _broken(self, what: str) -> ProgramError:
        self._kill()
        return ProgramError("protocol", f"it sent {what} and was killed")

    def _ended(self) -> ProgramError:
        """Say how the process ended."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:  # it has only closed its pipe
            return self._broken("the end of its output")
        if code == -signal.SIGSYS:
            return ProgramError("killed", "it was killed for a system call that a reward has no use for")
        if code == -signal.SIGXCPU:
            return ProgramError("cpu_limit", f"it has computed for all of the {self._cpu_limit:,} s that it may")
        if code < 0:
            return ProgramError("killed", f"it was ended by {signal.Signals(-code).name}")
        return ProgramError("killed", f"it ended by itself, exit code {code}")


def _spawn(level: Level, cpu_limit: int) -> subprocess.Popen[bytes]:
    room = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, str(room), str(os.getpid()), level, str(cpu_limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        # Nothing of this process's environment; threads of BLAS could not start later on.
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        close_fds=True,
        start_new_session=True,
    )


def _parts(reply: bytes) -> tuple[int, str, str]:
    """Read a message of a program that failed, of which nothing can be taken for granted."""
    line, _, rest = _printable(reply).partition("\n")
    name, _, text = rest.partition("\n")
    return int(line) if line.isdecimal() and len(line) < 7 else 0, name[:60], text


def _words(name: str, text: str) -> str:
    return text if name == "ContractError" else f"{name}: {text}"


def _printable(data: bytes) -> str:
    """Return text without control characters, which could write on a terminal what they like."""
    text = data.decode(errors="replace")
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
