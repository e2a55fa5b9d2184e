"""Settings of `fit reward=liv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Share


@dataclass(frozen=True)
class LivFitConfig:
    """Settings of `fit reward=liv`.

    Attributes:
        out: Folder for weights and figures. A run that was interrupted goes on where it was, if it is started again
            with the same settings and folder.
        dataset: Recorded clips with sentences; None renders some.
        seed: Seed of everything: clips, order, crops.
        objective: "liv" or "triplet".
        weights: Where to start: a folder of open_clip weights, or LIV's released model.pt; empty takes the embedded
            encoder.
        clips: Number of clips to render without a dataset.
        camera: Camera of the dataset; empty takes its first.
        steps: Steps of training.
        batch_size: Clips a step; five frames of each.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        gamma: Discount of the values.
        negatives: How often frames are shuffled against goals in a step, as in the release's pre-training.
        language_weight: Weight of values for sentences; the release's pre-training has 1, its fine-tuning 0.
        subclips: Whether a random part of each clip is learned from, as the release does with long films, or all of it.
        crop: Least share of a frame's area that random crops keep; 1 crops nothing.
        margin: Of the triplet loss, in cosine.
        held_out: Share of the clips that nothing is learned from.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        progress: Show progress bars.
    """

    out: str
    dataset: str | None = None
    seed: int = 0
    objective: Literal["liv", "triplet"] = "liv"
    weights: str = ""
    clips: Count = 60
    camera: str = ""
    steps: Count = 40
    batch_size: Count = 6
    learning_rate: Positive = 3e-4
    weight_decay: float = 1e-3
    gamma: Share = 0.98
    negatives: Natural = 0
    language_weight: float = 0.0
    subclips: bool = False
    crop: Share = 1.0
    margin: Positive = 0.1
    held_out: Share = 0.3
    threads: int = 0
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.gamma >= 1:
            raise UserError(f"fit.gamma is {self.gamma}; it must be below 1: values are cosines divided by 1 - gamma.")
        if not 0 < self.crop <= 1:
            raise UserError(f"fit.crop is {self.crop}; it must be above 0, at most 1 (no cropping).")
        if not 0 < self.held_out < 1:
            raise UserError(f"fit.held_out is {self.held_out}; some clips must be left out and some learned from.")
        if self.batch_size < 2:
            raise UserError(
                "fit.batch_size is 1; clips are learned from by telling them from others, so take 2 or more."
            )
        if self.weights and not Path(self.weights).exists():
            raise UserError(f"fit.weights: there is nothing at '{self.weights}'.")
