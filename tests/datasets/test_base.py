from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from tests.datasets.recordings import episode, pictures, write
from vlmrl.datasets.base import CorruptEpisode, Frames, flatten, open_dataset, transitions
from vlmrl.errors import UserError


def test_transitions_are_the_steps_of_all_episodes_one_after_the_other(tmp_path: Path) -> None:
    write("minari", tmp_path / "two-v0", [episode(0, 3), episode(1, 2)])
    steps = transitions(open_dataset(str(tmp_path / "two-v0")))
    assert steps.observations.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert steps.next_observations.tolist() == [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2]]
    assert steps.rewards.tolist() == [0, 0.125, 0.25, 1, 1.125]
    assert steps.terminations.tolist() == [False, False, True, False, False]
    assert steps.timeouts.tolist() == [False, False, False, False, True]
    assert steps.episode_ids.tolist() == [0, 0, 0, 1, 1]
    assert steps.observations.dtype == steps.rewards.dtype == np.float32


def test_flattening_is_gymnasiums() -> None:
    space = gym.spaces.Dict(
        {
            "where": gym.spaces.Box(-1, 1, (2, 2), np.float64),
            "what": gym.spaces.Discrete(3, start=1),
            "which": gym.spaces.MultiDiscrete([2, 3]),
            "on": gym.spaces.MultiBinary(2),
        },
        seed=0,
    )
    samples = [space.sample() for _ in range(5)]
    columns = {name: np.stack([sample[name] for sample in samples]) for name in space.spaces}
    expected = np.stack([gym.spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(flatten(space, columns), expected.astype(np.float32))


def test_what_is_no_number_is_found_and_named() -> None:
    bad = episode(0)
    bad.actions[2] = np.nan
    with pytest.raises(CorruptEpisode, match="actions at step 2 are not finite"):
        bad.check()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"observations": np.zeros((5, 2), np.float32)}, "has 5 steps and 5 observations, not 6"),
        ({"actions": np.zeros((6, 1), np.float32)}, "has 5 steps and 6 actions, not 5"),
        ({"infos": {"state": {"x": np.zeros(3)}}}, r"has 5 steps and 3 infos.state.x"),
        ({"frames": {"front": Frames(4, lambda: iter(()))}}, "4 frames of camera front, not 6"),
        ({"truncations": np.array([0, 1, 0, 0, 1], bool)}, "ended at step 1, and goes on to step 4"),
    ],
)
def test_wrong_counts_are_named(changes: dict, text: str) -> None:
    with pytest.raises(CorruptEpisode, match=text):
        episode(0, **changes).check()


@pytest.mark.parametrize("there", [4, 7])
def test_pictures_are_counted_as_they_are_read(there: int) -> None:
    frames = Frames(5, lambda: iter(pictures(0, there - 1)))
    with pytest.raises(CorruptEpisode, match="4 frames of 5" if there == 4 else "more than 5 frames of 5"):
        list(frames)


def test_pictures_come_in_chunks() -> None:
    assert [len(chunk) for chunk in Frames(5, lambda: iter(pictures(0, 4))).chunks(2)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("nothing/there-v0", "is no dataset"),
        ("zarr:x", "Unknown dataset format 'zarr'"),
        ("minari:nothing-v3", "There is no Minari dataset 'nothing-v3'"),
        ("clips:nowhere", "there is no such folder"),
    ],
)
def test_what_is_no_dataset_is_said_so(spec: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match=text):
        open_dataset(spec)


def test_transitions_of_a_corrupt_dataset_name_the_episode(tmp_path: Path) -> None:
    bad = episode(1)
    bad.observations[3] = np.inf
    write("minari", tmp_path / "bad-v0", [episode(0), bad])
    with pytest.raises(UserError, match=r"episode 1 observations at step 3 are not finite.*on_error=skip"):
        transitions(open_dataset(str(tmp_path / "bad-v0")))
