"""The confined process: confines itself, then takes a program, then runs it on states, until its input ends.

Frames in both directions are a byte, a length (8 bytes, little-endian) and as many bytes. Numbers travel as raw
float64, errors as text; nothing is unpickled on either side.
"""

from __future__ import annotations
import __future__

import ast
import json
import os
import struct
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from . import landlock, limits, runtime, seccomp

READS, WRITES = 0, 1
HEADER = struct.Struct("<cQ")
SHAPE = struct.Struct("<IIII")  # rows, numbers of a state, of an action, 0; back: rows, components, bytes of names, 0
LOAD, CALL = b"L", b"C"
READY, DONE, FAILED = b"r", b"d", b"f"
FUNCTION = "compute_dense_reward"
LONGEST_MESSAGE = 4000  # bytes of an error
MOST_COMPONENTS = 16
CHUNK = 1 << 16  # bytes read at once: as much as a pipe holds
SOURCE = "<program>"


def main(parent: int, level: str, cpu_seconds: int) -> None:
    """Serve.

    Args:
        parent: Process id of the parent.
        level: "full", "rlimit" or "none"; a layer that cannot be had ends the process before any program is taken.
        cpu_seconds: Processor time after which the process is ended, unless the level is "none".
    """
    warnings.simplefilter("ignore")  # a warning would look for a line of source in a file
    np.seterr(all="ignore")
    runtime.warm_up()
    if sys.platform.startswith("linux"):
        limits.wait_for_a_free_processor()
    if level != "none":
        if sys.platform.startswith("linux"):
            limits.die_with_parent(parent)
            limits.no_new_privileges()
        limits.set_rlimits(cpu_seconds)
    if level == "full":
        landlock.deny_all()
        seccomp.allow_computing(READS, WRITES)
    _send(READY, b"")
    program: Program | None = None
    for kind, payload in _frames():
        try:
            if kind == LOAD:
                program = Program(json.loads(payload))
                _send(DONE, b"")
            elif program is not None:
                _send(DONE, program(payload))
        except Exception as error:
            _send(FAILED, _told(error))


class ContractError(Exception):
    """What a program returned is not what was agreed."""


class Program:
    """A program and the layout of the states that it reads.

    Args:
        order: {"source": its text, "layout": [(path, start, shape)]}.
    """

    def __init__(self, order: dict[str, Any]):
        self._states = [np.empty((0, 0))]
        self._state = runtime.View("state", runtime.tree_of(order["layout"]), self._states)
        names = runtime.namespace()
        names["__builtins__"] = dict(names["__builtins__"])
        # Annotations stay unread: programs name the classes of their prompt there.
        tree = ast.parse(order["source"], SOURCE)
        tree.body = [line for line in tree.body if ast.unparse(line) not in runtime.IMPORTED]
        code = compile(tree, SOURCE, "exec", __future__.annotations.compiler_flag, dont_inherit=True)
        exec(code, names)
        self._function = names.get(FUNCTION)
        if not callable(self._function):
            raise ContractError(f"there is no function {FUNCTION}(state, action)")

    def __call__(self, payload: bytes) -> bytes:
        """Run it on raw states and actions; return raw totals and components."""
        rows, size, width, _ = SHAPE.unpack_from(payload)
        numbers = np.frombuffer(payload, dtype="<f8", offset=SHAPE.size)  # read-only, as bytes are
        states = numbers[: rows * size].reshape(rows, size)
        actions = numbers[rows * size :].reshape(rows, width)
        self._states[0] = states
        result = self._function(self._state, actions)  # type: ignore[misc]
        if not isinstance(result, tuple) or len(result) != 2:
            raise ContractError(f"it must return (total, components), and returned {_kind(result)}")
        total, components = result
        if not isinstance(components, dict):
            raise ContractError(f"components must be a dict of name: (N,) array, and is {_kind(components)}")
        if not 1 <= len(components) <= MOST_COMPONENTS:
            raise ContractError(f"there must be 1 to {MOST_COMPONENTS} components, and there are {len(components)}")
        for name in components:
            if not isinstance(name, str) or not name.isidentifier() or len(name) > 40:
                raise ContractError(f"the name of a component must be an identifier, and one is {str(name)[:60]!r}")
        columns = np.empty((len(components) + 1, rows), dtype="<f8")
        columns[0] = _checked("total", total, rows)
        for i, (name, value) in enumerate(components.items(), 1):
            columns[i] = _checked(name, value, rows)
        names = ",".join(components).encode()
        return b"".join([SHAPE.pack(rows, len(components), len(names), 0), names, columns.tobytes()])


def _checked(name: str, value: Any, rows: int) -> np.ndarray:
    """Check one array of a result: (rows,) of floats."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == (rows,):
        return value
    what = name if name == "total" else f"component '{name}'"
    if not isinstance(value, np.ndarray):
        raise ContractError(f"{what} must be an array of shape (N,), and is {_kind(value)}")
    if value.dtype.kind != "f":
        raise ContractError(f"{what} must be of floats, and is of {value.dtype}; .astype(np.float64) makes it so")
    raise ContractError(f"{what} must have shape (N,) = ({rows},), and has {value.shape}")


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"{type(value).__name__} {str(value)[:60]}"


def _told(error: BaseException) -> bytes:
    """Write an error as its line in the program (0 for none), its type and its text."""
    line = 0
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == SOURCE:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line, text = error.lineno or 0, error.msg
    else:
        text = str(error)
    return f"{line}\n{type(error).__name__}\n{text}".encode(errors="replace")[:LONGEST_MESSAGE]


def _frames() -> Iterator[tuple[bytes, bytes]]:
    """Yield the frames of the input, until it ends; several may come at once."""
    data = b""
    while True:
        while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[1]:
            part = os.read(READS, CHUNK)
            if not part:
                return
            data = data + part if data else part
        kind, length = HEADER.unpack_from(data)
        end = HEADER.size + length
        yield kind, data[HEADER.size : end]
        data = data[end:]


def _send(kind: bytes, payload: bytes) -> None:
    rest = memoryview(HEADER.pack(kind, len(payload)) + payload)
    while rest:
        rest = rest[os.write(WRITES, rest) :]
