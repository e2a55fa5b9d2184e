"""Train an encoder: `python -m vlmrl.fit encoder=mini`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.fit import FitConfig

EXAMPLES = """
Train an encoder of the suite's own.

  python -m vlmrl.fit encoder=mini
  python -m vlmrl.fit encoder=mini out=weights seed=1
  python -m vlmrl.fit encoder=mini fit.frames=4000 fit.epochs=2
"""


def main() -> None:
    """Run the command."""
    run_command("fit", EXAMPLES, _settings, _work)


def _settings(values: Mapping[str, Any]) -> FitConfig:
    from vlmrl.workflows.config.fit import fit_settings

    return fit_settings(values)


def _work(settings: FitConfig) -> None:
    from vlmrl.workflows.fit import fit

    fit(settings)


if __name__ == "__main__":
    main()
