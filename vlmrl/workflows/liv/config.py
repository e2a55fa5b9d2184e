"""Settings of `fit reward=liv`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Share
from vlmrl.workflows.config.recipes import RecordingsRecipe, check_held_out


@dataclass(frozen=True, kw_only=True)
class LivFitConfig(RecordingsRecipe):
    """Settings of `fit reward=liv`, which starts from `weights` and renders clips where no dataset is named.

    Attributes:
        objective: "liv" or "triplet".
        clips: Number of clips to render without a dataset.
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

    Raises:
        UserError: The settings contradict each other.
    """

    objective: Literal["liv", "triplet"] = "liv"
    clips: Count = 60
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma >= 1:
            raise UserError(f"fit.gamma is {self.gamma}; it must be below 1: values are cosines divided by 1 - gamma.")
        if not 0 < self.crop <= 1:
            raise UserError(f"fit.crop is {self.crop}; it must be above 0, at most 1 (no cropping).")
        check_held_out(self.held_out)
        if self.batch_size < 2:
            raise UserError(
                "fit.batch_size is 1; clips are learned from by telling them from others, so take 2 or more."
            )
