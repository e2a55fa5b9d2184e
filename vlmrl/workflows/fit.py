"""Train an encoder, or what a reward is made of, by the recipe that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmrl.registry import Registry
from vlmrl.workflows.build import resolve_device
from vlmrl.workflows.config.fit import FitConfig
from vlmrl.workflows.report import make_console, shown

# Each entry takes the recipe that `vlmrl.workflows.config.fit.RECIPES` lists under the same name, and returns a report.
FITS = Registry(
    "fit",
    {
        "clip4mc": "vlmrl.workflows.video.fit:fit",
        "failure_prompts": "vlmrl.workflows.failure_prompts.fit:fit",
        "liv": "vlmrl.workflows.liv.fit:fit",
        "mini": "vlmrl.workflows.mini.fit:fit",
        "optimal_transport": "vlmrl.workflows.optimal_transport.fit:fit",
        "perceptual": "vlmrl.workflows.perceptual:fit",
    },
)


def fit(settings: FitConfig) -> dict[str, Any]:
    """Train an encoder, or what a reward is made of.

    Args:
        settings: Which one, how and where.

    Returns:
        What the recipe reports: held-out figures, where the weights are.

    Raises:
        UserError: A setting of the recipe is wrong.
    """
    recipe = replace(settings.recipe, device=resolve_device(settings.device))
    try:
        report: dict[str, Any] = FITS.load(settings.recipe_name)(recipe)
    except KeyboardInterrupt:
        if Path(recipe.out).is_dir():
            make_console().print(
                f"What is done stays in '{shown(Path(recipe.out))}'. The same command goes on from there, with "
                f"out={shown(Path(recipe.out))} if it named no folder.",
                soft_wrap=True,
                markup=False,
            )
        raise
    return report
