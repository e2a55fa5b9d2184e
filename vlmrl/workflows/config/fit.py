"""Settings of `vlmrl.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmrl.errors import UserError
from vlmrl.registry import Registry
from vlmrl.typed import Natural, typed
from vlmrl.workflows.config.scene import (
    check_device,
)

# Each entry is a config dataclass with fields out, seed, device, threads and progress beside its own.
RECIPES = Registry("recipe", {"mini": "vlmrl.workflows.mini.fit:MiniFitConfig"})


@dataclass(frozen=True)
class FitConfig:
    """Settings of `vlmrl.fit`; `configs/fit.yaml` and `configs/fit/<encoder>.yaml` say what each key means.

    `run_dir` is the run's own folder here, and `fit` holds the keys of the encoder's own recipe.
    """

    encoder: str
    fit: dict[str, Any]
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    out: str | None
    run_dir: str

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.encoder not in RECIPES:
            raise UserError(f"Encoder '{self.encoder}' has no training recipe. Available: {', '.join(RECIPES)}.")
        self.recipe  # noqa: B018  (raises what is wrong with it)

    @property
    def recipe(self) -> Any:
        """The recipe's own settings, a dataclass of `RECIPES`.

        Raises:
            UserError: One of them is wrong.
        """
        shared = {
            "out": self.out or self.run_dir,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "progress": self.progress_bar,
        }
        return typed(RECIPES.load(self.encoder), {**self.fit, **shared}, "fit")


def fit_settings(values: Mapping[str, Any]) -> FitConfig:
    """Check the settings of `vlmrl.fit`.

    Raises:
        UserError: The encoder has no recipe, or a key, type or value is wrong.
    """
    recipe = {key: value for key, value in values.get("fit", {}).items() if key != "name"}
    return typed(FitConfig, {**values, "encoder": values["encoder"]["name"], "fit": recipe})
