"""Labelled pictures that a person brings: a folder `true/` and a folder `false/`, or a table of paths and labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.audit.states import LabelledStates, check_labels
from vlmrl.workflows.report import tracked

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LABELS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
FORM = (
    "Bring a folder with subfolders true/ and false/ of pictures (those of one clip in a folder of their own below), "
    "or a csv file with the columns path, label (true or false) and, for pictures of one clip, group"
)


class _Entry(NamedTuple):
    path: Path
    done: bool
    group: str


def read_frames(given: str, camera: str, progress: bool = False) -> LabelledStates:
    """Read labelled pictures.

    Args:
        given: Path of a folder with subfolders `true` and `false`, or of a csv file with the columns `path` (relative
            to the file, or absolute), `label` and, optionally, `group`.
        camera: Name under which a reward model finds them.
        progress: Whether to show a progress bar.

    Returns:
        The pictures, in the order of their paths or of the table. Pictures of one folder below `true` or `false`, or
        with one `group`, are one group: they come from one clip.

    Raises:
        UserError: There is nothing there, it has another form, or a picture cannot be read.
    """
    path = Path(given)
    if not path.exists():
        raise UserError(f"frames: there is no folder or file '{given}'. {FORM}.")
    entries = list(_folder(path) if path.is_dir() else _table(path))
    if not entries:
        raise UserError(f"frames: '{given}' holds no pictures ({', '.join(PICTURES)}). {FORM}.")
    pictures = [_read(entry.path) for entry in tracked(entries, desc="reading pictures", unit="frame", show=progress)]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(entry.group for entry in entries))}
    done = np.array([entry.done for entry in entries])
    same = len({picture.shape for picture in pictures}) == 1
    states = LabelledStates(
        {camera: np.stack(pictures) if same else pictures},
        done,
        done.astype(np.float32),
        tuple(path.name for _ in entries),
        np.array([numbers[entry.group] for entry in entries], dtype=np.int64),
        {},
    )
    check_labels(states, f"In the {len(states)} pictures of '{given}'", "label more pictures")
    return states


def _folder(folder: Path) -> Iterator[_Entry]:
    missing = [name for name in ("true", "false") if not (folder / name).is_dir()]
    if missing:
        raise UserError(f"frames: '{folder}' has no subfolder {' and no subfolder '.join(missing)}. {FORM}.")
    for name in ("true", "false"):
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in PICTURES:
                alone = path.parent == folder / name
                yield _Entry(path, LABELS[name], str(path if alone else path.parent.relative_to(folder / name)))


def _table(file: Path) -> Iterator[_Entry]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = {"path", "label"} - set(table.fieldnames or ())
        if missing:
            raise UserError(f"frames: the table '{file}' has no column {', '.join(sorted(missing))}. {FORM}.")
        for row in table:
            label = (row["label"] or "").strip().lower()
            if label not in LABELS:
                raise UserError(
                    f"frames: line {table.line_num} of '{file}' has label '{row['label']}'; it must be true or false."
                )
            path = file.parent / (row["path"] or "")
            yield _Entry(path, LABELS[label], row.get("group") or str(path))


def _read(path: Path) -> np.ndarray:
    """Read a picture, (H, W, 3) uint8 RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if picture is None:
        raise UserError(f"frames: '{path}' {'is not a picture' if path.exists() else 'does not exist'}.")
    return np.ascontiguousarray(picture[..., ::-1])
