"""Settings of `fit reward=clip4mc`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Range, Share
from vlmrl.workflows.config.recipes import RecordingsRecipe, check_held_out


@dataclass(frozen=True, kw_only=True)
class VideoFitConfig(RecordingsRecipe):
    """Settings of `fit reward=clip4mc`, which starts from `weights` and plays Crafter where no dataset is named.

    Attributes:
        image_size: Height and width of the encoder's pictures in pixels; 0 leaves them as the weights have them. Only
            towers of convolutions whose features are averaged can be given another size.
        scenes: Scenes of Crafter to play without a dataset.
        windows: Parts of each recorded clip that are learned from.
        frames: Frames T of a clip.
        pooling: "avg", "attn" or "motion"; see `HeadConfig`.
        depth: Layers of each transformer of the head.
        image_epochs: Passes over the frames by the image tower, which learns what the game says of them; without the
            game, with a dataset, the tower stays as it is.
        text: Whether the text tower learns, too.
        steps: Steps of head and text tower.
        batch_size: Clips a step.
        learning_rate: Highest learning rate of head and text tower.
        image_learning_rate: Highest learning rate of the image tower.
        noise: Length of the noise that is added to a frame's embedding, whose length is 1, so that the head does not
            learn single scenes by heart.
        completion: Whether clips that show little of what their sentence is about are now and then trained towards
            another sentence (CLIP4MC 2024).
        held_out: Share of the clips that nothing is learned from.

    Raises:
        UserError: The settings contradict each other.
    """

    image_size: Natural = 64
    scenes: Count = 2000
    windows: Count = 8
    frames: Count = 16
    pooling: Literal["avg", "attn", "motion"] = "attn"
    depth: Count = 2
    image_epochs: Natural = 3
    text: bool = True
    steps: Count = 2200
    batch_size: Count = 96
    learning_rate: Positive = 2e-3
    image_learning_rate: Positive = 3e-3
    noise: Annotated[float, Range(0)] = 0.4
    completion: bool = False
    held_out: Share = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_held_out(self.held_out)
        if self.batch_size < 2:
            raise UserError(
                "fit.batch_size is 1; clips are learned from by telling them from others, so take 2 or more."
            )
        if self.weights and not Path(self.weights).is_dir():
            raise UserError(f"fit.weights: there is no folder '{self.weights}'.")
        if self.completion and self.dataset is not None:
            raise UserError(
                "fit.completion=true weighs clips by how large a thing is in them, which recordings do not say. Leave "
                "it false with a dataset."
            )
