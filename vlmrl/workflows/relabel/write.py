"""Where new rewards go: a new Minari dataset, or a table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from vlmrl.datasets.base import ORIGINAL_REWARD, Dataset, Episode
from vlmrl.datasets.lerobot import LeRobotDataset
from vlmrl.datasets.minari import MinariData
from vlmrl.datasets.minari_writer import MinariTarget, MinariWriter, copy_with_rewards
from vlmrl.datasets.writers import Recording
from vlmrl.errors import UserError, require
from vlmrl.workflows.config.relabel import RelabelConfig
from vlmrl.workflows.relabel.score import Eye


class Output(Protocol):
    """Where rewards go. Made before anything is scored; what is wrong with the name is found there.

    Attributes:
        kind: "dataset" or "table".
        path: Where it will be.
        ledger: File that keeps what is done until then.
    """

    kind: str

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def ledger(self) -> Path: ...  # noqa: D102

    def check(self, episode: Episode, number: int, eye: Eye | None) -> None:
        """Look at what of an episode will be written and no reward has looked at; `write` can leave nothing out.

        Args:
            episode: The episode.
            number: Its position in the dataset.
            eye: See `write`.

        Raises:
            CorruptEpisode: Something cannot be read.
        """
        ...

    def write(self, rewards: Mapping[int, np.ndarray], provenance: Mapping[str, Any], eye: Eye | None) -> None:
        """Write it, in the same bytes each time.

        Args:
            rewards: {position of an episode: its rewards}, as `EpisodeScorer.score` gives them.
            provenance: What they follow from, ready for JSON.
            eye: What the pictures were looked at with; None where nobody looked.
        """
        ...


def open_output(settings: RelabelConfig, dataset: Dataset) -> Output:
    """Say where the rewards will go.

    Raises:
        UserError: The name is taken, or the dataset has no place for what is asked.
    """
    if settings.out.endswith(".parquet"):
        if not isinstance(dataset, LeRobotDataset):
            raise UserError(
                f"out={settings.out}: such a table goes with a LeRobot dataset, and '{settings.dataset}' is none. "
                "out=<...>.csv is a table for any."
            )
        return ProgressTable(settings, dataset)
    if settings.out.endswith(".csv"):
        return RewardTable(settings, dataset)
    return NewDataset(settings, dataset)


def _new_table(out: str) -> tuple[Path, Path]:
    """Return the path of a table and that of its ledger beside it.

    Raises:
        UserError: The name is taken.
    """
    path = Path(out)
    if path.exists():
        raise UserError(f"out={out} is there already, and is not written over. Remove it, or name another.")
    return path, path.with_name(f".{path.name}.rewards")


class NewDataset:
    """A new Minari dataset: a copy of a Minari one with other rewards, or what another holds in its form.

    Args:
        settings: Says where it goes and what policies will see.
        dataset: Where the rest comes from.

    Raises:
        UserError: The name is taken; or there are no actions, so that no policy could be learned from it.
    """

    kind = "dataset"

    def __init__(self, settings: RelabelConfig, dataset: Dataset):
        self._settings, self._dataset = settings, dataset
        target = MinariTarget(settings.out)
        self.path = target.folder
        self.ledger = target.draft.with_suffix(".rewards")
        if dataset.action_space is None:
            raise UserError(
                f"The dataset '{dataset.spec}' has no actions, so it can become no dataset to learn a policy from. "
                "out=<...>.csv makes a table of its rewards; for a folder of clips, steps.csv says what was done "
                "(docs/offline.md)."
            )
        if dataset.observation_space is None and settings.observe != "embeddings":
            raise UserError(
                f"The dataset '{dataset.spec}' has no observations. With observe=embeddings policies see the "
                "embeddings of its pictures."
            )

    def check(self, episode: Episode, number: int, eye: Eye | None) -> None:
        """See `Output`. Embeddings are then known when they are written."""
        if self._copies:  # whatever is there is carried over as it is
            return
        if self._embeds:
            assert eye is not None
            eye.embed(episode, number)
        if self._settings.keep_frames:
            for frames in episode.frames.values():
                for _ in frames:
                    pass

    def write(self, rewards: Mapping[int, np.ndarray], provenance: Mapping[str, Any], eye: Eye | None) -> None:
        """See `Output`."""
        source = self._dataset
        if self._copies:
            assert isinstance(source, MinariData)
            copy_with_rewards(source, MinariTarget(self._settings.out), rewards, {}, provenance)
            return
        space = source.observation_space
        if self._embeds:
            assert eye is not None
            space = gym.spaces.Box(-1, 1, (eye.dim,), np.float32)
        writer = MinariWriter(self._settings.out)
        own = source.metadata.get("vlmrl", {})
        writer.start(
            Recording(
                observation_space=space,
                action_space=source.action_space,
                fps=own.get("fps"),
                text=str(own.get("text", "")),
                env_spec=None,
                metadata=provenance,
                description=f"{self._settings.dataset} with rewards of {self._settings.scene.reward.name}",
            )
        )
        for i, values in rewards.items():
            writer.add(self._episode(source.episode(i), i, values, eye))
        writer.finish()

    @property
    def _copies(self) -> bool:
        source = self._dataset
        return isinstance(source, MinariData) and source.metadata["data_format"] == "hdf5" and not self._embeds

    @property
    def _embeds(self) -> bool:
        return self._settings.observe == "embeddings"

    def _episode(self, episode: Episode, number: int, rewards: np.ndarray, eye: Eye | None) -> Episode:
        infos = dict(episode.infos)
        if episode.rewards is not None:
            infos.setdefault(ORIGINAL_REWARD, episode.rewards)
        changed = replace(episode, rewards=rewards.astype(np.float64), infos=infos)
        if self._embeds:
            assert eye is not None
            changed = replace(changed, observations=eye.embed(episode, number))
        return changed if self._settings.keep_frames else replace(changed, frames={})


class RewardTable:
    """A table with a line for each picture: episode, frame, reward. Where the first has none, its reward is empty.

    Args:
        settings: Says where it goes.
        dataset: Where the episodes are.

    Raises:
        UserError: The name is taken.
    """

    kind = "table"

    def __init__(self, settings: RelabelConfig, dataset: Dataset):
        self._dataset = dataset
        self.path, self.ledger = _new_table(settings.out)

    def check(self, episode: Episode, number: int, eye: Eye | None) -> None:
        """See `Output`; a table holds nothing but rewards."""

    def write(self, rewards: Mapping[int, np.ndarray], provenance: Mapping[str, Any], eye: Eye | None) -> None:
        """See `Output`; what the rewards follow from is in <table>.json beside it."""
        draft = self.path.with_name(f".{self.path.name}.partial")
        with draft.open("w", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["episode", "frame", "reward"])
            for i, values in rewards.items():
                name = self._dataset.episode(i).name
                lines.writerows([name, t, "" if np.isnan(value) else f"{value:.9g}"] for t, value in enumerate(values))
        self.path.with_name(f"{self.path.name}.json").write_text(json.dumps(provenance, indent=2) + "\n")
        os.replace(draft, self.path)


class ProgressTable:
    """The table that LeRobot's own loader of progress reads.

    Its columns are `index`, `episode_index`, `frame_index` and `progress_sparse`. Values are the model's, for each
    picture by itself: nothing is stretched to 0..1 within an episode, which would let every failure end in 1. Where
    there is none (the first picture, for a model that compares two) it is NaN, and LeRobot gives such a row its usual
    weight.

    Args:
        settings: Says where it goes.
        dataset: Where the episodes are.

    Raises:
        UserError: The name is taken.
    """

    kind = "table"

    def __init__(self, settings: RelabelConfig, dataset: LeRobotDataset):
        self._settings, self._dataset = settings, dataset
        self.path, self.ledger = _new_table(settings.out)

    def check(self, episode: Episode, number: int, eye: Eye | None) -> None:
        """See `Output`; a table holds nothing but rewards."""

    def write(self, rewards: Mapping[int, np.ndarray], provenance: Mapping[str, Any], eye: Eye | None) -> None:
        """See `Output`; what the rewards follow from is in the table's metadata."""
        pa = require("pyarrow", extra="robotics")
        pq = require("pyarrow.parquet", extra="robotics")
        described = {
            "reward_model_path": f"vlmrl:{self._settings.scene.reward.name}",
            "vlmrl": json.dumps(provenance, sort_keys=True),
        }
        schema = pa.schema(
            [("index", pa.int64()), ("episode_index", pa.int64()), ("frame_index", pa.int64())]
            + [("progress_sparse", pa.float32())],
            metadata=described,
        )
        draft = self.path.with_name(f".{self.path.name}.partial")
        with pq.ParquetWriter(draft, schema) as table:
            for columns in self._columns(rewards):
                table.write_table(pa.table(columns, schema=schema))
        os.replace(draft, self.path)

    def _columns(self, rewards: Mapping[int, np.ndarray]) -> Iterator[list[np.ndarray]]:
        for i, values in rewards.items():
            steps = np.arange(len(values), dtype=np.int64)
            number = np.full(len(values), self._dataset.number(i), dtype=np.int64)
            yield [self._dataset.first_index(i) + steps, number, steps, values]
