"""Arms whose speed is known, for processes of their own to import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def known(seconds: list[float], diary: Path, name: str) -> Any:
    """Make a block that says it took the next of these times, and writes down that it ran."""
    waiting = iter(seconds)

    def block(n: int) -> float:
        with diary.open("a") as file:
            file.write(f"{name} {n} {os.getpid()}\n")
        return next(waiting)

    block.close = lambda: diary.with_name(f"{name}.closed").touch()  # type: ignore[attr-defined]
    return block


def failing() -> Any:
    raise ValueError("no such wheel")


def dying() -> Any:
    os._exit(3)
