from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toys import PointEnv
from vlmrl.envs.seeded_episodes import SeededEpisodes, episode_seed


def starts(env: SeededEpisodes, n: int) -> list[float]:
    return [float(env.reset()[0][0]) for _ in range(n)]


def test_an_episodes_start_depends_on_its_number_alone() -> None:
    first = starts(SeededEpisodes(PointEnv(), seed=3, index=1), 5)
    assert starts(SeededEpisodes(PointEnv(), seed=3, index=1, episode=2), 3) == first[2:]
    again = SeededEpisodes(PointEnv(), seed=3, index=1)
    starts(again, 4)
    again.set_next_episode(1)
    assert starts(again, 4) == first[1:]
    assert len(set(first)) == 5


def test_an_explicit_seed_wins() -> None:
    env = SeededEpisodes(PointEnv(), seed=3)
    assert env.reset(seed=9)[0] == PointEnv().reset(seed=9)[0]


@pytest.mark.parametrize("other", [(4, 1, 2), (3, 2, 2), (3, 1, 3)])
def test_each_number_counts(other: tuple[int, int, int]) -> None:
    assert episode_seed(3, 1, 2) != episode_seed(*other)


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 2**31 - 1))
def test_seeds_fit_gymnasium(seed: int, index: int, episode: int) -> None:
    assert 0 <= episode_seed(seed, index, episode) < 2**31
    np.random.default_rng(episode_seed(seed, index, episode))
