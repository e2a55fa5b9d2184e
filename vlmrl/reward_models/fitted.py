"""Files that hold what a reward has learned, in a fit or in a run: what is wrong with one is said."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError

if TYPE_CHECKING:
    import torch


def check_file(key: str, path: str) -> None:
    """Refuse a setting that names a file which is not there; "" names none.

    Raises:
        UserError: It is not.
    """
    if path and not Path(path).is_file():
        raise UserError(f"{key}: there is no file '{path}'.")


def read_fitted(
    key: str, path: str, what: str, names: Iterable[str], how: str, encoder: Encoder
) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file that was made with an encoder; nothing in it is unpickled.

    Args:
        key: Setting that names the file, such as "reward.steps".
        path: What it says; "" where it is not set.
        what: What the file holds, in the plural.
        names: Arrays that must be in it, beside the fingerprint `encoder`, a string.
        how: How such a file is made, a sentence or two.
        encoder: The encoder of the run.

    Returns:
        {name: array}, `encoder` among them.

    Raises:
        UserError: No file is named, none is there, it is no such file, or it was made with another encoder.
    """
    if not Path(path).is_file():
        raise UserError(f"{key}: {f'there is no file {path!r}' if path else 'it must name a file'}. {how}")
    try:
        with Path(path).open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            found = {name: content[name] for name in (*names, "encoder")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # numpy's words advise to unpickle it
        raise UserError(f"{key}: '{path}' holds no {what}, or was cut short. {how}") from error
    if str(found["encoder"]) != encoder.fingerprint:
        raise UserError(
            f"{key}: '{path}' was made with another encoder than {encoder.name}. Take that one, or make it anew. {how}"
        )
    return found


def read_learned(path: Path, name: str, what: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what a reward model that learns in a run has written there, a safetensors file.

    Args:
        path: The file.
        name: Of the reward, under which the file holds its note.
        what: What it was learned from, such as "judgments".

    Returns:
        The note, what JSON can say, and the weights.

    Raises:
        UserError: The file is not there, or was not written by this reward.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})[name])
            return note, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"'{path}' holds no reward model that was learned from {what} ({error}). A run with reward={name} writes "
            "one, reward_model.safetensors."
        ) from error
