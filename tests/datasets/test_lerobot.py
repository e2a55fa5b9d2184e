from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.datasets.recordings import OBSERVATIONS, brightness, episode, shared_film, write
from vlmrl.datasets.base import CorruptEpisode, open_dataset, transitions
from vlmrl.errors import UserError


def shades(frames: object) -> list[int]:
    return [round(float(np.asarray(frame).mean())) for frame in frames]  # type: ignore[attr-defined]


def test_episodes_in_one_film_are_cut_by_its_clock(tmp_path: Path) -> None:
    dataset = open_dataset(str(shared_film(tmp_path / "shared", (4, 6, 3))))
    assert len(dataset) == 3
    for number, length in enumerate((4, 6, 3)):
        one = dataset.episode(number)
        one.check()
        assert (one.length, one.text, one.fps) == (length, "be bright", 10.0)
        assert one.observations.tolist() == [[number, t] for t in range(length + 1)]
        seen = shades(one.frames["top"])
        np.testing.assert_allclose(seen, [brightness(number, t) for t in range(length + 1)], atol=2)  # H.264's loss


def flag(length: int, value: bool) -> np.ndarray:
    """A flag of the last of so many steps."""
    return np.arange(length) == length - 1 if value else np.zeros(length, bool)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    made = []
    for number, flags in enumerate(product((True, False), repeat=3)):
        terminated, cut, won = (flag(3, value) for value in flags)
        made.append(episode(number, 3, terminations=terminated, truncations=cut, infos={"is_success": won}))
    actions = gym.spaces.Box(np.float32(-2), np.float32(3), (1,))  # wider than what was done
    path = write("lerobot", tmp_path / "mine", made, action_space=actions)
    dataset = open_dataset(str(path))
    assert dataset.format == "lerobot"
    assert (dataset.observation_space, dataset.action_space) == (OBSERVATIONS, actions)
    for one, other in zip(dataset.episodes(), made, strict=True):
        one.check()
        assert one.observations[0] in OBSERVATIONS and one.actions[0] in actions
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.infos["next.success"].tolist() == other.infos["is_success"].tolist()
    seen = shades(dataset.episode(1).frames["front"])
    np.testing.assert_allclose(seen, [brightness(1, t) for t in range(4)], atol=2)
    assert transitions_length(path) == 24


@pytest.mark.parametrize("kind", ["clips", "lerobot"])
def test_choices_stay_choices_though_not_all_were_taken(tmp_path: Path, kind: str) -> None:
    seen, done = gym.spaces.Discrete(5, start=2), gym.spaces.Discrete(4, start=1)
    made = episode(0, observations=np.array([2, 3, 4, 3, 2, 3]), actions=np.array([1, 2, 2, 1, 3]))
    dataset = open_dataset(str(write(kind, tmp_path / "mine", [made], observation_space=seen, action_space=done)))
    assert (dataset.observation_space, dataset.action_space) == (seen, done)
    one = dataset.episode(0)
    assert one.observations.tolist() == [2, 3, 4, 3, 2, 3] and one.actions.tolist() == [1, 2, 2, 1, 3]
    assert transitions(dataset).actions.dtype == np.int64


@pytest.mark.parametrize("kind", ["clips", "lerobot"])
def test_boxes_of_more_than_one_axis_keep_shape_and_type(tmp_path: Path, kind: str) -> None:
    seen = gym.spaces.Box(0, 255, (2, 3), np.uint8)
    done = gym.spaces.Box(np.array([[-1, -np.inf]] * 2), np.array([[1, np.inf]] * 2), dtype=np.float64)
    observations = np.arange(36, dtype=np.uint8).reshape(6, 2, 3)
    made = episode(0, observations=observations, actions=np.arange(20.0).reshape(5, 2, 2) / 8)
    dataset = open_dataset(str(write(kind, tmp_path / "mine", [made], observation_space=seen, action_space=done)))
    assert (dataset.observation_space, dataset.action_space) == (seen, done)
    one = dataset.episode(0)
    assert (one.observations.dtype, one.actions.dtype) == (np.uint8, np.float64)
    np.testing.assert_array_equal(one.observations, made.observations)
    np.testing.assert_array_equal(one.actions, made.actions)
    assert "Infinity" not in "".join(path.read_text() for path in (tmp_path / "mine").rglob("*.json"))


def test_without_a_word_on_the_end_success_decides(tmp_path: Path) -> None:
    """So the data of others are read, and those that this suite wrote before it said more."""
    made = [episode(number, infos={"is_success": flag(5, number == 0)}) for number in (1, 0)]
    root = write("lerobot", tmp_path / "mine", made)
    info = json.loads((root / "meta/info.json").read_text())
    for name in ("next.terminated", "next.truncated"):
        del info["features"][name]
    del info["vlmrl"]
    (root / "meta/info.json").write_text(json.dumps(info))
    dataset = open_dataset(str(root))
    ends = [(one.terminations[-1], one.truncations[-1]) for one in dataset.episodes()]
    assert ends == [(False, True), (True, False)]
    assert dataset.action_space == gym.spaces.Box(-1, 1, (1,), np.float32)


def test_an_end_that_others_say_in_the_last_row_is_heard(tmp_path: Path) -> None:
    root = write("lerobot", tmp_path / "mine", [episode(0)])
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    place = table.column_names.index("next.terminated")
    pq.write_table(table.set_column(place, "next.terminated", [[False] * 5 + [True]]), path)
    one = open_dataset(str(root)).episode(0)
    assert one.terminations.tolist() == [False] * 4 + [True] and not one.truncations.any()


def transitions_length(path: Path) -> int:
    dataset = open_dataset(str(path))
    return sum(one.length for one in dataset.episodes())


def test_the_files_are_laid_out_as_the_format_wants(tmp_path: Path) -> None:
    root = write("lerobot", tmp_path / "mine", [episode(0), episode(1, 3)])
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 10, 1)
    assert info["features"]["observation.images.front"]["shape"] == [32, 32, 3]
    (second,) = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").slice(1).to_pylist()
    assert (second["dataset_from_index"], second["dataset_to_index"], second["length"]) == (6, 10, 4)
    assert second["tasks"] == ["be bright"]
    rows = pq.read_table(root / info["data_path"].format(chunk_index=0, file_index=1))
    assert rows["index"].to_pylist() == [6, 7, 8, 9]
    np.testing.assert_allclose(rows["timestamp"].to_numpy(), [0, 0.1, 0.2, 0.3], rtol=1e-6)
    stats = json.loads((root / "meta/stats.json").read_text())
    assert stats["observation.state"]["max"] == [1.0, 5.0]
    assert (
        root / info["video_path"].format(video_key="observation.images.front", chunk_index=0, file_index=1)
    ).is_file()


def test_steps_of_a_dataset_without_rewards_cannot_be_learned_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no rewards.*vlmrl.relabel"):
        transitions(open_dataset(str(shared_film(tmp_path / "shared"))))


def test_a_missing_film_is_named(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "shared")
    next(root.glob("videos/*/*/*.mp4")).unlink()
    with pytest.raises(CorruptEpisode, match=r"film that cannot be read.*file-000.mp4"):
        list(open_dataset(str(root)).episode(0).frames["top"])


def test_a_film_that_is_cut_short_is_named(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "shared")
    path = next(root.glob("meta/episodes/*/*.parquet"))
    table = pq.read_table(path).to_pylist()
    table[2]["videos/observation.images.top/to_timestamp"] -= 0.2
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(table), path)
    dataset = open_dataset(str(root))
    list(dataset.episode(1).frames["top"])
    with pytest.raises(CorruptEpisode, match="2 frames of 4"):
        list(dataset.episode(2).frames["top"])


def test_a_table_that_is_too_short_is_named(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "shared")
    path = next(root.glob("data/*/*.parquet"))
    pq.write_table(pq.read_table(path).slice(0, 14), path)
    with pytest.raises(CorruptEpisode, match="has 2 rows in its table, and meta/episodes says 4"):
        open_dataset(str(root)).episode(2)


@pytest.mark.parametrize("name", ["fps", "features", "data_path", "video_path"])
def test_what_the_description_lacks_is_named(tmp_path: Path, name: str) -> None:
    root = shared_film(tmp_path / "shared")
    info = json.loads((root / "meta/info.json").read_text())
    del info[name]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=f"meta/info.json has no {name}"):
        open_dataset(str(root))


def test_frames_a_second_that_are_no_number_are_refused(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "shared")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": None}))
    with pytest.raises(UserError, match="fps None"):
        open_dataset(str(root))


def test_an_older_version_is_refused(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "shared")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(UserError, match=r"version v2.1.*reads v3.0"):
        open_dataset(str(root))


def test_the_same_data_are_the_same_bytes(tmp_path: Path) -> None:
    # Each in a process of its own, like a command that is given twice; what else ran in this one is not asked here.
    program = (
        "import sys; from tests.datasets.recordings import episode, write; "
        "write('lerobot', sys.argv[1], [episode(0), episode(1)])"
    )
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        subprocess.run([sys.executable, "-c", program, str(out)], check=True, cwd=Path(__file__).parents[2])
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [path for path in files if (first / path).read_bytes() != (second / path).read_bytes()] == []
