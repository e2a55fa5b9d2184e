"""What environments say, row by row."""

from __future__ import annotations

import gymnasium as gym
import pytest

from tests.toys import CountingEnv, TalkingEnv
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.errors import UserError


def test_texts_are_counted_within_an_episode() -> None:
    env = RowWriter(TalkingEnv([("a", 0.0), ("b", 0.0), ("a", 1.0), ("", 0.0), ("a", 0.0)]), {"text", "text_count"})
    for _ in range(2):
        _, info = env.reset()
        rows = [info[ROW]] + [env.step(0)[4][ROW] for _ in range(5)]
        assert [row.text for row in rows] == ["", "a", "b", "a", "", "a"]
        assert [row.text_count for row in rows] == [1, 1, 1, 2, 2, 3]


def test_the_reset_is_counted_where_its_row_is_not_written() -> None:
    env = RowWriter(TalkingEnv([("", 0.0), ("a", 0.0)]), {"text_count"}, at_reset=False)
    env.reset()
    assert env.step(0)[4][ROW].text_count == 2
    assert env.step(0)[4][ROW].text is None  # which nobody asked for


def test_an_environment_that_says_nothing_is_refused() -> None:
    env: gym.Env = RowWriter(CountingEnv(), {"text"})
    with pytest.raises(UserError, match="says nothing"):
        env.reset()
