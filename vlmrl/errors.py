"""Errors a user can cause, each with what was given, what is allowed and what to do next."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

MOST_NAMES = 100
"""More names than this are not all listed; the longest list of the suite's own, its tasks, is shorter."""

NEAREST_NAMES = 10
"""So many are listed of a list that is too long, those most like what was given."""


class UserError(ValueError):
    """A mistake that the user can put right; commands print its message without a traceback and exit with 2."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'clip'?" for a near miss, else an empty string."""
    close = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a list of names.

    Args:
        kind: What the name stands for, such as "reward" or "key".
        given: The name that was given.
        allowed: Every name that would have been accepted; of more than `MOST_NAMES` the nearest are said.
    """
    names = sorted(allowed)
    start = f"Unknown {kind} '{given}'.{did_you_mean(given, names)}"
    if len(names) > MOST_NAMES:  # the ids of a package's levels run to hundreds, in which nobody sees the answer
        near = difflib.get_close_matches(str(given), names, n=NEAREST_NAMES, cutoff=0.0)
        return UserError(f"{start} The nearest of {len(names)}: {', '.join(near)}.")
    return UserError(f"{start} Available: {', '.join(names) if names else 'none'}.")


def require(module: str, *, extra: str | None = None, hint: str = "") -> ModuleType:
    """Import an optional module or say how to install it.

    Args:
        module: Import path, such as "minari".
        extra: The extra of this package that brings it; None for a core dependency.
        hint: What else to know of installing it, a sentence.

    Raises:
        UserError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        target = f"vlmrl[{extra}]" if extra else "vlmrl"
        raise UserError(
            f"This needs the package '{module}', which is not installed. Run: pip install '{target}'"
            + (f". {hint}" if hint else "")
        ) from error
