"""Which pictures an episode has, by their digests, so that another prompt need not decode them to find them known."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlmrl.encoders.store import TIMEOUT, EmbeddingStore
from vlmrl.errors import UserError

DIGEST_BYTES = 32  # of `frame_digest`
UNSEEN = bytes(DIGEST_BYTES)  # a picture that nobody has looked at yet


class FrameIndex:
    """A file beside the embeddings: (dataset, camera, episode) -> digest of each picture.

    It holds for the dataset as it was: `dataset` is a digest of its files, so that recordings that changed are looked
    at again. Like the embeddings it only saves work: without it the same rewards come out.

    Args:
        folder: Folder of the embeddings.
        dataset: What tells these recordings from others, hex.
        store: Embeddings of the pictures.

    Raises:
        UserError: The file cannot be used.
    """

    def __init__(self, folder: Path | str, dataset: str, store: EmbeddingStore):
        path = Path(folder) / "frames.sqlite"
        self._dataset, self._store = dataset, store
        try:
            self._database = sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # as for the embeddings
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS frames (dataset TEXT, camera TEXT, episode INTEGER, digests BLOB NOT NULL, "
                "PRIMARY KEY (dataset, camera, episode)) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise UserError(f"'{path}', which lists pictures, cannot be used: {error}. Remove it.") from error

    def embeddings(
        self, episode: int, cameras: Sequence[str], wanted: Sequence[int]
    ) -> Mapping[str, np.ndarray] | None:
        """Return the embeddings of an episode's pictures, if all that are wanted are known.

        Args:
            episode: Its position in the dataset.
            cameras: Cameras.
            wanted: Numbers of the pictures, from 0 on.

        Returns:
            {camera: (len(wanted), E) float32}; None if one is not known.
        """
        found: dict[str, np.ndarray] = {}
        for camera in cameras:
            digests = self.digests(episode, camera)
            if any(i not in digests for i in wanted):
                return None
            known = self._store.get(list({digests[i] for i in wanted}))
            if any(digests[i] not in known for i in wanted):
                return None
            found[camera] = np.stack([known[digests[i]] for i in wanted])
        return found

    def put(self, episode: int, camera: str, digests: Mapping[int, bytes]) -> None:
        """Note the digests of pictures, {number: 32 bytes}; what was known of others stays."""
        known = {**self.digests(episode, camera), **digests}
        blob = b"".join(known.get(i, UNSEEN) for i in range(max(known) + 1))
        self._database.execute(
            "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?)", (self._dataset, camera, episode, blob)
        )

    def digests(self, episode: int, camera: str) -> dict[int, bytes]:
        """Return {number: digest} of those pictures of an episode that somebody has looked at."""
        row = self._database.execute(
            "SELECT digests FROM frames WHERE dataset = ? AND camera = ? AND episode = ?",
            (self._dataset, camera, episode),
        ).fetchone()
        blob = row[0] if row is not None else b""
        parts = (blob[start : start + DIGEST_BYTES] for start in range(0, len(blob), DIGEST_BYTES))
        return {i: digest for i, digest in enumerate(parts) if digest != UNSEEN}

    def close(self) -> None:
        """Close the file."""
        self._database.close()
