"""A new folder that appears under its name when it is complete, and never before."""

from __future__ import annotations

import shutil
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

    def finish(self) -> None:
        """Give the draft its name."""
        self.draft.rename(self.path)
