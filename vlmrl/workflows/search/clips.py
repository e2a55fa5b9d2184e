"""Clips of what a policy does, for somebody who compares them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.workflows.rollouts import Policy, batch_of_one


@dataclass(frozen=True, eq=False)
class Clip:
    """An episode.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, in order of time and at equal distances.
        truth: (steps,) float64, the task's ground truth at every step; None where there is no task.
    """

    frames: np.ndarray
    truth: np.ndarray | None

    def save(self, path: Path) -> None:
        """Write it, all of it or nothing."""
        part = path.with_suffix(".part.npz")
        arrays: dict[str, Any] = {"frames": self.frames}
        if self.truth is not None:
            arrays["truth"] = self.truth
        np.savez_compressed(part, **arrays)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> Clip:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return Clip(arrays["frames"], arrays.get("truth"))


def film(policy: Policy, settings: EnvSettings, seed: int, size: int, frames: int) -> Clip:
    """Let a policy act for an episode, without exploration, and film it.

    Args:
        policy: Acts.
        settings: Environment; drawn at `size` by `size` pixels whatever it says.
        seed: Of the episode's start.
        size: Height and width of a picture, in pixels.
        frames: Pictures to keep, at most; the first and the last are among them.
    """
    env = make_env(replace(settings, height=size, width=size), render=True)
    pictures: list[np.ndarray] = []
    truth: list[float] = []
    try:
        observation, _ = env.reset(seed=seed)
        pictures.append(np.array(env.render()))
        state, done = None, False
        while not done:
            actions, state = policy.predict(batch_of_one(observation), state, np.array([not truth]), deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(actions[0])
            pictures.append(np.array(env.render()))
            truth.append(float(reward))
            done = terminated or truncated
    finally:
        env.close()
    kept = np.unique(np.linspace(0, len(pictures) - 1, min(frames, len(pictures))).round().astype(int))
    return Clip(np.stack([pictures[i] for i in kept]), np.array(truth) if settings.task.predicate is not None else None)
