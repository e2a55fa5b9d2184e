from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest

from tests.datasets.recordings import ACTIONS, OBSERVATIONS, episode, pictures, write
from vlmrl.datasets.base import open_dataset
from vlmrl.datasets.minari import MinariData
from vlmrl.datasets.minari_writer import MinariTarget, copy_with_rewards
from vlmrl.errors import UserError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_minari_reads_what_was_written() -> None:
    write("minari", "toys/bright-v0", [episode(0), episode(1, 3)], env_spec=gym.spec("CartPole-v1"))
    dataset = minari.load_dataset("toys/bright-v0")
    assert list(minari.list_local_datasets()) == ["toys/bright-v0"]
    assert (dataset.total_episodes, dataset.total_steps) == (2, 8)
    assert dataset.recover_environment().spec.id == "CartPole-v1"
    read, made = dataset[1], episode(1, 3)
    np.testing.assert_array_equal(read.observations, made.observations)
    np.testing.assert_array_equal(read.actions, made.actions)
    np.testing.assert_array_equal(read.rewards, made.rewards)
    np.testing.assert_array_equal(read.infos["state"]["angle"], made.infos["state"]["angle"])
    np.testing.assert_array_equal(read.infos["frames"]["front"], np.stack(pictures(1, 3)))  # without loss
    assert list(dataset.storage.get_episode_metadata([1]))[0]["seed"] == 101


def test_an_episode_comes_back_as_it_was() -> None:
    write("minari", "bright-v0", [episode(0), episode(1, 3, cameras=("front", "side"))])
    dataset = open_dataset("bright-v0")
    assert (dataset.observation_space, dataset.action_space) == (OBSERVATIONS, ACTIONS)
    read = dataset.episode(1)
    read.check()
    assert (read.length, read.text, read.fps) == (3, "be bright", 10.0)
    assert read.terminations.tolist() == [False] * 3
    assert read.truncations.tolist() == [False, False, True]
    assert sorted(read.frames) == ["front", "side"]
    np.testing.assert_array_equal(np.asarray(read.frames["side"]), np.stack(pictures(1, 3)))
    assert "frames" not in read.infos  # they are read when somebody looks


def test_pictures_that_minari_keeps_as_jpeg_are_found_in_the_observations() -> None:
    space = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, (40, 40, 3), np.uint8), "x": OBSERVATIONS})
    shades = np.stack([np.full((40, 40, 3), 40 * t, dtype=np.uint8) for t in range(4)])
    buffer = minari.data_collector.EpisodeBuffer(
        observations={"pixels": list(shades), "x": np.zeros((4, 2), np.float32)},
        actions=np.zeros((3, 1), np.float32),
        rewards=[0.0] * 3,
        terminations=[False] * 3,
        truncations=[False, False, True],
        infos={},
    )
    minari.create_dataset_from_buffers("pixels-v0", [buffer], observation_space=space, action_space=ACTIONS)
    read = open_dataset("pixels-v0").episode(0)
    assert list(read.frames) == ["pixels"]
    assert np.abs(np.asarray(read.frames["pixels"]).astype(int) - shades).max() <= 3  # JPEG's loss
    np.testing.assert_array_equal(read.observations["pixels"], np.asarray(read.frames["pixels"]))


def test_new_rewards_change_nothing_else(tmp_path: Path) -> None:
    write("minari", "bright-v0", [episode(0), episode(1, 3), episode(2)])
    source = open_dataset("bright-v0")
    assert isinstance(source, MinariData)
    rewards = {0: np.full(5, 0.5, np.float32), 2: np.arange(5, dtype=np.float32)}
    before = (source.folder / "main_data.hdf5").read_bytes()
    copy_with_rewards(source, MinariTarget("relabelled-v0"), rewards, {}, {"relabel": "so"})
    assert (source.folder / "main_data.hdf5").read_bytes() == before  # the old one is never touched
    new = minari.load_dataset("relabelled-v0")
    assert (new.total_episodes, new.total_steps, new.storage.metadata["vlmrl"]) == (2, 10, {"relabel": "so"})
    folder = MinariTarget("other-v0").folder.parent
    with (
        h5py.File(source.folder / "main_data.hdf5") as old,
        h5py.File(folder / "relabelled-v0/data/main_data.hdf5") as copy,
    ):
        for number, position in enumerate((0, 2)):
            theirs, ours = old[f"episode_{position}"], copy[f"episode_{number}"]
            names: list[str] = []
            theirs.visititems(lambda name, node, names=names: names.append(name) if hasattr(node, "dtype") else None)
            for name in names:
                if name != "rewards":
                    assert theirs[name].dtype == ours[name].dtype
                    np.testing.assert_array_equal(theirs[name][()], ours[name][()])
            np.testing.assert_array_equal(ours["rewards"][()], rewards[position])
            np.testing.assert_array_equal(ours["infos/original_reward"][()], theirs["rewards"][()])
            assert ours.attrs["seed"] == theirs.attrs["seed"]
            assert ours.attrs["id"] == number


def test_relabelling_twice_keeps_what_was_recorded_first() -> None:
    write("minari", "a-v0", [episode(0)])
    for old, new in (("a-v0", "b-v0"), ("b-v0", "c-v0")):
        copy_with_rewards(open_dataset(old), MinariTarget(new), {0: np.zeros(5, np.float32)}, {}, {})  # type: ignore[arg-type]
    np.testing.assert_array_equal(minari.load_dataset("c-v0")[0].infos["original_reward"], episode(0).rewards)


def test_the_same_data_are_the_same_bytes() -> None:
    files = []
    for name in ("a-v0", "b-v0"):
        path = write("minari", name, [episode(0), episode(1)])
        files.append((path / "data" / "main_data.hdf5").read_bytes())
    assert files[0] == files[1]


def test_a_dataset_is_never_written_over() -> None:
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match="never written over"):
        MinariTarget("a-v0")


@pytest.mark.parametrize("name", ["noversion", "./noversion", "a b-v0"])
def test_a_name_without_a_version_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="ends with its version"):
        MinariTarget(name)


def test_an_unfinished_dataset_is_not_there() -> None:
    from vlmrl.datasets.minari_writer import MinariWriter
    from vlmrl.datasets.writers import Recording

    writer = MinariWriter("half-v0")
    writer.start(Recording(OBSERVATIONS, ACTIONS))
    writer.add(episode(0))
    assert minari.list_local_datasets() == {}
    again = MinariWriter("half-v0")
    again.start(Recording(OBSERVATIONS, ACTIONS))  # what is left of the first is no hindrance
    again.add(episode(0))
    again.finish()
    assert minari.load_dataset("half-v0").total_episodes == 1


def test_what_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    path = write("minari", tmp_path / "a-v0", [episode(0)])
    metadata = json.loads((path / "data" / "metadata.json").read_text())
    (path / "data" / "metadata.json").write_text(json.dumps(metadata | {"minari_version": "9.9"}))
    with pytest.raises(UserError, match="no Minari dataset that can be read"):
        open_dataset(str(path))


def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = write("minari", tmp_path / f"n{count}-v0", [episode(0, 20)] * count)
        dataset = open_dataset(str(path))
        for _ in dataset.episode(0).frames["front"]:  # what is loaded once does not count
            pass
        tracemalloc.start()
        for one in dataset.episodes():
            for _ in one.frames["front"]:
                pass
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    assert peak(12) < 1.3 * peak(3) + 50_000  # an episode's pictures alone are 64 kB
