"""Spaces in the words of JSON, so that a dataset whose form has no place for them can keep them nonetheless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.errors import UserError

SPACES = "spaces"  # where this suite's own metadata keep them: {"observations": …, "actions": …}


def described(observations: gym.Space | None, actions: gym.Space | None) -> dict[str, Any]:
    """Return {"spaces": …}, a part of the metadata, with those of the two that are a Box or Discrete."""
    both = {"observations": observations, "actions": actions}
    return {SPACES: {name: _plain(space) for name, space in both.items() if _is_kept(space)}}


def recorded(metadata: Mapping[str, Any], name: str) -> gym.Space | None:
    """Return the space of "observations" or "actions" that `described` has put into metadata; None: it has not.

    Raises:
        UserError: What is there is no space.
    """
    given = metadata.get(SPACES, {}).get(name)
    if given is None:
        return None
    try:
        if given["type"] == "Discrete":
            return gym.spaces.Discrete(int(given["n"]), start=int(given["start"]))
        shape, kind = tuple(given["shape"]), np.dtype(given["dtype"])
        low, high = (_bound(given[side], shape, kind) for side in ("low", "high"))
        return gym.spaces.Box(low, high, shape, kind.type)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"The metadata of the dataset give no space of {name} that can be read ({type(error).__name__}: {error}): "
            f"{given}. Take '{name}' out of their '{SPACES}', and it is told by the values."
        ) from error


def in_form(space: gym.Space | None, values: np.ndarray) -> np.ndarray | None:
    """Return n samples of a space in its own shape and data type; None where they cannot be of it.

    Args:
        space: A Box or Discrete; any other is none that values can be of.
        values: (n,) or (n, k), a table's columns. Discrete: the choices themselves.
    """
    if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
        return None
    shape = space.shape or ()
    if values.size != len(values) * _size(shape):
        return None
    if isinstance(space, gym.spaces.Box):
        return values.reshape(len(values), *shape).astype(space.dtype)
    choices = values.reshape(-1)
    known = (choices == np.round(choices)) & (choices >= space.start) & (choices < space.start + space.n)
    return choices.astype(np.int64) if known.all() else None


def _is_kept(space: gym.Space | None) -> bool:
    return isinstance(space, gym.spaces.Box | gym.spaces.Discrete)


def _plain(space: Any) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    sides = {"low": _numbers(space.low), "high": _numbers(space.high)}
    return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **sides}


def _numbers(bounds: np.ndarray) -> Any:
    """Return bounds as one number where all are the same, else as a list; JSON has no word for infinite ones."""
    flat = [value if np.isfinite(value) else str(value) for value in bounds.reshape(-1).tolist()]
    return flat[0] if flat and len(set(flat)) == 1 else flat


def _bound(given: Any, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    if not isinstance(given, list):
        given = [given] * _size(shape)
    # Whole numbers stay so: beyond 2**53 a float has not all of them.
    return np.array([float(value) if isinstance(value, str) else value for value in given], dtype=kind).reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
