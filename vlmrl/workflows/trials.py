"""Trials that were run elsewhere, on real robots above all: tables of outcomes, and LeRobot's evaluations."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlmrl.errors import UserError

YES, NO = ("true", "1", "1.0", "yes", "s", "success"), ("false", "0", "0.0", "no", "f", "failure")
FORM = (
    "Bring a csv file with a column success (true or false) and, where known, policy, task, seed, score (progress, 0 "
    "to 1) and judge (what a judge said, 0 to 1; success may then be empty); or LeRobot's eval_info.json"
)


@dataclass(frozen=True)
class Trials:
    """Outcomes of one policy, in the order in which they happened.

    Attributes:
        name: What a person calls the policy.
        task: (n,) what was to be done; empty strings where nobody said.
        start: (n,) what the trial started from, such as a seed; equal ones are equal starts of a task. Empty strings
            where nobody said.
        success: (n,) float64, 0 or 1; NaN where nobody labelled it.
        judged: (n,) float64, 0 to 1, what a judge said; NaN where it was not asked.
        score: (n,) float64, 0 to 1, how far the trial came; NaN where nobody said.
    """

    name: str
    task: tuple[str, ...]
    start: tuple[str, ...]
    success: np.ndarray
    judged: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.success)

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool, where success is known."""
        return np.isfinite(self.success)


class Trial(NamedTuple):
    """One line of a table."""

    policy: str
    task: str
    start: str
    success: float
    judged: float = np.nan
    score: float = np.nan


def read_trials(files: Iterable[str]) -> dict[str, Trials]:
    """Read trials.

    Args:
        files: Paths of csv files (see `FORM`), of LeRobot's `eval_info.json`, or of folders that hold one.

    Returns:
        {policy: its trials}, in the order in which they are named. Without a column `policy` a file is one policy,
        called by the file's name, or its folder's where that says more.

    Raises:
        UserError: A file is not there, has another form, or holds a value that is not allowed.
    """
    paths = [_found(file) for file in files]
    names = _names(paths)
    collected: dict[str, list[Trial]] = {}
    for path in paths:
        for trial in _lerobot(path, names[path]) if path.suffix == ".json" else _table(path, names[path]):
            collected.setdefault(trial.policy, []).append(trial)
    return {policy: as_trials(trials) for policy, trials in collected.items()}


def as_trials(trials: list[Trial]) -> Trials:
    """Put the trials of one policy, at least one, into columns."""
    _, task, start, success, judged, score = zip(*trials, strict=True)
    return Trials(trials[0].policy, task, start, np.array(success), np.array(judged), np.array(score))


def _found(file: str) -> Path:
    path = Path(file)
    if path.is_dir():
        path = path / "eval_info.json"
    if not path.is_file():
        raise UserError(f"trials: there is no file '{path}'. {FORM}.")
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"trials: '{path}' is neither csv nor json. {FORM}.")
    return path


def _names(paths: list[Path]) -> dict[Path, str]:
    """Name files by their stems, by their folders where LeRobot calls them all the same, else by their whole paths."""
    names = {path: path.parent.name if path.stem == "eval_info" else path.stem for path in paths}
    if len(names) < len(paths):
        raise UserError("trials names a file twice.")
    taken = list(names.values())
    return {path: name if taken.count(name) == 1 and name else str(path) for path, name in names.items()}


def _table(path: Path, name: str) -> Iterator[Trial]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        columns = {column.strip().lower(): column for column in table.fieldnames or () if column is not None}
        if "success" not in columns:
            raise UserError(f"trials: the table '{path}' has no column success. {FORM}.")
        number = 0
        for number, line in enumerate(table, start=1):  # noqa: B007  (read after the loop)
            cells = {column: (line[own] or "").strip() for column, own in columns.items()}
            where = f"trials: line {table.line_num} of '{path}'"
            judged = _share(cells.get("judge", ""), f"{where}: judge")
            if not cells["success"] and np.isnan(judged):
                raise UserError(f"{where} has neither success nor judge. Leave out trials that were not judged at all.")
            yield Trial(
                cells.get("policy") or name,
                cells.get("task", ""),
                cells.get("seed", ""),
                _flag(cells["success"], where),
                judged,
                _share(cells.get("score", ""), f"{where}: score"),
            )
        if not number:
            raise UserError(f"trials: the table '{path}' holds no trials.")


def _flag(text: str, where: str) -> float:
    if not text:
        return np.nan
    if text.lower() in YES or text.lower() in NO:
        return float(text.lower() in YES)
    raise UserError(f"{where}: success is '{text}'; it must be true or false (or empty, where a judge has spoken).")


def _share(text: str, where: str) -> float:
    if not text:
        return np.nan
    if text.lower() in YES or text.lower() in NO:
        return float(text.lower() in YES)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise UserError(f"{where} is '{text}'; it must be a number from 0 to 1.")
    return value


def _lerobot(path: Path, name: str) -> Iterator[Trial]:
    """Read LeRobot's `eval_info.json`: `per_task` of newer releases, `per_episode` of older ones and of one task."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"trials: '{path}' is not JSON ({error}).") from error
    entries = list(_outcomes(content)) if isinstance(content, Mapping) else []
    if not entries:
        raise UserError(f"trials: '{path}' holds no outcomes, neither under per_task nor under per_episode. {FORM}.")
    for task, start, success in entries:
        if not isinstance(success, bool | int | float) or success not in (0, 1):
            raise UserError(f"trials: '{path}' says success = {success!r} of a trial; it must be true or false.")
        yield Trial(name, task, start, float(success))


def _outcomes(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for entry in content.get("per_task", ()):
        task = f"{entry.get('task_group', '')}/{entry.get('task_id', '')}"
        for success in entry.get("metrics", {}).get("successes", ()):
            yield task, "", success  # it does not say from which seed
    for entry in content.get("per_episode", ()):
        seed = entry.get("seed")
        yield "", "" if seed is None else str(seed), entry.get("success")
