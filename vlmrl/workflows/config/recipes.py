"""What the recipes of `vlmrl.fit` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmrl.errors import UserError
from vlmrl.typed import Natural


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of every recipe, which `configs/fit.yaml` has.

    Attributes:
        out: Folder for what is learned and for `figures.json`. A run that was interrupted and kept anything goes on
            where it was, if it is started again with the same settings and folder.
        seed: Seed of everything that is drawn.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        progress: Show progress bars.
    """

    out: str
    seed: Natural = 0
    threads: Natural = 0
    device: str = "cpu"
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class RecordingsRecipe(Recipe):
    """Settings of a recipe that can learn from recorded clips, or must.

    Attributes:
        dataset: Recorded clips; None where none is named.
        weights: Encoder: a folder of open_clip weights, or LIV's model.pt; empty takes the embedded encoder.
        camera: Camera of the dataset; empty takes its first.
        wants: What the clips must be, where the recipe cannot do without them; said to whoever names none.

    Raises:
        UserError: There are no such weights, or a dataset is missing.
    """

    dataset: str | None = None
    weights: str = ""
    camera: str = ""

    wants: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.weights and not Path(self.weights).exists():
            raise UserError(f"fit.weights: there is nothing at '{self.weights}'.")
        if self.wants and not self.dataset:
            raise UserError(f"{self.wants}; name them, dataset=<folder>.")


def check_held_out(share: float) -> None:
    """See that clips are left to learn from and to measure on.

    Raises:
        UserError: All or none are held out.
    """
    if not 0 < share < 1:
        raise UserError(f"fit.held_out is {share}; some clips must be left out and some learned from.")
