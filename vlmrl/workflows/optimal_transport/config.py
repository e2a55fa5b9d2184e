"""Settings of `fit reward=optimal_transport`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Share


@dataclass(frozen=True)
class OptimalTransportFitConfig:
    """Settings of `fit reward=optimal_transport`.

    Attributes:
        out: Folder for `demonstrations.npz` and `figures.json`.
        dataset: Demonstrations: recorded clips in which the task is done, as it should be.
        clips: Further clips, of which some are better than others; empty aligns nothing.
        preferences: csv file with the columns better and worse, names or numbers of those clips; empty compares every
            success among them with every failure, as the recordings tell them.
        weights: Encoder: a folder of open_clip weights, or LIV's model.pt; empty takes the embedded encoder.
        camera: Camera of the datasets; empty takes the first.
        frames: Most frames kept of a clip, evenly spread.
        dim: Features that embeddings are projected to by the alignment.
        steps: Steps of alignment.
        batch_size: Comparisons a step.
        learning_rate: Of Adam.
        temperature: Difference in cost, 0 to 2, that makes one clip e times as likely as another to be preferred.
        epsilon: Weight of the plan's entropy, as a share of the mean cost.
        held_out: Share of the clips whose comparisons are only measured on.
        seed: Seed of the division and of the order of learning.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        progress: Show progress bars.
    """

    out: str
    dataset: str | None = None
    clips: str = ""
    preferences: str = ""
    weights: str = ""
    camera: str = ""
    frames: Count = 32
    dim: Count = 16
    steps: Count = 200
    batch_size: Count = 16
    learning_rate: Positive = 0.01
    temperature: Positive = 0.05
    epsilon: Positive = 0.05
    held_out: Share = 0.3
    seed: Natural = 0
    threads: int = 0
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.weights and not Path(self.weights).exists():
            raise UserError(f"fit.weights: there is nothing at '{self.weights}'.")
        if not self.dataset:
            raise UserError(
                "fit reward=optimal_transport takes one clip or some in which the task is done; name them, "
                "dataset=<folder>."
            )
        if self.preferences and not self.clips:
            raise UserError("fit.preferences compares clips; name the dataset that holds them, fit.clips=<folder>.")
        if not 0 < self.held_out < 1:
            raise UserError(f"fit.held_out is {self.held_out}; some clips must be left out and some learned from.")
