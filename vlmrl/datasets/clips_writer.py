"""Writes folders of clips with their table, as `clips` reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets import video
from vlmrl.datasets.base import Episode
from vlmrl.datasets.clips import CARD, TABLE
from vlmrl.datasets.folder import NewFolder
from vlmrl.datasets.spaces import described
from vlmrl.datasets.writers import Recording
from vlmrl.errors import UserError

FPS = 30.0  # where nobody knows


class ClipWriter:
    """Writes `<camera>/<episode>.mp4` and `steps.csv`; see `Writer`. Clips are compressed with a little loss.

    Args:
        out: The folder.

    Raises:
        UserError: It is there already.
    """

    def __init__(self, out: str):
        self._folder = NewFolder(out)
        self.path = self._folder.path

    def start(self, recording: Recording) -> None:
        """See `Writer`."""
        for name, space in (("observations", recording.observation_space), ("actions", recording.action_space)):
            if space is not None and not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
                raise UserError(f"A table of steps holds {name} of a Box or Discrete space; these are in {space}.")
        video.check_size(recording.frame_size)
        self._recording = recording
        self._draft = self._folder.start()
        self._count = 0
        metadata = {**recording.metadata, "fps": recording.fps, "text": recording.text}
        metadata |= described(recording.observation_space, recording.action_space)
        (self._draft / CARD).write_text(json.dumps(metadata, indent=2) + "\n")

    def add(self, episode: Episode) -> None:
        """See `Writer`."""
        if not episode.frames:
            raise UserError("A folder of clips needs pictures: frames=true.")
        name = f"{self._count:06d}"
        with self._folder.whole_or_not_at_all() as begun:
            for camera, frames in episode.frames.items():
                path = begun(f"{camera}/{name}.mp4")
                video.write_video(path, frames, episode.fps or self._recording.fps or FPS)
            path = begun(TABLE)
            new = not path.exists()
            with path.open("a", newline="") as file:
                lines = csv.writer(file, lineterminator="\n")
                for i, line in enumerate(self._lines(name, episode)):
                    if new and i == 0:
                        lines.writerow(list(line))
                    lines.writerow(list(line.values()))
        self._count += 1

    def finish(self) -> None:
        """See `Writer`."""
        self._folder.finish()

    def _lines(self, name: str, episode: Episode) -> Iterator[dict[str, Any]]:
        """Yield a line for each frame."""
        predicate = episode.infos.get("predicate")
        for t in range(episode.length + 1):
            line: dict[str, Any] = {"episode": name}
            if episode.actions is not None:
                last = t == episode.length
                line |= _numbers("action", episode.actions[min(t, episode.length - 1)], empty=last)
            if episode.observations is not None:
                line |= _numbers("observation", episode.observations[t])
            if episode.rewards is not None:
                line["reward"] = repr(float(episode.rewards[t - 1])) if t else ""
            for column, values in (("terminated", episode.terminations), ("truncated", episode.truncations)):
                line[column] = int(values[t - 1]) if t else 0
            if predicate is not None:
                line["success"] = int(predicate[t - 1]) if t else 0
            yield line | ({"text": episode.text} if episode.text else {})


def _numbers(name: str, value: Any, empty: bool = False) -> dict[str, str]:
    """Return columns of one action or observation; the shortest digits that read back as the same number."""
    array = np.asarray(value)
    names = [name] if array.ndim == 0 else [f"{name}_{i}" for i in range(array.size)]
    return {
        column: "" if empty else str(number) for column, number in zip(names, array.reshape(-1).tolist(), strict=True)
    }
