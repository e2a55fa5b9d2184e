"""The embedded encoder: a small open_clip model of the suite's own, for machines without weights or a network.

It is a stand-in with which everything runs and can be tested offline, not evidence about CLIP. What it was trained
on and how well it does is in the model card beside its weights (`mini_weights/README.md`); the workflow that trains
it is `vlmrl.workflows.mini`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vlmrl.encoders.open_clip import OpenClipConfig, OpenClipEncoder
from vlmrl.errors import UserError

WEIGHTS = Path(__file__).parent / "mini_weights"
VIDEO_HEAD = "video_head.safetensors"  # beside the weights, where a head for clips was fitted to them
# The environments of the model card, by the names that the suite gives them (`configs/env/<name>.yaml`).
CARD_ENVS = ("ant", "cartpole", "halfcheetah", "hopper", "humanoid", "mountaincar", "walker2d")


@dataclass(frozen=True)
class MiniConfig:
    """Settings of `encoder=mini`.

    Attributes:
        path: Folder with other weights of the same kind, as `vlmrl.workflows.mini.fit` writes it; empty takes the
            embedded ones.
        any_env: Allow environments that are not on the model card.
        precision: "fp32" or "bf16".
        batch_size: Pictures or sentences encoded at once.
    """

    path: str = ""
    any_env: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 64

    def build(self, device: str) -> MiniEncoder:
        """Load the encoder onto a torch device.

        Raises:
            UserError: `path` holds no such model.
        """
        return MiniEncoder(self, device)


class MiniEncoder(OpenClipEncoder):
    """The embedded encoder; see this module.

    It warns of words that it was never taught: their embeddings are zero, so that they are passed over.

    Args:
        config: Its settings.
        device: Torch device.

    Attributes:
        kind: What a person calls it.
        weights: Folder of the embedded weights, with their model card.
        card_envs: Environments of that card.

    Raises:
        UserError: `config.path` holds no such model.
    """

    kind = "mini"
    weights = WEIGHTS
    card_envs: tuple[str, ...] = CARD_ENVS

    def __init__(self, config: MiniConfig, device: str = "cpu"):
        from vlmrl.encoders.open_clip_files import CONFIG_NAME

        folder = Path(config.path) if config.path else self.weights
        if not (folder / CONFIG_NAME).is_file():
            there = f"'{folder}' holds no {CONFIG_NAME}" if folder.is_dir() else f"there is no folder '{folder}'"
            raise UserError(f"encoder.path: {there}. Give a folder that vlmrl.fit wrote, or leave encoder.path away.")
        super().__init__(
            OpenClipConfig(model=f"local-dir:{folder}", precision=config.precision, batch_size=config.batch_size),
            device,
        )
        self.name = f"{self.kind}/{folder.name}" if config.path else self.kind
        self.video_head = folder / VIDEO_HEAD if (folder / VIDEO_HEAD).is_file() else None
        self._any_env = config.any_env
        self._taught = (self._model.token_embedding.weight.abs().sum(dim=1) > 0).cpu().numpy()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `base.Encoder.encode_texts`; warns of words that are not known."""
        unknown = sorted({word for text in texts for word in self.unknown_words(text)})
        if unknown:
            warnings.warn(
                f"Encoder {self.name} was never taught the words {unknown} and passes over them. It knows the poses "
                f"and words of its model card ({self.weights / 'README.md'}); for any sentence, encoder=open_clip.",
                stacklevel=2,
            )
        return super().encode_texts(texts)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a sentence that the training captions never held, in lower case."""
        tokens = self._tokenizer.encode(text)
        return [self._tokenizer.decode([token]).strip() for token in tokens if not self._taught[token]]

    def check_env(self, env: str) -> None:
        """See `base.Encoder.check_env`."""
        if env not in self.card_envs and not self._any_env:
            raise UserError(
                f"Encoder {self.name} has only seen {', '.join(self.card_envs)}, and this is '{env}': its "
                "rewards would mean nothing. Take a model trained on pictures from everywhere, encoder=open_clip "
                "encoder.pretrained=<tag>, or insist with encoder.any_env=true."
            )
