"""The embedded video-text model: an encoder of Crafter's pictures and of sentences about it, with a head for clips.

It is a small open_clip model like the embedded encoder, and a stand-in like it: made by the suite, from the game's own
state, so that `env=crafter reward=clip4mc` runs on a machine without weights or a network. What it was trained on and
how well it does is in the model card beside its weights (`crafter_weights/README.md`); the workflow that trains it is
`vlmrl.workflows.video`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmrl.encoders.mini import MiniConfig, MiniEncoder

WEIGHTS = Path(__file__).parent / "crafter_weights"


@dataclass(frozen=True)
class CrafterConfig(MiniConfig):
    """Settings of `encoder=crafter`, which mean what they mean for `encoder=mini`.

    `path` is a folder that `vlmrl.fit reward=clip4mc` wrote; empty takes the embedded one.
    """

    def build(self, device: str) -> CrafterEncoder:
        """Load the encoder onto a torch device.

        Raises:
            UserError: `path` holds no such model.
        """
        return CrafterEncoder(self, device)


class CrafterEncoder(MiniEncoder):
    """The embedded encoder for Crafter; see this module."""

    kind = "crafter"
    weights = WEIGHTS
    card_envs = ("crafter",)
