"""What is known already: the rewards of each episode that is done, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError


class Ledger:
    """A file with the rewards of the episodes that are done, or why they cannot have any.

    An episode is written when it is done, in one transaction. A file that was made for something else, by other
    settings, is begun anew.

    Args:
        path: The file.
        asked: What the rewards follow from, ready for JSON.

    Raises:
        UserError: The file cannot be used.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]):
        self.path, self._closed = path, False
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("CREATE TABLE IF NOT EXISTS asked (digest TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS episodes (position INTEGER PRIMARY KEY, rewards BLOB, problem TEXT)"
            )
            known = self._database.execute("SELECT digest FROM asked").fetchone()
            if known is None or known[0] != digest:
                self._database.execute("BEGIN")
                self._database.execute("DELETE FROM asked")
                self._database.execute("DELETE FROM episodes")
                self._database.execute("INSERT INTO asked VALUES (?)", (digest,))
                self._database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"'{path}', which keeps what is done, cannot be used: {error}.") from error

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM episodes").fetchone()[0])

    def __contains__(self, position: int) -> bool:
        row = self._database.execute("SELECT 1 FROM episodes WHERE position = ?", (position,)).fetchone()
        return row is not None

    def put(self, position: int, rewards: np.ndarray) -> None:
        """Note the rewards of an episode, (n,) float32."""
        self._database.execute("INSERT INTO episodes VALUES (?, ?, NULL)", (position, rewards.astype("<f4").tobytes()))

    def put_problem(self, position: int, problem: str) -> None:
        """Note why an episode has no rewards."""
        self._database.execute("INSERT INTO episodes VALUES (?, NULL, ?)", (position, problem))

    def rewards(self, position: int) -> np.ndarray | None:
        """Return the rewards of an episode that is done, (n,) float32; None where it has none."""
        row = self._database.execute("SELECT rewards FROM episodes WHERE position = ?", (position,)).fetchone()
        return None if row[0] is None else np.frombuffer(row[0], dtype="<f4")

    def problems(self) -> dict[int, str]:
        """Return {position: problem} of the episodes that have no rewards."""
        rows = self._database.execute(
            "SELECT position, problem FROM episodes WHERE problem IS NOT NULL ORDER BY position"
        )
        return dict(rows.fetchall())

    def remove(self) -> None:
        """Close and delete the file: its work is done."""
        self._database.close()
        self._closed = True
        self.path.unlink()

    def close(self) -> None:
        """Close the file; one in which nothing is done goes, for nobody would know what it is there for."""
        if self._closed:
            return
        if len(self):
            self._database.close()
            self._closed = True
        else:
            self.remove()
