"""The folder of a fit that may be interrupted: it is gone on with by a run of the same settings only."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmrl.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What may differ: where it is put, where and how fast it is computed, and what is shown meanwhile.
FREE = {"out": "", "workers": 0, "threads": 0, "device": "", "progress": False}


def claim(config: DataclassInstance, path: Path, **contents: Any) -> None:
    """Make sure that what is in a folder was left by a run like this one, and write down what this one is like.

    Args:
        config: Settings of the fit.
        path: The file that says what the run is like, in the folder of the fit.
        contents: In place of settings that name files, what tells these files from others; ready for JSON.

    Raises:
        UserError: The folder holds an interrupted run with other settings.
    """
    values = asdict(config)
    free = {key: value for key, value in FREE.items() if key in values}
    text = json.dumps({**values, **free, **contents}, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"'{path.parent}' holds an interrupted run with other settings; remove it, or give another folder: "
            "out=<folder>."
        )
    path.write_text(text, encoding="utf-8")
