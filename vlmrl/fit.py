"""Train an encoder, or what a reward is made of: `python -m vlmrl.fit encoder=mini`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.fit import FitConfig

EXAMPLES = """
Train an encoder of the suite's own, or what a reward is made of.

  python -m vlmrl.fit encoder=mini
  python -m vlmrl.fit encoder=mini out=weights seed=1
  python -m vlmrl.fit encoder=mini fit.frames=4000 fit.epochs=2
  python -m vlmrl.fit reward=liv
  python -m vlmrl.fit reward=liv dataset=my_clips fit.objective=triplet out=values
  python -m vlmrl.fit reward=perceptual dataset=demonstrations out=drawer
  python -m vlmrl.fit reward=clip4mc out=crafter
  python -m vlmrl.fit reward=clip4mc dataset=my_clips fit.weights=clip_weights fit.image_size=0 fit.text=false out=head
"""


def main() -> None:
    """Run the command."""
    sys.argv[1:] = with_recipe(sys.argv[1:])
    run_command("fit", EXAMPLES, _settings, _work)


def with_recipe(arguments: list[str]) -> list[str]:
    """Add the recipe of a reward that is named: Hydra takes a group's choice from one other group only, the encoder."""
    rewards = [argument.partition("=")[2] for argument in arguments if argument.startswith("reward=")]
    return [*arguments, *(f"fit={name}" for name in rewards[-1:] if name != "null")]


def _settings(values: Mapping[str, Any]) -> FitConfig:
    from vlmrl.workflows.config.fit import fit_settings

    return fit_settings(values)


def _work(settings: FitConfig) -> None:
    from vlmrl.workflows.fit import fit

    fit(settings)


if __name__ == "__main__":
    main()
