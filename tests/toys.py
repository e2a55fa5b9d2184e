"""Small things with known answers, for tests."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.errors import UserError
from vlmrl.rows import Rows


class CountingEnv(gym.Env):
    """Its picture says the time: every pixel of the frame at step t of episode e is `(10 * e + t) % 256`.

    Args:
        length: Steps of an episode.
        ends: "terminated" or "truncated".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int = 5, ends: str = "truncated", render_mode: str | None = "rgb_array"):
        self.length, self.ends, self.render_mode = length, ends, render_mode
        self.episode, self.t = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        done = self.t == self.length
        ended = (done, False) if self.ends == "terminated" else (False, done)
        return self._observation(), -1.0, *ended, {}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), (10 * self.episode + self.t) % 256, dtype=np.uint8)

    def _observation(self) -> np.ndarray:
        return np.array([self.episode, self.t], dtype=np.float32)


class PointEnv(gym.Env):
    """A point on a line from 0 to 1; its picture is bright where the point is far to the right.

    The environment's own reward is its position. The action, -1 to 1, moves it by at most 0.1; starts lie at random.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = "rgb_array"):
        self.render_mode = render_mode
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform())
        return np.array([self.position], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.position = float(np.clip(self.position + 0.1 * float(np.asarray(action).reshape(-1)[0]), 0, 1))
        return np.array([self.position], dtype=np.float32), self.position, False, False, {}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), round(255 * self.position), dtype=np.uint8)


class BrightnessEncoder:
    """Embeds a picture as the unit vector whose angle grows with brightness; of words, "bright" is the brightest."""

    name, fingerprint, image_size, dim = "brightness", "0", (8, 8), 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        return _on_circle(frames.reshape(len(frames), -1).mean(axis=1) / 255)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return _on_circle(np.array([1.0 if "bright" in text else 0.0 for text in texts]))

    def check_env(self, env: str) -> None:
        pass


def _on_circle(share: np.ndarray) -> np.ndarray:
    angle = share * np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


class PixelReward:
    """The reward for a row is the value of its pixels, read back from the brightness embedding."""

    needs = frozenset({"embeddings"})
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(self, context: int = 0):
        self.context = context
        self.encoder = BrightnessEncoder()

    def __call__(self, rows: Rows) -> np.ndarray:
        (view,) = rows["embeddings"].values()
        pixels = np.arctan2(view[:, 1], view[:, 0]) * 2 / np.pi * 255
        if self.context == 0:
            return pixels.astype(np.float32)
        # With context, the reward is the change since the row before.
        return np.diff(pixels, prepend=pixels[:1]).astype(np.float32)


@dataclass(frozen=True)
class BrightnessConfig:
    """Settings of a `BrightnessEncoder` that counts what it does, for scorers that build it elsewhere.

    Attributes:
        seconds: How long a batch takes.
        nan_above: Pictures that are brighter have no finite embedding.
    """

    seconds: float = 0.0
    nan_above: float = 255.0

    def build(self, device: str) -> BrightnessEncoder:
        return FlawedEncoder(self)


class FlawedEncoder(BrightnessEncoder):
    """A `BrightnessEncoder` that can be slow, and wrong."""

    def __init__(self, config: BrightnessConfig):
        super().__init__()
        self._config = config

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        time.sleep(self._config.seconds)
        embeddings = super().encode_images(frames)
        embeddings[frames.reshape(len(frames), -1).mean(axis=1) > self._config.nan_above] = np.nan
        return embeddings

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        if any("warn" in text for text in texts):
            warnings.warn("a word of warning", stacklevel=2)
        return super().encode_texts(texts)

    def check_env(self, env: str) -> None:
        if env == "nowhere":
            raise UserError("not there")


@dataclass(frozen=True)
class BrokenConfig:
    """Settings of an encoder that cannot be had."""

    def build(self, device: str) -> BrightnessEncoder:
        raise UserError("no such weights")


class TalkingEnv(gym.Env):
    """Says at step t what its script has there, and rewards what the script says it is worth.

    Args:
        script: (text, reward) of each step of an episode; the reset says nothing.
    """

    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, script: Sequence[tuple[str, float]], render_mode: str | None = None):
        self.script, self.render_mode = tuple(script), render_mode
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {"text": ""}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        text, reward = self.script[self.t]
        self.t += 1
        return self._observation(), reward, self.t == len(self.script), False, {"text": text}

    def _observation(self) -> np.ndarray:
        return np.array([self.t / len(self.script)], dtype=np.float32)
