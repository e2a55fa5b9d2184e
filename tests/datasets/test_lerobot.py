from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.datasets.recordings import brightness, episode, shared_film, write
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


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = write("lerobot", tmp_path / "mine", [episode(0), episode(1, 3)])
    dataset = open_dataset(str(path))
    assert dataset.format == "lerobot"
    one, made = dataset.episode(1), episode(1, 3)
    one.check()
    np.testing.assert_array_equal(one.observations, made.observations)
    np.testing.assert_array_equal(one.actions.reshape(-1, 1), made.actions)
    np.testing.assert_allclose(one.rewards, made.rewards)
    np.testing.assert_allclose(shades(one.frames["front"]), [brightness(1, t) for t in range(4)], atol=2)
    assert transitions_length(path) == 8


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
