"""What a reward program sees: a part of numpy, a few builtins, and the state as a tree of read-only arrays."""

from __future__ import annotations

import builtins
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

# Functions of numpy that programs may call: no files, no memory by address, no text, no random numbers.
# fmt: off
NUMPY = (
    "abs", "absolute", "add", "all", "allclose", "any", "arange", "arccos", "arcsin", "arctan", "arctan2",
    "argmax", "argmin", "array", "asarray", "average", "broadcast_to", "ceil", "clip", "column_stack",
    "concatenate", "copysign", "cos", "cosh", "cross", "cumsum", "deg2rad", "degrees", "diff", "divide", "dot",
    "einsum", "equal", "exp", "exp2", "expand_dims", "expm1", "float32", "float64", "floor", "fmax", "fmin",
    "full", "full_like", "greater", "greater_equal", "heaviside", "hypot", "int64", "isclose", "isfinite",
    "isin", "isnan", "less", "less_equal", "linspace", "log", "log10", "log1p", "log2", "logical_and",
    "logical_not", "logical_or", "logical_xor", "matmul", "max", "maximum", "mean", "median", "min", "minimum",
    "mod", "moveaxis", "multiply", "nan_to_num", "ndarray", "negative", "norm", "not_equal", "ones",
    "ones_like", "power", "prod", "rad2deg", "radians", "ravel", "reciprocal", "repeat", "reshape", "round",
    "select", "sign", "sin", "sinh", "size", "sqrt", "square", "squeeze", "stack", "std", "subtract", "sum",
    "swapaxes", "take", "tan", "tanh", "tile", "transpose", "trapezoid", "unwrap", "var", "vstack", "where",
    "zeros", "zeros_like",
)
# fmt: on
CONSTANTS = ("pi", "e", "inf", "newaxis")
# fmt: off
BUILTINS = (
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min", "range",
    "round", "sum", "tuple", "zip",
)
# fmt: on

# Lines that models write though there is no need to: what they import is there.
IMPORTED = frozenset({"import numpy as np", "from __future__ import annotations"})


class Facade:
    """A part of a module, which cannot be changed."""

    __slots__ = ("_name", "_parts")

    def __init__(self, name: str, parts: Mapping[str, Any]):
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_parts", dict(parts))

    def __getattr__(self, name: str) -> Any:
        try:
            return self._parts[name]
        except KeyError:
            raise AttributeError(
                f"{self._name} has no '{name}' here. It has: {', '.join(sorted(self._parts))}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._name} cannot be changed.")

    __delattr__ = __setattr__  # type: ignore[assignment]


class View:
    """A group of the state: attributes are read-only arrays (N, ...) or further groups.

    The groups are made once; every call puts its own states behind them.

    Args:
        path: How it is written, such as "state.bodies".
        tree: {name: subtree or (start, stop, shape)}.
        states: [(N, size) float64], the numbers of all quantities; the groups below share the list.
    """

    __slots__ = ("_members", "_path", "_states")

    def __init__(self, path: str, tree: Mapping[str, Any], states: list[np.ndarray]):
        members = {
            name: View(f"{path}.{name}", entry, states) if isinstance(entry, dict) else entry
            for name, entry in tree.items()
        }
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_members", members)
        object.__setattr__(self, "_states", states)

    def __getattr__(self, name: str) -> Any:
        entry = self._members.get(name)
        if isinstance(entry, View):
            return entry
        if entry is None:
            raise AttributeError(f"{self._path} has no attribute '{name}'. It has: {', '.join(self._members)}")
        start, stop, shape = entry
        states = self._states[0]
        if not shape:
            return states[:, start]
        part = states[:, start:stop]
        return part if len(shape) == 1 else part.reshape(len(states), *shape)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._path}.{name} cannot be changed: states are read-only.")

    __delattr__ = __setattr__  # type: ignore[assignment]


def tree_of(layout: list[tuple[list[str], int, list[int]]]) -> dict[str, Any]:
    """Return the tree of a layout, a list of (path, start, shape)."""
    tree: dict[str, Any] = {}
    for path, start, shape in layout:
        group = tree
        for name in path[:-1]:
            group = group.setdefault(name, {})
        stop = start
        size = 1
        for length in shape:
            size *= length
        group[path[-1]] = (start, stop + size, tuple(shape))
    return tree


def namespace() -> dict[str, Any]:
    """Return fresh globals for a program."""
    linalg = Facade("np.linalg", {"norm": np.linalg.norm})
    parts = {name: getattr(np, name) for name in NUMPY if name != "norm"}
    parts |= {name: getattr(np, name) for name in CONSTANTS}
    numpy = Facade("np", parts | {"linalg": linalg})
    names = {name: getattr(builtins, name) for name in BUILTINS}
    return {"__builtins__": types.MappingProxyType(names), "__name__": "program", "np": numpy}


def warm_up() -> None:
    """Use what loads parts of itself on first use, while files can still be opened."""
    numbers = np.linspace(0.1, 1.0, 18).reshape(2, 3, 3)
    rows = numbers[:, 0]
    np.einsum("nij,nj->ni", numbers, rows)
    np.linalg.norm(rows, axis=1)
    np.matmul(numbers, numbers)
    np.median(rows, axis=0)
    np.average(rows, axis=0)
    np.isin(rows, rows)
    np.select([rows > 0], [rows])
    np.unwrap(rows)
    np.trapezoid(rows)
    np.cross(rows, rows)
    np.nan_to_num(rows)
    np.var(rows), np.std(rows), np.prod(rows)
    repr(rows), repr(np.float64(1.0))
    text: Any = "a"
    for failing in (lambda: rows @ rows, lambda: rows[5], lambda: rows + text):
        try:
            failing()
        except (ValueError, IndexError, TypeError) as error:
            str(error)
