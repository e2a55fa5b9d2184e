"""Minari datasets, read one episode at a time.

Format: "Dataset standards" in Minari's documentation. Pictures are looked for under `infos/frames/<camera>`, where this
suite keeps them, and else in the observations.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets.base import FRAMES, CorruptEpisode, Episode, Frames
from vlmrl.errors import UserError, require

ID = re.compile(r"(?:[-\w][-\w/]*[-\w]+/)?[-\w]+-v\d+")  # (namespace/)name-v<number>, as Minari has it
MAIN_FILE = "main_data.hdf5"
OURS = "vlmrl"  # key of this suite's own metadata


class MinariData:
    """A Minari dataset; `open` makes one.

    Args:
        spec: What a person opened it with.
        folder: The folder with `metadata.json`.

    Raises:
        UserError: It cannot be read.
    """

    format = "minari"

    def __init__(self, spec: str, folder: Path):
        minari = require("minari", extra="minari")
        self.spec, self.folder = spec, folder
        self.path = folder.parent if folder.name == "data" else folder
        try:
            self._dataset = minari.MinariDataset(folder)
            self.metadata: dict[str, Any] = json.loads((folder / "metadata.json").read_text())
        except (ValueError, KeyError, AssertionError, OSError) as error:
            raise UserError(
                f"dataset={spec}: '{folder}' is no Minari dataset that can be read ({type(error).__name__}: {error})."
            ) from error
        self.observation_space: gym.Space = self._dataset.observation_space
        self.action_space: gym.Space = self._dataset.action_space
        own = self.metadata.get(OURS, {})
        self._fps: float | None = own.get("fps")
        self._text = str(own.get("text", ""))
        self._jpeg = bool(self.metadata.get("jpeg_encoding", True))

    @classmethod
    def recognises(cls, spec: str) -> bool:
        """See `DatasetFormat`."""
        return _folder(spec) is not None

    @classmethod
    def open(cls, spec: str) -> MinariData:
        """See `DatasetFormat`."""
        require("minari", extra="minari")
        folder = _folder(spec)
        if folder is None:
            raise UserError(
                f"There is no Minari dataset '{spec}' on this machine. 'minari list local' shows what there is; "
                f"'minari download {spec}' gets one of Farama's."
            )
        return cls(spec, folder)

    @property
    def id(self) -> str:
        """Its id in Minari."""
        return str(self._dataset.id)

    def __len__(self) -> int:
        return len(self._dataset)

    def number(self, i: int) -> int:
        """Return the number by which the files know episode `i`."""
        return int(self._dataset.episode_indices[i])

    def episode(self, i: int) -> Episode:
        """See `Dataset`; pictures are read when they are looked at."""
        number = self.number(i)
        if self.metadata["data_format"] == "hdf5":
            return self._from_hdf5(number)
        try:
            data = self._dataset[i]
            (metadata,) = self._dataset.storage.get_episode_metadata([number])
        except (OSError, KeyError, ValueError) as error:
            raise CorruptEpisode(f"cannot be read ({type(error).__name__}: {error})") from error
        infos = dict(data.infos or {})
        pictures = infos.pop(FRAMES, None) or dict(_images(self.observation_space, data.observations))
        frames = {camera: Frames(len(array), partial(iter, array)) for camera, array in pictures.items()}
        return self._made(
            number, data.observations, data.actions, data.rewards, data.terminations, data.truncations, infos, frames,
            metadata,
        )  # fmt: skip

    def episodes(self) -> Iterator[Episode]:
        """See `Dataset`."""
        return map(self.episode, range(len(self)))

    def recover_environment(self) -> gym.Env:
        """See `Dataset`."""
        try:
            return self._dataset.recover_environment()
        except (ValueError, gym.error.Error, ModuleNotFoundError) as error:
            raise UserError(f"The environment of dataset '{self.spec}' cannot be made: {error}") from error

    def _from_hdf5(self, number: int) -> Episode:
        import h5py

        path = self.folder / MAIN_FILE
        try:
            with h5py.File(path, "r") as file:
                group = file[f"episode_{number}"]
                infos, frames = {}, {}
                if "infos" in group:
                    infos = {name: _read(part) for name, part in group["infos"].items() if name != FRAMES}
                    for camera, array in group["infos"].get(FRAMES, {}).items():
                        frames[camera] = Frames(len(array), _stream(path, array.name, jpeg=False))
                observations = self._read_space(group["observations"], self.observation_space)
                if not frames:
                    for camera, array in _image_datasets(group["observations"], self.observation_space):
                        frames[camera] = Frames(len(array), _stream(path, array.name, self._jpeg))
                return self._made(
                    number,
                    observations,
                    self._read_space(group["actions"], self.action_space),
                    group["rewards"][()],
                    group["terminations"][()],
                    group["truncations"][()],
                    infos,
                    frames,
                    dict(group.attrs),
                )
        except (OSError, KeyError, ValueError) as error:
            raise CorruptEpisode(f"cannot be read ({type(error).__name__}: {error})") from error

    def _made(
        self,
        number: int,
        observations: Any,
        actions: Any,
        rewards: np.ndarray,
        terminations: np.ndarray,
        truncations: np.ndarray,
        infos: Mapping[str, Any],
        frames: Mapping[str, Frames],
        metadata: Mapping[str, Any],
    ) -> Episode:
        return Episode(
            id=number,
            length=len(rewards),
            observations=observations,
            actions=actions,
            rewards=np.asarray(rewards, dtype=np.float64),
            terminations=np.asarray(terminations, dtype=bool),
            truncations=np.asarray(truncations, dtype=bool),
            infos=infos,
            frames=frames,
            text=self._text,
            fps=self._fps,
            name=f"episode_{number}",
            metadata=metadata,
        )

    def _read_space(self, node: Any, space: gym.Space) -> Any:
        """Read samples of a space; pictures that are kept as JPEG are decoded."""
        if isinstance(space, gym.spaces.Dict):
            return {name: self._read_space(node[name], part) for name, part in space.spaces.items()}
        if isinstance(space, gym.spaces.Tuple):
            return tuple(self._read_space(node[f"_index_{i}"], part) for i, part in enumerate(space.spaces))
        if isinstance(space, gym.spaces.Text):
            return np.array([text.decode() for text in node[()]])
        if self._jpeg and _is_jpeg(space):
            return np.stack([_decoded(data) for data in node[()]])
        return node[()]


def _folder(spec: str) -> Path | None:
    """Return the folder with `metadata.json` of a dataset given by a path or its id; None where there is none."""
    for folder in (Path(spec) / "data", Path(spec)):
        if (folder / "metadata.json").is_file():
            return folder
    if ID.fullmatch(spec) and find_spec("minari") is not None:
        from minari.storage import get_dataset_path

        folder = Path(get_dataset_path(spec)) / "data"
        return folder if (folder / "metadata.json").is_file() else None
    return None


def _read(node: Any) -> Any:
    """Read an array, or a group of them as a dict."""
    return {name: _read(part) for name, part in node.items()} if hasattr(node, "items") else node[()]


def _stream(path: Path, name: str, jpeg: bool) -> Any:
    """Return what reads pictures of an HDF5 file one by one."""

    def opened() -> Iterator[np.ndarray]:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                for picture in file[name]:
                    yield _decoded(picture) if jpeg else picture
        except (OSError, KeyError, ValueError) as error:
            raise CorruptEpisode(f"has frames that cannot be read ({type(error).__name__}: {error})") from error

    return opened


def _is_jpeg(space: gym.Space) -> bool:
    """Say whether Minari keeps samples of a space as JPEG where it keeps pictures so."""
    from minari.dataset.minari_storage import is_image_space

    return is_image_space(space)


def _is_picture(space: gym.Space) -> bool:
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def _image_datasets(node: Any, space: gym.Space, path: str = "observation") -> Iterator[tuple[str, Any]]:
    """Yield (name, HDF5 dataset) of each part of the observations that is a picture."""
    if isinstance(space, gym.spaces.Dict):
        for name, part in space.spaces.items():
            yield from _image_datasets(node[name], part, name)
    elif _is_picture(space):
        yield path, node


def _images(space: gym.Space, values: Any, path: str = "observation") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, (n, H, W, 3) uint8) of each part of the observations that is a picture."""
    if isinstance(space, gym.spaces.Dict):
        for name, part in space.spaces.items():
            yield from _images(part, values[name], name)
    elif _is_picture(space):
        yield path, values


def _decoded(data: np.ndarray) -> np.ndarray:
    """Decode a JPEG."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(np.asarray(data).tobytes())).convert("RGB"))
