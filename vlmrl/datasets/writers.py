"""What writes datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from vlmrl.datasets.base import Episode
from vlmrl.registry import Registry

# Each entry is a `Writer`.
WRITERS = Registry(
    "dataset format",
    {
        "clips": "vlmrl.datasets.clips_writer:ClipWriter",
        "lerobot": "vlmrl.datasets.lerobot_writer:LeRobotWriter",
        "minari": "vlmrl.datasets.minari_writer:MinariWriter",
    },
)


@dataclass(frozen=True)
class Recording:
    """What all episodes of a new dataset share.

    Attributes:
        observation_space: Space of the observations; None without any.
        action_space: Space of the actions; None without any.
        fps: Frames a second; None where nobody knows.
        text: What should be done, in words; empty where nobody says.
        env_spec: Gymnasium's specification of the environment; None where there is none to recover.
        metadata: Where it comes from, ready for JSON.
        description: One line for people.
        frame_size: Height and width of the pictures in pixels; None without any, or where nobody knows beforehand.
    """

    observation_space: gym.Space | None
    action_space: gym.Space | None
    fps: float | None = None
    text: str = ""
    env_spec: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    frame_size: tuple[int, int] | None = None


class Writer(Protocol):
    """Writes a new dataset, which appears under its name when it is finished and never before.

    Made with the name; what is wrong with that is found there.

    Attributes:
        path: Where the dataset will be.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102

    def start(self, recording: Recording) -> None:
        """Begin, in the place of what an earlier attempt has left.

        Raises:
            UserError: This format cannot hold such episodes.
        """
        ...

    def add(self, episode: Episode) -> None:
        """Write an episode, whole or not at all, Ctrl-C included; it gets the next number.

        Raises:
            CorruptEpisode: Its pictures cannot be read.
            UserError: This format cannot hold it.
        """
        ...

    def finish(self) -> None:
        """Give the dataset its name."""
        ...
