"""The rows that running episodes and buffers still need."""

from __future__ import annotations

from collections.abc import Iterable

from vlmrl.rows import Row, RowKey, Rows, stack


class EpisodeStore:
    """Rows by `(env, episode, t)`.

    The owner adds rows as they happen and drops those that no reward can read any more.
    """

    def __init__(self) -> None:
        self._episodes: dict[tuple[int, int], dict[int, Row]] = {}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._episodes.values())

    def __contains__(self, key: RowKey) -> bool:
        return key.t in self._episodes.get((key.env, key.episode), ())

    def __getitem__(self, key: RowKey) -> Row:
        return self._episodes[key.env, key.episode][key.t]

    def add(self, key: RowKey, row: Row) -> None:
        """Keep a row.

        Raises:
            ValueError: The row is already there.
        """
        rows = self._episodes.setdefault((key.env, key.episode), {})
        if key.t in rows:
            raise ValueError(f"Row {key} is already stored.")
        rows[key.t] = row

    def rows(self, env: int, episode: int, first: int, last: int, fields: Iterable[str]) -> Rows:
        """Return rows `first` to `last` (both included) of an episode as columns.

        Raises:
            KeyError: One of them was dropped or never stored.
        """
        kept = self._episodes[env, episode]
        steps = range(first, last + 1)
        return stack([kept[t] for t in steps], steps, fields)

    def drop_before(self, env: int, episode: int, t: int) -> None:
        """Forget the rows of an episode that are older than `t`."""
        rows = self._episodes.get((env, episode))
        if rows is None:
            return
        for step in [step for step in rows if step < t]:
            del rows[step]
        if not rows:
            del self._episodes[env, episode]
