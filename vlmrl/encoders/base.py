"""What an encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

ELSEWHERE = "pictures from elsewhere"
"""What `Encoder.check_env` is told of pictures that come with no name of an environment."""


class Encoder(Protocol):
    """Maps pictures and sentences into one space. Stateless: the same content gives the same embedding.

    Attributes:
        name: What a person calls it, such as "ViT-H-14/laion2b_s32b_b79k".
        fingerprint: Hex digest of architecture, weights and preprocessing; a key for anything that keeps embeddings.
        image_size: (height, width) in pixels at which frames are best rendered: nothing is resized then.
        dim: Length E of an embedding.

    Two more need not be there: `unit_vectors`, false where `encode_images` gives features that a head was trained on,
    whose lengths mean something (see `gives_unit_vectors`); and `video_head`, see `video_head_of`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def image_size(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """Embed pictures.

        Args:
            frames: (n, H, W, 3) uint8 RGB of any size, n >= 0.

        Returns:
            (n, E) float32, each row of unit length.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed sentences.

        Returns:
            (n, E) float32, each row of unit length.
        """
        ...

    def check_env(self, env: str) -> None:
        """Refuse an environment of the suite whose pictures this encoder was not made for.

        Raises:
            UserError: Names the environments that its card lists and how to insist.
        """
        ...


def gives_unit_vectors(encoder: Encoder) -> bool:
    """Return whether embeddings of pictures have unit length, so that products with those of sentences are cosines."""
    return bool(getattr(encoder, "unit_vectors", True))


def video_head_of(encoder: Encoder) -> Path | None:
    """Return the file with the head for clips that comes with an encoder; None where none does."""
    path = getattr(encoder, "video_head", None)
    return Path(path) if path is not None else None
