"""Writes LeRobot datasets (v3): one table, and one film a camera, that all episodes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets import video
from vlmrl.datasets.base import Episode, flatten
from vlmrl.datasets.folder import NewFolder
from vlmrl.datasets.lerobot import TERMINATED, TRUNCATED
from vlmrl.datasets.spaces import described
from vlmrl.datasets.writers import Recording
from vlmrl.errors import UserError, require

FPS = 30.0  # where nobody knows
FILES = 1000  # files a folder, as LeRobot has it
CODECS = {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "has_audio": False}


class LeRobotWriter:
    """Writes a LeRobot dataset; see `Writer`. Films are compressed with a little loss.

    Each episode has a film and a table of its own, which the format allows, so that memory stays flat. An episode of T
    steps becomes T + 1 rows; the last one repeats the last action, as nothing is done there any more.

    Args:
        out: The folder.

    Raises:
        UserError: It is there already.
    """

    def __init__(self, out: str):
        require("pyarrow", extra="robotics")
        require("av", extra="robotics")
        self._folder = NewFolder(out)
        self.path = self._folder.path

    def start(self, recording: Recording) -> None:
        """See `Writer`."""
        for name, space in (("observations", recording.observation_space), ("actions", recording.action_space)):
            if space is None:
                raise UserError(f"A LeRobot dataset needs {name}, and there are none.")
        if not isinstance(recording.action_space, gym.spaces.Box | gym.spaces.Discrete):
            raise UserError(
                f"A LeRobot dataset holds actions of a Box or Discrete space, not {recording.action_space}."
            )
        video.check_size(recording.frame_size)
        self._recording = recording
        self._fps = recording.fps or FPS
        self._draft = self._folder.start()
        self._entries: list[dict[str, Any]] = []
        self._features: dict[str, Any] = {}
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, _Stats] = {}
        self._index = 0

    def add(self, episode: Episode) -> None:
        """See `Writer`."""
        number, rows = len(self._entries), episode.length + 1
        chunk, file = divmod(number, FILES)
        place = f"chunk-{chunk:03d}/file-{file:03d}"
        films: dict[str, Any] = {}
        features: dict[str, Any] = {}
        text = episode.text or self._recording.text
        task = self._tasks.get(text, len(self._tasks))
        columns = self._columns(episode, number, task)
        with self._folder.whole_or_not_at_all() as begun:
            for camera, frames in episode.frames.items():
                name = f"observation.images.{camera}"
                sizes: list[tuple[int, ...]] = []
                video.write_video(begun(f"videos/{name}/{place}.mp4"), _noting(frames, sizes), self._fps)
                features[name] = _film_feature(sizes[0], self._fps)
                films |= {f"videos/{name}/chunk_index": chunk, f"videos/{name}/file_index": file}
                films |= {f"videos/{name}/from_timestamp": 0.0, f"videos/{name}/to_timestamp": rows / self._fps}
            _write_table(begun(f"data/{place}.parquet"), columns)
        # From here on it is there, and counts.
        self._tasks.setdefault(text, task)
        for name, values in columns.items():
            self._stats.setdefault(name, _Stats()).add(values)
            features[name] = {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        self._features = features | self._features
        self._entries.append(
            {
                "episode_index": number,
                "tasks": [text],
                "length": rows,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self._index,
                "dataset_to_index": self._index + rows,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **films,
            }
        )
        self._index += rows

    def finish(self) -> None:
        """See `Writer`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        meta = self._draft / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._entries), meta / "episodes" / "chunk-000" / "file-000.parquet")
        _write_tasks(meta / "tasks.parquet", self._tasks)
        (meta / "stats.json").write_text(
            json.dumps({name: stats.plain() for name, stats in self._stats.items()}, indent=4) + "\n"
        )
        info = {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self._entries),
            "total_frames": self._index,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self._fps) if self._fps == int(self._fps) else self._fps,
            "splits": {"train": f"0:{len(self._entries)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": self._features,
            "vlmrl": {
                **self._recording.metadata,
                **described(self._recording.observation_space, self._recording.action_space),
            },
        }
        (meta / "info.json").write_text(json.dumps(info, indent=4) + "\n")
        self._folder.finish()

    def _columns(self, episode: Episode, number: int, task: int) -> dict[str, np.ndarray]:
        """Return the columns of an episode's table, (T + 1, ...) each."""
        rows = episode.length + 1
        steps = np.arange(rows)
        space = self._recording.observation_space
        assert space is not None
        actions = np.asarray(episode.actions).reshape(episode.length, -1)
        columns = {
            "observation.state": flatten(space, episode.observations),
            "action": np.concatenate([actions, actions[-1:]]),
            "next.done": np.append((episode.terminations | episode.truncations), True),
            TERMINATED: np.append(episode.terminations, episode.terminations[-1]),
            TRUNCATED: np.append(episode.truncations, episode.truncations[-1]),
        }
        if actions.dtype == np.float64:
            columns["action"] = columns["action"].astype(np.float32)
        if episode.rewards is not None:
            columns["next.reward"] = np.append(episode.rewards, episode.rewards[-1]).astype(np.float32)
        if "is_success" in episode.infos:
            success = np.asarray(episode.infos["is_success"], dtype=bool)
            columns["next.success"] = np.append(success, success[-1])
        return columns | {
            "timestamp": (steps / self._fps).astype(np.float32),
            "frame_index": steps.astype(np.int64),
            "episode_index": np.full(rows, number, dtype=np.int64),
            "index": (self._index + steps).astype(np.int64),
            "task_index": np.full(rows, task, dtype=np.int64),
        }


class _Stats:
    """Least, greatest, mean and standard deviation of a column, gathered episode by episode."""

    def __init__(self) -> None:
        self._count, self._low, self._high = 0, np.inf, -np.inf
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: np.ndarray) -> None:
        rows = values.astype(np.float64).reshape(len(values), -1)
        self._count += len(rows)
        self._low, self._high = np.minimum(self._low, rows.min(axis=0)), np.maximum(self._high, rows.max(axis=0))
        self._sum, self._squares = self._sum + rows.sum(axis=0), self._squares + (rows**2).sum(axis=0)

    def plain(self) -> dict[str, list[float]]:
        mean = self._sum / self._count
        spread = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        return {
            "min": np.atleast_1d(self._low).tolist(),
            "max": np.atleast_1d(self._high).tolist(),
            "mean": mean.tolist(),
            "std": spread.tolist(),
            "count": [self._count],
        }


def _noting(frames: Any, sizes: list[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Pass frames on, and note the size of the first."""
    for frame in frames:
        if not sizes:
            sizes.append(frame.shape)
        yield frame


def _film_feature(shape: tuple[int, ...], fps: float) -> dict[str, Any]:
    height, width, channels = shape
    info = {"video.height": height, "video.width": width, "video.channels": channels, "video.fps": fps, **CODECS}
    return {"dtype": "video", "shape": list(shape), "names": ["height", "width", "channels"], "info": info}


def _write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for name, values in columns.items():
        if values.ndim == 1 or values.shape[1:] == (1,):  # LeRobot keeps what has one number as a number
            arrays[name] = pa.array(values.reshape(-1))
        else:
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    pq.write_table(pa.table(arrays), path)


def _write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """Write sentences and their numbers as pandas writes a table whose index are the sentences."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = "__index_level_0__"
    described = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
    }
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), index: pa.array(list(tasks))})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path)
