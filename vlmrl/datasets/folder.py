"""A new folder that appears under its name when it is complete, and never before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmrl.errors import UserError


class NewFolder:
    """Where a dataset that is a plain folder goes.

    Args:
        out: The folder.

    Raises:
        UserError: It is there already.
    """

    def __init__(self, out: str):
        self.path = Path(out).expanduser()
        self.draft = self.path.with_name(f".{self.path.name}.partial")
        if self.path.exists():
            raise UserError(
                f"out={out} is there already, and datasets are never written over. Give another name, or remove it."
            )

    def start(self) -> Path:
        """Make an empty draft, in the place of one that was left behind, and return it."""
        shutil.rmtree(self.draft, ignore_errors=True)
        self.draft.mkdir(parents=True)
        return self.draft

    @contextmanager
    def whole_or_not_at_all(self) -> Iterator[Callable[[str], Path]]:
        """Put the draft back as it was where what is added cannot be completed, Ctrl-C included.

        Yields:
            Takes the place of a file in the draft that is about to be written, or written on, and returns its path;
            its folder is there.
        """
        before: dict[Path, int | None] = {}  # bytes of each file; None where there was none

        def begun(place: str) -> Path:
            path = self.draft / place
            path.parent.mkdir(parents=True, exist_ok=True)
            before[path] = path.stat().st_size if path.exists() else None
            return path

        try:
            yield begun
        except BaseException:
            for path, size in before.items():
                if size is None:
                    path.unlink(missing_ok=True)
                else:
                    os.truncate(path, size)
            raise

    def finish(self) -> None:
        """Give the draft its name."""
        self.draft.rename(self.path)
