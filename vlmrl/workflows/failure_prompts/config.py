"""Settings of `fit reward=failure_prompts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Range, Share


@dataclass(frozen=True)
class FailurePromptFitConfig:
    """Settings of `fit reward=failure_prompts`.

    Attributes:
        out: Folder for `prompts.npz` and `figures.json`.
        dataset: Recorded clips with sentences, some of which succeed and some of which fail.
        labels: csv file with which succeeded, see `vlmrl.workflows.audit.clips.FORM`; empty takes what recordings say.
        weights: Encoder: a folder of open_clip weights, or LIV's model.pt; empty takes the embedded encoder.
        camera: Camera of the dataset; empty takes the first.
        clusters: Ways to fail at each task.
        tokens: Learned tokens of a prompt.
        frames: Newest frames whose mean embedding stands for a clip.
        steps: Steps of learning.
        learning_rate: Of Adam.
        temperature: Divides the cosines.
        outcome_weight: Weight of telling success from failure beside telling clusters.
        held_out: Share of the clips that nothing is learned from.
        seed: Seed of the division, the clusters and the prompts.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        progress: Show progress bars.
    """

    out: str
    dataset: str | None = None
    labels: str = ""
    weights: str = ""
    camera: str = ""
    clusters: Count = 3
    tokens: Count = 4
    frames: Count = 1
    steps: Count = 150
    learning_rate: Positive = 0.02
    temperature: Positive = 0.1
    outcome_weight: Annotated[float, Range(0)] = 1.0
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
                "fit reward=failure_prompts learns from clips that succeed and clips that fail; name them, "
                "dataset=<folder>."
            )
        if not 0 < self.held_out < 1:
            raise UserError(f"fit.held_out is {self.held_out}; some clips must be left out and some learned from.")
