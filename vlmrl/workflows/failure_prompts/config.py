"""Settings of `fit reward=failure_prompts`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vlmrl.typed import Count, Positive, Range, Share
from vlmrl.workflows.config.recipes import RecordingsRecipe, check_held_out


@dataclass(frozen=True, kw_only=True)
class FailurePromptFitConfig(RecordingsRecipe):
    """Settings of `fit reward=failure_prompts`, which learns from clips that succeed and clips that fail.

    Attributes:
        labels: csv file with which succeeded, see `vlmrl.workflows.audit.clips.FORM`; empty takes what recordings say.
        clusters: Ways to fail at each task.
        tokens: Learned tokens of a prompt.
        frames: Newest frames whose mean embedding stands for a clip.
        steps: Steps of learning.
        learning_rate: Of Adam.
        temperature: Divides the cosines.
        outcome_weight: Weight of telling success from failure beside telling clusters.
        held_out: Share of the clips that nothing is learned from.

    Raises:
        UserError: The settings contradict each other.
    """

    labels: str = ""
    clusters: Count = 3
    tokens: Count = 4
    frames: Count = 1
    steps: Count = 150
    learning_rate: Positive = 0.02
    temperature: Positive = 0.1
    outcome_weight: Annotated[float, Range(0)] = 1.0
    held_out: Share = 0.3

    wants: ClassVar[str] = "fit reward=failure_prompts learns from clips that succeed and clips that fail"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_held_out(self.held_out)
