"""Embeddings that outlive a run, by content: the same frame seen by the same encoder is never encoded twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError

CHUNK = 500  # digests a question; SQLite's default limit of variables was 999 for long
TIMEOUT = 60.0  # seconds to wait while another process writes


def frame_digest(frame: np.ndarray) -> bytes:
    """Return the SHA-256 of a frame's size and pixels, (H, W, 3) uint8; 32 bytes.

    Processors have instructions for it, so it is the fastest of hashlib's that nobody can make collide.
    """
    digest = hashlib.sha256(repr(frame.shape).encode())
    digest.update(np.ascontiguousarray(frame).data)
    return digest.digest()


class EmbeddingStore:
    """A folder with one SQLite file for each encoder, named by its fingerprint: digest of a frame -> embedding.

    Embeddings are kept as the float32 that the encoder gave: a frame from the store has the reward that it had.
    Several processes may use one folder (not on a network file system: SQLite's write-ahead log needs shared memory).

    Attributes:
        path: The file.

    Args:
        folder: The folder; made if it is not there.
        encoder: Whose embeddings these are.

    Raises:
        UserError: The folder cannot be written, or its file is no such store.
    """

    def __init__(self, folder: Path | str, encoder: Encoder):
        path = Path(folder) / f"{encoder.fingerprint}.sqlite"
        self.path = path
        self._dim = encoder.dim
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # a crash may lose the newest, and breaks nothing
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (digest BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"The embedding store '{path}' cannot be used: {error}. Give another folder, or none."
            ) from error

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0])

    def get(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return {digest: (E,) float32} of those frames that are known."""
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(digests), CHUNK):
            chunk = digests[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            rows = self._database.execute(f"SELECT digest, vector FROM embeddings WHERE digest IN ({marks})", chunk)
            found |= {digest: np.frombuffer(vector, dtype="<f4", count=self._dim) for digest, vector in rows}
        return found

    def put(self, digests: Sequence[bytes], embeddings: np.ndarray) -> None:
        """Keep embeddings, (n, E) float32; frames that are known stay as they are."""
        rows = [(digest, row.tobytes()) for digest, row in zip(digests, embeddings.astype("<f4"), strict=True)]
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    def items(self) -> Iterator[tuple[bytes, np.ndarray]]:
        """Yield (digest, (E,) float32) of all frames that are known."""
        for digest, vector in self._database.execute("SELECT digest, vector FROM embeddings"):
            yield digest, np.frombuffer(vector, dtype="<f4", count=self._dim)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
