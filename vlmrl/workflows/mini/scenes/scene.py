"""What a scene is: an environment, its states, its pictures, what can be said of them and how far that is true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

Columns = Mapping[str, np.ndarray]


class Stage(Protocol):
    """Takes pictures of states."""

    def shoot(self, state: np.ndarray, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """Take a picture of a state.

        Args:
            state: The scene's state vector, see `Scene.states`.
            rng: Draws camera, light, textures and colours; None: everything is seen as the task sees it.

        Returns:
            `pixels` (size, size, 3) uint8, `camera` str, and the columns that truths, geometry and predicates read,
            each float32.
        """
        ...

    def close(self) -> None:
        """Free the renderers."""
        ...


class Scene(ABC):
    """One environment of the suite as the embedded encoder is taught it.

    Statements are named across scenes: "standing" of the humanoid and of the walker is one statement. A statement that
    a scene does not name is unknown there, neither true nor false.

    Attributes:
        name: Name of the environment, as in `configs/env/<name>.yaml`.
        share: Its share of the training frames, relative to the other scenes'.
        size: Numbers in a state vector.
        mirrors: Whether a mirrored picture shows a state that is as possible; statements then change by `mirrored`.
        mirrored: What a statement about the mirrored picture is about the picture: {statement: statement}.
        identities: Statements that are true of every frame here and false of every frame of scenes without them.
        subjects: {subject of a sentence: the identity that it claims}.
        weights: How much more than 1 a statement counts in training: what the suite's tasks are about.
        phrases: {statement: what follows the subject}, the plainest first; whole sentences where `subjects` is empty.
        clauses: {statement: the same with a finite verb}, such as "kneels on the floor".
        postures: Statements that are joined with `modifiers` in one sentence.
        modifiers: See `postures`.
    """

    name: str
    share: float
    size: int
    mirrors: bool = True
    mirrored: Mapping[str, str] = {}
    identities: tuple[str, ...]
    subjects: Mapping[str, str] = {}
    weights: Mapping[str, float] = {}
    phrases: Mapping[str, tuple[str, ...]]
    clauses: Mapping[str, tuple[str, ...]] = {}
    postures: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()

    @abstractmethod
    def states(self, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """Yield for ever (where it came from, state vector (size,) float64) of a broad distribution."""

    @abstractmethod
    def random_policy(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield for ever state vectors of episodes under uniformly random actions."""

    @abstractmethod
    def stage(self, size: int) -> Stage:
        """Open a stage for square pictures of so many pixels."""

    @abstractmethod
    def truths(self, frames: Columns) -> dict[str, np.ndarray]:
        """Compute {statement: (n,) float32 degree, 0 to 1} of all that `phrases` names."""

    @abstractmethod
    def geometry(self, frames: Columns, mirror: bool) -> np.ndarray:
        """Return where things are as the camera has them, (n, g); `mirror`: of the mirrored picture.

        The image tower learns to read it from the picture, long before the statements teach it to see limbs.
        """

    def joined(self) -> list[tuple[str, str]]:
        """Return the pairs of a posture and a modifier that a sentence may join."""
        return [(posture, beside) for posture in self.postures for beside in self.modifiers]


def rise(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high`, straight in between."""
    return np.clip((value - low) / (high - low), 0.0, 1.0)


def fall(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 up to `low`, 0 from `high`, straight in between."""
    return 1.0 - rise(value, low, high)


def band(value: np.ndarray, low: float, full: float, full_until: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `full` to `full_until`, 0 from `high`, straight in between."""
    return rise(value, low, full) * fall(value, full_until, high)


def float32(truths: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the degrees as float32."""
    return {name: np.asarray(degree, dtype=np.float32) for name, degree in truths.items()}
