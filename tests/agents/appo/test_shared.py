"""Scores that one process writes and others read, and the clock that tells who hangs."""

from __future__ import annotations

import math
import time
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.agents.appo.shared import SharedScores, StepClock
from vlmrl.rows import text_keys


def keys_of(*texts: str) -> np.ndarray:
    return text_keys(list(texts))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(width=32, allow_nan=False)), max_size=60))
def test_a_table_is_a_dict_of_the_latest_scores(entries: list[tuple[int, float]]) -> None:
    scores, known = SharedScores(64), {}
    for version, (key, score) in enumerate(entries, start=1):
        key = key or 1  # these two are one
        assert scores.write(np.array([key], dtype=np.uint64), np.array([score], dtype=np.float32), version) == 0
        known[key] = score
        assert scores.version == version
    assert len(scores) == len(known)
    for key, score in known.items():
        assert scores.read(key) == score
    assert math.isnan(scores.read(7)) or 7 in known


def test_keys_that_fall_on_one_slot_are_told_apart_and_a_full_table_says_so() -> None:
    scores = SharedScores(10)
    slots = len(scores._keys)
    keys = np.array([3 + i * slots for i in range(10)], dtype=np.uint64)
    assert scores.write(keys, np.arange(10, dtype=np.float32), 1) == 0
    assert [scores.read(int(key)) for key in keys] == list(range(10))
    more = np.array([3 + 10 * slots, 3], dtype=np.uint64)
    assert scores.write(more, np.array([5, 6], dtype=np.float32), 2) == 1  # the old key still takes a new score
    assert math.isnan(scores.read(int(more[0]))) and scores.read(3) == 6


def test_a_score_that_is_not_there_yet_is_none() -> None:
    scores = SharedScores(4)
    place = scores._find(9)
    scores._keys[place] = 9  # the key has arrived before the score
    assert math.isnan(scores.read(9))


def test_age_counts_from_the_newest_version() -> None:
    scores = SharedScores(4)
    assert scores.age == 0
    scores.write(keys_of("a"), np.ones(1, dtype=np.float32), 1)
    time.sleep(0.05)
    scores.write(keys_of("b"), np.ones(1, dtype=np.float32), 1)  # one more text of the same version
    assert 0.05 <= scores.age < 30


def _reader(scores: SharedScores, clock: StepClock, pipe: Any) -> None:
    key = int(keys_of("met later")[0])
    clock.enter(1)
    pipe.send((scores.read(int(keys_of("a door opens")[0])), scores.read(key)))
    while math.isnan(scores.read(key)):
        time.sleep(0.01)
    clock.leave(1)
    pipe.send((scores.read(key), scores.version))


def test_another_process_sees_what_is_written_while_it_runs() -> None:
    context = get_context("spawn")
    scores, clock = SharedScores(100), StepClock(3)
    scores.write(keys_of("a door opens"), np.array([0.25], dtype=np.float32), 1)
    here, there = context.Pipe()
    process = context.Process(target=_reader, args=(scores, clock, there))
    process.start()
    try:
        assert here.poll(120)
        door, later = here.recv()
        assert door == 0.25 and math.isnan(later)
        assert list(clock.stuck()) == [1] and clock.steps == 0
        scores.write(keys_of("met later"), np.array([-2.0], dtype=np.float32), 7)
        assert here.poll(60) and here.recv()[0] == -2.0
        process.join(60)
        assert process.exitcode == 0 and clock.stuck() == {} and clock.steps == 1
    finally:
        process.kill()


def test_a_clock_counts_idle_time_from_the_last_step_of_anyone() -> None:
    clock = StepClock(2)
    time.sleep(0.05)
    assert clock.idle() >= 0.05
    clock.enter(0)
    clock.leave(0, steps=3)
    assert clock.idle() < 0.05 and clock.steps == 3


@pytest.mark.parametrize("texts", [2000])
def test_nothing_is_lost_between_many(texts: int) -> None:
    scores = SharedScores(texts)
    keys = keys_of(*(f"text {i}" for i in range(texts)))
    scores.write(keys, np.arange(texts, dtype=np.float32), 1)
    assert [scores.read(key) for key in keys.tolist()] == list(range(texts))
