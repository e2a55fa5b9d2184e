"""Settings of `fit reward=optimal_transport`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmrl.errors import UserError
from vlmrl.typed import Count, Positive, Share
from vlmrl.workflows.config.recipes import RecordingsRecipe, check_held_out


@dataclass(frozen=True, kw_only=True)
class OptimalTransportFitConfig(RecordingsRecipe):
    """Settings of `fit reward=optimal_transport`, whose dataset shows how the task is done.

    Attributes:
        clips: Further clips, of which some are better than others; empty aligns nothing.
        preferences: csv file with the columns better and worse, names or numbers of those clips; empty compares every
            success among them with every failure, as the recordings tell them.
        frames: Most frames kept of a clip, evenly spread.
        dim: Features that embeddings are projected to by the alignment.
        steps: Steps of alignment.
        batch_size: Comparisons a step.
        learning_rate: Of Adam.
        temperature: Difference in cost, 0 to 2, that makes one clip e times as likely as another to be preferred.
        epsilon: Weight of the plan's entropy, as a share of the mean cost.
        held_out: Share of the clips whose comparisons are only measured on.

    Raises:
        UserError: The settings contradict each other.
    """

    clips: str = ""
    preferences: str = ""
    frames: Count = 32
    dim: Count = 16
    steps: Count = 200
    batch_size: Count = 16
    learning_rate: Positive = 0.01
    temperature: Positive = 0.05
    epsilon: Positive = 0.05
    held_out: Share = 0.3

    wants: ClassVar[str] = "fit reward=optimal_transport takes one clip or some in which the task is done"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preferences and not self.clips:
            raise UserError("fit.preferences compares clips; name the dataset that holds them, fit.clips=<folder>.")
        check_held_out(self.held_out)
