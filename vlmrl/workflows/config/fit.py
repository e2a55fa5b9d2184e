"""Settings of `vlmrl.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmrl.errors import UserError
from vlmrl.registry import Registry
from vlmrl.typed import Natural, typed
from vlmrl.workflows.config.recipes import RecordingsRecipe
from vlmrl.workflows.config.scene import check_device

# Each entry is a `Recipe`, or a `RecordingsRecipe` where it can learn from recordings.
RECIPES = Registry(
    "recipe",
    {
        "clip4mc": "vlmrl.workflows.video.config:VideoFitConfig",
        "failure_prompts": "vlmrl.workflows.failure_prompts.config:FailurePromptFitConfig",
        "liv": "vlmrl.workflows.liv.config:LivFitConfig",
        "mini": "vlmrl.workflows.mini.fit:MiniFitConfig",
        "optimal_transport": "vlmrl.workflows.optimal_transport.config:OptimalTransportFitConfig",
        "perceptual": "vlmrl.workflows.perceptual:PerceptualFitConfig",
    },
)


@dataclass(frozen=True)
class FitConfig:
    """Settings of `vlmrl.fit`; `configs/fit.yaml` and `configs/fit/<recipe>.yaml` say what each key means.

    `run_dir` is the run's own folder here, and `fit` holds the keys of the recipe. `recipe_name` is the reward's name
    where one is named, else the encoder's.

    Raises:
        UserError: The settings contradict each other.
    """

    recipe_name: str
    fit: dict[str, Any]
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    out: str | None
    run_dir: str
    dataset: str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.recipe_name not in RECIPES:
            raise UserError(f"'{self.recipe_name}' has no training recipe. Available: {', '.join(RECIPES)}.")
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
        recipe = RECIPES.load(self.recipe_name)
        if issubclass(recipe, RecordingsRecipe):
            shared["dataset"] = self.dataset
        elif self.dataset is not None:
            raise UserError(f"dataset: fit of '{self.recipe_name}' draws its own frames; leave it out.")
        return typed(recipe, {**self.fit, **shared}, "fit")


def fit_settings(values: Mapping[str, Any]) -> FitConfig:
    """Check the settings of `vlmrl.fit`.

    Raises:
        UserError: The encoder has no recipe, or a key, type or value is wrong.
    """
    recipe = {key: value for key, value in values.get("fit", {}).items() if key != "name"}
    own = {key: value for key, value in values.items() if key not in ("encoder", "reward", "fit")}
    name = (values.get("reward") or values["encoder"])["name"]
    return typed(FitConfig, {**own, "recipe_name": name, "fit": recipe})
