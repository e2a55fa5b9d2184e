from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from vlmrl.datasets.base import open_dataset, transitions
from vlmrl.errors import UserError


def made(path: Path, *, following: bool, **changes: np.ndarray) -> str:
    """Seven steps: three that end in a terminal state, two that are cut off, two at which the file stops."""
    arrays = {
        "observations": np.arange(7, dtype=np.float32)[:, None],
        "actions": np.linspace(-1, 1, 7, dtype=np.float32)[:, None],
        "rewards": np.arange(7, dtype=np.float32) / 2,
        "terminals": np.array([0, 0, 1, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 1, 0, 0], bool),
    }
    if following:
        arrays["next_observations"] = arrays["observations"] + 10
    with h5py.File(path, "w") as file:
        for name, values in {**arrays, **changes}.items():
            file[name] = values
        file["infos/qpos"] = np.arange(7, dtype=np.float64)[:, None]
    return str(path)


def test_episodes_are_cut_where_the_file_says_so(tmp_path: Path) -> None:
    dataset = open_dataset(made(tmp_path / "a.hdf5", following=True))
    steps = transitions(dataset)
    assert dataset.format == "d4rl"
    assert steps.episode_ids.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert steps.terminations.tolist() == [False, False, True, False, False, False, False]
    assert steps.timeouts.tolist() == [False, False, False, False, True, False, True]
    assert steps.next_observations[:, 0].tolist() == [1, 2, 12, 4, 14, 6, 16]
    assert dataset.episode(1).infos["qpos"][:, 0].tolist() == [3, 4]


def test_without_next_observations_a_cut_off_episode_lacks_its_last_step(tmp_path: Path) -> None:
    steps = transitions(open_dataset(made(tmp_path / "a.hdf5", following=False)))
    assert steps.observations[:, 0].tolist() == [0, 1, 2, 3, 5]
    assert steps.next_observations[:, 0].tolist() == [1, 2, 2, 4, 6]
    assert steps.rewards.tolist() == [0, 0.5, 1, 1.5, 2.5]


def test_what_is_no_such_file_is_said_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match=r"has no observations, actions, rewards, terminals. It has: data"):
        open_dataset(str(tmp_path / "a.hdf5"))
    (tmp_path / "b.hdf5").write_text("no")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        open_dataset(str(tmp_path / "b.hdf5"))


def test_arrays_that_differ_in_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="differ in length"):
        open_dataset(made(tmp_path / "a.hdf5", following=False, rewards=np.zeros(6, np.float32)))
