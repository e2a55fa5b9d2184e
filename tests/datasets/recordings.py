"""Small recordings with known contents, in every form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets.base import STATE, Episode, Frames
from vlmrl.datasets.writers import WRITERS, Recording

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = gym.spaces.Box(-1, 1, (1,), np.float32)
SIDE = 32  # pixels


def brightness(number: int, t: int) -> int:
    """Every pixel of the picture at step t of an episode."""
    return 20 + 30 * number + 4 * t


def pictures(number: int, length: int) -> list[np.ndarray]:
    return [np.full((SIDE, SIDE, 3), brightness(number, t), dtype=np.uint8) for t in range(length + 1)]


def episode(number: int, length: int = 5, cameras: tuple[str, ...] = ("front",), **changes: Any) -> Episode:
    """An episode that terminates if its number is even, and is cut off else."""
    ends = np.arange(length) == length - 1
    images = pictures(number, length)
    values: dict[str, Any] = {
        "id": number,
        "length": length,
        "observations": np.array([[number, t] for t in range(length + 1)], dtype=np.float32),
        "actions": np.linspace(-1, 1, length, dtype=np.float32)[:, None],
        "rewards": np.arange(length) / 8 + number,
        "terminations": ends & (number % 2 == 0),
        "truncations": ends & (number % 2 == 1),
        "infos": {STATE: {"angle": np.arange(length + 1, dtype=np.float32) / 10}, "policy": np.zeros(length, np.int64)},
        "frames": {camera: Frames(length + 1, partial(iter, images)) for camera in cameras},
        "metadata": {"seed": 100 + number},
    }
    return Episode(**{**values, **changes})


def write(kind: str, out: Path | str, episodes: list[Episode], **changes: Any) -> Path:
    """Write episodes in a form of `WRITERS`."""
    values: dict[str, Any] = {
        "observation_space": OBSERVATIONS,
        "action_space": ACTIONS,
        "fps": 10.0,
        "text": "be bright",
    }
    writer = WRITERS.load(kind)(str(out))
    writer.start(Recording(**{**values, **changes}))
    for one in episodes:
        writer.add(one)
    writer.finish()
    return writer.path


def shared_film(out: Path, lengths: tuple[int, ...] = (4, 6, 3), text: str = "be bright") -> Path:
    """Write a LeRobot dataset by hand: all episodes in one table and one film, as LeRobot itself writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vlmrl.datasets.video import write_video

    fps, camera = 10, "observation.images.top"
    rows = [(number, t) for number, length in enumerate(lengths) for t in range(length + 1)]
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (out / "data" / "chunk-000").mkdir(parents=True)
    film = out / "videos" / camera / "chunk-000" / "file-000.mp4"
    film.parent.mkdir(parents=True)
    write_video(film, (np.full((SIDE, SIDE, 3), brightness(*row), dtype=np.uint8) for row in rows), fps)
    values = pa.array(np.array([value for number, t in rows for value in (number, t)], dtype=np.float32))
    table = {
        "observation.state": pa.FixedSizeListArray.from_arrays(values, 2),
        "action": pa.array(np.array([t / 10 for _, t in rows], dtype=np.float32)),
        "timestamp": pa.array(np.array([t / fps for _, t in rows], dtype=np.float32)),
        "frame_index": pa.array([t for _, t in rows]),
        "episode_index": pa.array([number for number, _ in rows]),
        "index": pa.array(range(len(rows))),
        "task_index": pa.array([0] * len(rows)),
    }
    pq.write_table(pa.table(table), out / "data" / "chunk-000" / "file-000.parquet", row_group_size=4)
    entries, first = [], 0
    for number, length in enumerate(lengths):
        last = first + length + 1
        entries.append(
            {
                "episode_index": number,
                "tasks": [text],
                "length": length + 1,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": first,
                "dataset_to_index": last,
                f"videos/{camera}/chunk_index": 0,
                f"videos/{camera}/file_index": 0,
                f"videos/{camera}/from_timestamp": first / fps,
                f"videos/{camera}/to_timestamp": last / fps,
                "stats/action/mean": [0.0],
            }
        )
        first = last
    pq.write_table(pa.Table.from_pylist(entries), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": [text]}), out / "meta" / "tasks.parquet")
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        "action": {"dtype": "float32", "shape": [1], "names": None},
        camera: {"dtype": "video", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channels"]},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "episode_index", "index")},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    info = {
        "codebase_version": "v3.0",
        "fps": fps,
        "total_episodes": len(lengths),
        "total_frames": len(rows),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out
