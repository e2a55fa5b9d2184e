from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vlmrl.episodes import EpisodeStore
from vlmrl.rows import Row, RowKey


class Store(RuleBasedStateMachine):
    """The store against a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.store = EpisodeStore()
        self.model: dict[RowKey, Row] = {}

    @rule(key=st.builds(RowKey, st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)))
    def add(self, key: RowKey) -> None:
        row = Row(reward=float(len(self.model)))
        if key in self.model:
            with pytest.raises(ValueError, match="already stored"):
                self.store.add(key, row)
        else:
            self.store.add(key, row)
            self.model[key] = row

    @rule(env=st.integers(0, 2), episode=st.integers(0, 2), t=st.integers(0, 7))
    def drop(self, env: int, episode: int, t: int) -> None:
        self.store.drop_before(env, episode, t)
        self.model = {
            key: row for key, row in self.model.items() if (key.env, key.episode) != (env, episode) or key.t >= t
        }

    @invariant()
    def same(self) -> None:
        assert len(self.store) == len(self.model)
        for key, row in self.model.items():
            assert key in self.store
            assert self.store[key] is row


TestStore = Store.TestCase


@given(first=st.integers(0, 8), last=st.integers(0, 8))
def test_rows_come_with_both_ends(first: int, last: int) -> None:
    store = EpisodeStore()
    for t in range(9):
        store.add(RowKey(1, 2, t), Row(reward=float(t)))
    rows = store.rows(1, 2, first, last, ["reward"])
    np.testing.assert_array_equal(rows["reward"], np.arange(first, last + 1))


def test_a_dropped_row_is_missed() -> None:
    store = EpisodeStore()
    for t in range(3):
        store.add(RowKey(0, 0, t), Row(reward=0.0))
    store.drop_before(0, 0, 2)
    with pytest.raises(KeyError):
        store.rows(0, 0, 1, 2, ["reward"])
    assert len(store.rows(0, 0, 2, 2, ["reward"])) == 1
