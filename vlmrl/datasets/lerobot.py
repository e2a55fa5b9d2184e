"""LeRobot datasets (v3), read with PyArrow and PyAV alone.

Format: "LeRobotDataset v3.0" in LeRobot's documentation. Many episodes share a table and a film; `meta/episodes` says
which rows and which seconds of it are an episode's.

An episode of n rows is one of n - 1 steps here: row t holds what was seen at t and the action that was taken then, and
nothing was recorded of where the last action led. `next.reward` of row t is the reward for arriving at t + 1. How an
episode ended is in `next.terminated` and `next.truncated`, which this suite writes. The format itself has no word for
it: without them an episode that ends with `next.success` counts as terminated, any other as truncated.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets import video
from vlmrl.datasets.base import CorruptEpisode, Episode, Frames
from vlmrl.datasets.spaces import in_form, recorded
from vlmrl.errors import UserError, require

VERSION = "v3."
IMAGES = ("image", "video")  # types of features that are pictures
STATE, ACTION = "observation.state", "action"
TERMINATED, TRUNCATED = "next.terminated", "next.truncated"


class LeRobotDataset:
    """A LeRobot dataset; `open` makes one.

    Args:
        spec: Its root, the folder with `meta/info.json`.

    Raises:
        UserError: It cannot be read, or has another version.
    """

    format = "lerobot"

    def __init__(self, spec: str):
        require("pyarrow", extra="robotics")
        self.spec = spec
        self.path = self.root = Path(spec)
        try:
            self.metadata: dict[str, Any] = json.loads((self.root / "meta" / "info.json").read_text())
            version = str(self.metadata["codebase_version"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"dataset={spec}: meta/info.json cannot be read ({type(error).__name__}: {error})."
            ) from error
        if not version.startswith(VERSION):
            raise UserError(
                f"dataset={spec} is a LeRobot dataset of version {version}, and this reads v3.0. LeRobot converts it: "
                "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=<...>"
            )
        self.features, self.fps = self._read_info()
        self.cameras = {
            name.removeprefix("observation.images.").removeprefix("observation."): name
            for name, feature in self.features.items()
            if feature["dtype"] in IMAGES
        }
        self._columns = [
            name
            for name, feature in self.features.items()
            if feature["dtype"] not in (*IMAGES, "string") and name not in ("timestamp", "frame_index", "index")
        ]
        self._episodes = self._read_episodes()
        self._tasks = self._read_tasks()
        own = self.metadata.get("vlmrl", {})
        self._own_spaces = {STATE: recorded(own, "observations"), ACTION: recorded(own, "actions")}
        self.observation_space = self._own_spaces[STATE] or self._box(STATE)
        self.action_space = self._own_spaces[ACTION] or self._box(ACTION)

    @classmethod
    def recognises(cls, spec: str) -> bool:
        """See `DatasetFormat`."""
        return (Path(spec) / "meta" / "info.json").is_file()

    @classmethod
    def open(cls, spec: str) -> LeRobotDataset:
        """See `DatasetFormat`."""
        return cls(spec)

    def __len__(self) -> int:
        return len(self._episodes)

    def first_index(self, i: int) -> int:
        """Return the number of episode `i`'s first row among all rows of the dataset."""
        return int(self._episodes[i]["dataset_from_index"])

    def rows(self, i: int) -> int:
        """Return the number of rows of episode `i`, as `meta/episodes` has it."""
        return int(self._episodes[i]["length"])

    def number(self, i: int) -> int:
        """Return the `episode_index` of episode `i`."""
        return int(self._episodes[i]["episode_index"])

    def episode(self, i: int) -> Episode:
        """See `Dataset`."""
        entry, rows = self._episodes[i], self.rows(i)
        table = self._read_rows(entry)
        if len(table) != rows:
            raise CorruptEpisode(f"has {len(table)} rows in its table, and meta/episodes says {rows}")
        columns = {name: _array(table.column(name)) for name in self._columns if name in table.column_names}
        if rows < 2:
            raise CorruptEpisode(f"has {rows} rows, and a step takes two")
        length = rows - 1
        terminations, truncations = _ends(columns, length)
        rewards = columns.get("next.reward")
        known = {STATE, ACTION, TERMINATED, TRUNCATED, "next.reward", "next.done", "episode_index", "task_index"}
        text = entry.get("tasks") or []
        if not text and "task_index" in columns:
            text = [self._tasks.get(int(columns["task_index"][0]), "")]
        return Episode(
            id=self.number(i),
            length=length,
            observations=self._in_own_form(STATE, columns.get(STATE)),
            actions=self._in_own_form(ACTION, columns[ACTION][:length]) if ACTION in columns else None,
            rewards=rewards[:length].astype(np.float64) if rewards is not None else None,
            terminations=terminations,
            truncations=truncations,
            infos={
                name: values[:length] if name.startswith("next.") else values
                for name, values in columns.items()
                if name not in known
            },
            frames={camera: self._frames(entry, name, rows) for camera, name in self.cameras.items()},
            text=str(text[0]) if text else "",
            fps=self.fps,
            name=f"episode {self.number(i)}",
        )

    def episodes(self) -> Iterator[Episode]:
        """See `Dataset`."""
        return map(self.episode, range(len(self)))

    def recover_environment(self) -> gym.Env:
        """Refuse: the format does not say what was recorded."""
        raise UserError(
            f"The dataset '{self.spec}' does not say in which environment it was recorded. Name it: env=..."
        )

    def _in_own_form(self, name: str, values: np.ndarray | None) -> np.ndarray | None:
        """Return what was observed or done as its space has it, where the dataset keeps the space."""
        space = self._own_spaces[name]
        if space is None or values is None:
            return values
        if name == STATE and isinstance(space, gym.spaces.Discrete):  # one-hot in the table, see `flatten`
            values = values.reshape(len(values), -1).argmax(axis=1) + space.start
        formed = in_form(space, values)
        if formed is None:
            raise CorruptEpisode(f"has {name} of shape {values.shape[1:]}, and meta/info.json says {space}")
        return formed

    def _frames(self, entry: dict[str, Any], name: str, rows: int) -> Frames:
        if self.features[name]["dtype"] == "image":
            return Frames(rows, lambda: self._images(entry, name))
        film = self.root / self.metadata["video_path"].format(
            video_key=name,
            chunk_index=entry[f"videos/{name}/chunk_index"],
            file_index=entry[f"videos/{name}/file_index"],
        )
        start, end = entry[f"videos/{name}/from_timestamp"], entry[f"videos/{name}/to_timestamp"]
        return Frames(rows, lambda: video.read_video(film, start, end))

    def _images(self, entry: dict[str, Any], name: str) -> Iterator[np.ndarray]:
        """Yield pictures that lie in the table itself, as PNG or JPEG, or in files that it names."""
        from PIL import Image

        for value in self._read_rows(entry, [name]).column(name):
            picture = value.as_py()
            try:
                source = io.BytesIO(picture["bytes"]) if picture.get("bytes") else self.root / picture["path"]
                yield np.asarray(Image.open(source).convert("RGB"))
            except (OSError, TypeError, KeyError) as error:
                raise CorruptEpisode(f"has a picture of {name} that cannot be read ({error})") from error

    def _read_rows(self, entry: dict[str, Any], columns: list[str] | None = None) -> Any:
        """Read an episode's rows of its table; parts of the file that hold none of them are passed over."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.root / self.metadata["data_path"].format(
            chunk_index=entry["data/chunk_index"], file_index=entry["data/file_index"]
        )
        if not path.is_file():
            raise CorruptEpisode(f"has no table ('{path}' is missing)")
        first, last = entry["dataset_from_index"], entry["dataset_to_index"]
        wanted = [("index", ">=", first), ("index", "<", last), ("episode_index", "==", entry["episode_index"])]
        try:
            return pq.read_table(path, columns=columns or self._columns, filters=wanted)
        except (pa.ArrowException, OSError) as error:
            raise CorruptEpisode(f"has a table that cannot be read ('{path}': {error})") from error

    def _read_info(self) -> tuple[dict[str, dict[str, Any]], float]:
        """Return the features and the frames a second of `meta/info.json`, when it has all that is needed.

        Raises:
            UserError: It has not.
        """
        features, fps = self.metadata.get("features"), self.metadata.get("fps")
        wrong = [name for name in ("features", "fps", "data_path") if name not in self.metadata]
        if isinstance(features, dict):
            bad = (name for name, one in features.items() if not {"dtype", "shape"} <= set(one))
            wrong += [f"dtype and shape of {name}" for name in bad]
            if any(one.get("dtype") == "video" for one in features.values()) and "video_path" not in self.metadata:
                wrong.append("video_path")
        if wrong:
            raise UserError(
                f"dataset={self.spec}: meta/info.json has no {', '.join(wrong)}. LeRobot v3 writes these; take the "
                "file from where the dataset came from, or write them in."
            )
        if not isinstance(features, dict) or not isinstance(fps, int | float) or fps <= 0:
            raise UserError(
                f"dataset={self.spec}: meta/info.json says fps {fps!r} and features {type(features).__name__}; these "
                "are a number above 0 and a table of names."
            )
        return features, float(fps)

    def _read_episodes(self) -> list[dict[str, Any]]:
        """Return what `meta/episodes` says of each episode, without its statistics."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not paths:
            raise UserError(
                f"dataset={self.spec}: meta/episodes holds no table, so nobody can tell its episodes apart."
            )
        entries: list[dict[str, Any]] = []
        for path in paths:
            try:
                names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
                entries += pq.read_table(path, columns=names).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"dataset={self.spec}: '{path}' cannot be read ({error}).") from error
        needed = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
        needed += ["data/chunk_index", "data/file_index"]
        for name in self.cameras.values():
            if self.features[name]["dtype"] == "video":
                parts = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
                needed += [f"videos/{name}/{part}" for part in parts]
        missing = [name for name in needed if entries and name not in entries[0]]
        if missing:
            raise UserError(f"dataset={self.spec}: meta/episodes has no {', '.join(missing)}.")
        return sorted(entries, key=lambda entry: entry["episode_index"])

    def _read_tasks(self) -> dict[int, str]:
        """Return {task_index: sentence}; the sentences are what pandas calls the table's index."""
        import pyarrow.parquet as pq

        path = self.root / "meta" / "tasks.parquet"
        if not path.is_file():
            return {}
        rows = pq.read_table(path).to_pylist()
        return {
            int(row["task_index"]): next(str(text) for name, text in row.items() if name != "task_index")
            for row in rows
        }

    def _box(self, name: str) -> gym.Space | None:
        """Return the space of a feature: a box as large as `meta/stats.json` says, at least [-1, 1]; None: no such."""
        if name not in self.features:
            return None
        shape = tuple(self.features[name]["shape"])
        if name != ACTION:
            return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)
        low, high = np.full(shape, -1.0), np.full(shape, 1.0)
        stats = self.root / "meta" / "stats.json"
        if stats.is_file():
            own = json.loads(stats.read_text()).get(name, {})
            low = np.minimum(low, np.reshape(own.get("min", low), shape))
            high = np.maximum(high, np.reshape(own.get("max", high), shape))
        return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _ends(columns: dict[str, np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where an episode of `length` + 1 rows terminated and where it was cut off, (length,) bool each.

    The last row is beyond the last step. This suite repeats there what the row before it says; others may say there
    alone how the episode ended.
    """
    last = np.arange(length) == length - 1
    told = {
        name: np.asarray(columns[name], dtype=bool)[:length] | (last & bool(columns[name][-1]))
        for name in (TERMINATED, TRUNCATED, "next.success")
        if name in columns
    }
    reached = "next.success" in told and bool(told["next.success"].any())
    terminated = told.get(TERMINATED, last & reached & ~told.get(TRUNCATED, ~last))
    return terminated, told.get(TRUNCATED, last & ~terminated)


def _array(column: Any) -> np.ndarray:
    """Return a column, numbers or lists of them, as an array (n, ...)."""
    import pyarrow as pa

    together = column.combine_chunks()
    if pa.types.is_fixed_size_list(together.type) and together.null_count == 0:
        return together.flatten().to_numpy(zero_copy_only=False).reshape(len(together), together.type.list_size)
    return np.asarray(together.to_pylist())
