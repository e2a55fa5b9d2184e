"""A reward that is the value of the pixels, and runs that end before they should."""

from __future__ import annotations

import os
import pkgutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.datasets.recordings import brightness, episode
from tests.toys import BrightnessEncoder, PixelReward
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.datasets.base import Frames
from vlmrl.workflows.config.relabel import RelabelConfig, relabel_settings


class Counting(BrightnessEncoder):
    """Says how many pictures it has looked at, all of them together.

    As with real ones, last digits depend on how many it is given at once.
    """

    seen: ClassVar[int] = 0

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        Counting.seen += len(frames)
        time.sleep(float(os.environ.get("TEST_SECONDS_A_BATCH", "0")))
        x, y = super().encode_images(frames).astype(np.float64).T
        angle = np.arctan2(y, x) + 5e-7 * len(frames)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class CountingConfig:
    """Settings of `Counting`."""

    path: str = ""
    any_env: bool = False
    precision: str = "fp32"
    batch_size: int = 64

    def build(self, device: str) -> Counting:
        return Counting()


@dataclass(frozen=True)
class PixelConfig:
    """Settings of a `PixelReward`, with the keys of reward=clip."""

    alpha: float = 0.0
    views: str = "mean"
    weights: str = ""

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Any, encoder: Any) -> PixelReward:
        model = PixelReward(context=int("change" in words.goal[0]))
        model.words = words  # type: ignore[attr-defined]
        return model


def settings(*overrides: str, **changes: Any) -> RelabelConfig:
    arguments = for_hydra(["progress_bar=false", "goal=be bright", *overrides])
    values = plain(compose("relabel", arguments))
    number = len(list(Path("runs").glob("*"))) if Path("runs").is_dir() else 0
    given = [override.partition("=")[0] for override in arguments]
    return replace(relabel_settings({**values, "run_dir": f"runs/{number}"}, given), **changes)


def bright(number: int, length: int = 5) -> list[int]:
    return [brightness(number, t) for t in range(1, length + 1)]


def with_still_pictures(number: int) -> Any:
    """An episode some of whose pictures come again, at once or later, in it and in others."""
    images = [np.full((32, 32, 3), 20 + 5 * number + (t // 2) % 7, dtype=np.uint8) for t in range(21)]
    return episode(number, 20, frames={"front": Frames(21, lambda: iter(images))})


def killed_at(monkeypatch: pytest.MonkeyPatch, where: str, count: int) -> None:
    """Let the next run end at the call of this number of a function, as if it had been killed."""
    module, _, name = where.rpartition(".")
    owner = pkgutil.resolve_name(module)
    plainly, calls = getattr(owner, name), []

    def kill(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            monkeypatch.setattr(owner, name, plainly)
            raise SystemExit("killed")
        return plainly(*arguments, **named)

    monkeypatch.setattr(owner, name, kill)
