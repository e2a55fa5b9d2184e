"""Files that `vlmrl.fit` made for a reward: what is wrong with one is said by the setting that names it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlmrl.errors import UserError


def read_fitted(key: str, path: str, what: str, names: Iterable[str], how: str) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file; nothing in it is unpickled.

    Args:
        key: Setting that names the file, such as "reward.steps".
        path: What it says; "" where it is not set.
        what: What the file holds, in the plural.
        names: Arrays that must be in it.
        how: How such a file is made, a sentence or two.

    Raises:
        UserError: No file is named, none is there, or it is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"{key}: {f'there is no file {path!r}' if path else 'it must name a file'}. {how}")
    try:
        with Path(path).open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # numpy's words advise to unpickle it
        raise UserError(f"{key}: '{path}' holds no {what}, or was cut short. {how}") from error
