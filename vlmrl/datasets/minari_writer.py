"""Writes Minari datasets: new ones, and copies of others with new rewards.

A dataset appears under its name when it is complete, and never before: until then it is a hidden folder beside it.
Everything is written in the same order with the same bytes each time: nothing in the files tells the time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.datasets.base import FRAMES, ORIGINAL_REWARD, Episode
from vlmrl.datasets.minari import ID, MAIN_FILE, OURS, MinariData
from vlmrl.datasets.writers import Recording
from vlmrl.errors import UserError, require

GZIP_LEVEL = 4  # rendered pictures shrink to a tenth; higher levels cost seconds a thousand pictures and gain little


class MinariTarget:
    """Where a new dataset goes.

    Args:
        out: An id, "cartpole/random-v0", which goes into Minari's own folder (MINARI_DATASETS_PATH, or
            ~/.minari/datasets); or a path that says so, "./data/random-v0" or an absolute one.

    Raises:
        UserError: The name does not end with its version, or is taken.
    """

    def __init__(self, out: str):
        require("minari", extra="minari")
        from minari.storage import get_dataset_path

        path = Path(out)
        local = path.is_absolute() or out.startswith((".", "~"))
        self.id = path.name if local else out
        if not ID.fullmatch(self.id):
            raise UserError(
                f"out={out}: the name of a Minari dataset ends with its version and holds letters, digits, - and _, "
                f"such as {'./data/' if local else 'cartpole/'}random-v0."
            )
        self._shared = not local
        self.folder = (path.expanduser() if local else Path(get_dataset_path(out))).absolute()  # Minari wants it so
        self.draft = self.folder.with_name(f".{self.folder.name}.partial")
        if self.folder.exists():
            raise UserError(
                f"out={out}: there is a dataset already, '{self.folder}', and datasets are never written over. Give "
                "another name or version, or remove it."
            )

    def start(self) -> Path:
        """Make an empty draft, in the place of one that was left behind, and return its folder of data."""
        shutil.rmtree(self.draft, ignore_errors=True)
        data = self.draft / "data"
        data.mkdir(parents=True)
        return data

    def finish(self) -> None:
        """Give the draft its name."""
        from minari.namespace import create_namespace, list_local_namespaces

        namespace = self.id.rpartition("/")[0]
        if self._shared and namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        self.draft.rename(self.folder)


class MinariWriter:
    """Writes a new dataset, episode by episode; see `Writer`.

    Pictures are kept without loss: those that are observations as they are, those of `Episode.frames` compressed under
    `infos/frames/<camera>`, one by one, so that no episode's are in memory at once.

    Args:
        out: See `MinariTarget`.

    Raises:
        UserError: See `MinariTarget`.
    """

    def __init__(self, out: str):
        self._target = MinariTarget(out)
        self.path = self._target.folder

    def start(self, recording: Recording) -> None:
        """See `Writer`.

        Raises:
            UserError: There are no observations or no actions, and Minari has no place for such episodes.
        """
        import minari
        from minari.dataset.minari_storage import MinariStorage

        for name, space in (("observations", recording.observation_space), ("actions", recording.action_space)):
            if space is None:
                raise UserError(f"A Minari dataset needs {name}, and there are none.")
        self._data = self._target.start()
        self._storage = MinariStorage.new(
            self._data,
            recording.observation_space,
            recording.action_space,
            recording.env_spec,
            "hdf5",
            jpeg_encoding=False,
        )
        # Minari's own call wants all episodes at once.
        own = {**recording.metadata, "fps": recording.fps, "text": recording.text}
        self._storage.update_metadata(
            {
                "dataset_id": self._target.id,
                "minari_version": minari.__version__,
                "description": recording.description,
                OURS: own,
            }
        )

    def add(self, episode: Episode) -> None:
        """Write an episode; it gets the next number.

        Raises:
            CorruptEpisode: Its pictures cannot be read.
        """
        import h5py
        from minari.data_collector import EpisodeBuffer

        number = self._storage.total_episodes
        seed = episode.metadata.get("seed")
        assert episode.rewards is not None
        buffer = EpisodeBuffer(
            id=number,
            seed=int(seed) if seed is not None else None,
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
            infos=dict(episode.infos),
        )
        described = self._data / "metadata.json"
        before = described.read_bytes()
        try:
            if episode.frames:
                with h5py.File(self._data / MAIN_FILE, "a", track_order=True) as file:
                    group = file.create_group(f"episode_{number}")
                    for camera, frames in episode.frames.items():
                        _write_frames(group, f"infos/{FRAMES}/{camera}", frames)
            self._storage.update_episodes([buffer])
        except BaseException:  # Ctrl-C included: an episode that is not whole leaves no half of itself behind
            described.write_bytes(before)
            with h5py.File(self._data / MAIN_FILE, "a", track_order=True) as file:
                if f"episode_{number}" in file:
                    del file[f"episode_{number}"]
            raise

    def finish(self) -> None:
        """See `Writer`."""
        self._target.finish()


def _write_frames(group: Any, name: str, frames: Iterable[np.ndarray]) -> None:
    """Write pictures one by one, each a chunk of its own."""
    dataset = None
    for i, frame in enumerate(frames):
        if dataset is None:
            dataset = group.create_dataset(
                name,
                shape=(0, *frame.shape),
                maxshape=(None, *frame.shape),
                chunks=(1, *frame.shape),
                dtype=np.uint8,
                compression="gzip",
                compression_opts=GZIP_LEVEL,
                shuffle=False,
            )
        dataset.resize(i + 1, axis=0)
        dataset[i] = frame


def copy_with_rewards(
    source: MinariData,
    target: MinariTarget,
    rewards: Mapping[int, np.ndarray],
    infos: Mapping[int, Mapping[str, np.ndarray]],
    metadata: Mapping[str, Any],
) -> None:
    """Write a copy of a dataset in Minari's HDF5 form in which nothing but the rewards differs, to the bit.

    What the rewards were is in `infos/original_reward`; a dataset that has that already keeps it.

    Args:
        source: The dataset.
        target: Where the copy goes.
        rewards: {position of an episode in the dataset: (T,) float}; episodes that are not there are left out.
        infos: {the same: {name: (T,) array}}, further infos of the new dataset.
        metadata: This suite's own, ready for JSON; takes the place of the source's.
    """
    import h5py

    data = target.start()
    steps = 0
    with (
        h5py.File(source.folder / MAIN_FILE, "r") as old,
        h5py.File(data / MAIN_FILE, "w", track_order=True) as new,
    ):
        for number, position in enumerate(sorted(rewards)):
            before = old[f"episode_{source.number(position)}"]
            after = new.create_group(f"episode_{number}")
            for name, value in before.attrs.items():
                after.attrs[name] = value
            after.attrs["id"] = number
            for name in before:
                if name != "rewards":
                    old.copy(before[name], after)
            kind = before["rewards"].dtype
            after.create_dataset(
                "rewards",
                data=rewards[position].astype(kind if kind.kind == "f" else np.float64),
                chunks=True,
                maxshape=(None,),
            )
            extra = dict(infos.get(position, {}))
            if ORIGINAL_REWARD not in after.require_group("infos"):
                extra[ORIGINAL_REWARD] = before["rewards"][()]
            for name, value in extra.items():
                if name in after["infos"]:
                    del after[f"infos/{name}"]
                after["infos"].create_dataset(name, data=value, chunks=True, maxshape=(None, *value.shape[1:]))
            steps += len(rewards[position])
    described = {key: value for key, value in source.metadata.items() if key != OURS}
    described |= {
        "dataset_id": target.id,
        "total_episodes": len(rewards),
        "total_steps": steps,
        "dataset_size": round((data / MAIN_FILE).stat().st_size / 1e6, 1),
        OURS: dict(metadata),
    }
    (data / "metadata.json").write_text(json.dumps(described))
    target.finish()
