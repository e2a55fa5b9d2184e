from __future__ import annotations

import copy
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.rows import FIELDS, Row, Rows, stack


def test_the_list_of_fields_is_that_of_the_class() -> None:
    assert {field.name for field in fields(Row)} == FIELDS


@given(first=st.integers(0, 1000), n=st.integers(1, 20), width=st.integers(1, 5))
def test_columns_hold_the_rows_in_order(first: int, n: int, width: int) -> None:
    rows = [
        Row(
            embeddings={"front": np.full(width, t, np.float32)},
            state={"x": np.float32(t)},
            text=str(t),
            truncated=t == n - 1,
        )
        for t in range(n)
    ]
    columns = stack(rows, range(first, first + n), ["embeddings", "state", "text", "truncated"])
    assert len(columns) == n
    np.testing.assert_array_equal(columns.t, np.arange(first, first + n))
    assert columns["embeddings"]["front"].shape == (n, width)
    assert columns["embeddings"]["front"].dtype == np.float32
    np.testing.assert_array_equal(columns["state"]["x"], np.arange(n))
    assert columns["text"] == [str(t) for t in range(n)]
    assert columns["truncated"].tolist() == [False] * (n - 1) + [True]


def test_action_and_reward_of_the_reset_are_zero() -> None:
    rows = [Row(), Row(action=np.ones(3, np.float32), reward=2.0)]
    columns = stack(rows, [0, 1], ["action", "reward"])
    np.testing.assert_array_equal(columns["action"], [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(columns["reward"], [0.0, 2.0])


@pytest.mark.parametrize("name", ["action", "reward", "embeddings"])
def test_a_missing_field_is_named_with_its_time(name: str) -> None:
    with pytest.raises(ValueError, match=rf"t = \[4\] have no '{name}'"):
        stack([Row()], [4], [name])


def test_a_column_that_was_not_collected_says_what_there_is() -> None:
    with pytest.raises(KeyError, match="hold no 'frames' \\(they hold: state\\)"):
        Rows(np.arange(1), {"state": {}})["frames"]


def test_nothing_stacked_is_nothing() -> None:
    assert len(stack([], [], ["reward", "embeddings"])) == 0


def test_a_row_in_an_info_that_is_copied_deeply_stays_itself() -> None:
    """As Stable-Baselines3's DummyVecEnv does at every step; pictures would be copied with it."""
    info = {"row": Row(frames={"front": np.zeros((2, 2, 3), np.uint8)}), "score": [1]}
    copied = copy.deepcopy(info)
    assert copied["row"] is info["row"] and copied["score"] is not info["score"]
