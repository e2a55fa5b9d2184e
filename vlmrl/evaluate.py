"""Measure policies and say which is better: `python -m vlmrl.evaluate runs=last`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmrl.commands import compose, for_hydra, given_keys, plain, run_command
from vlmrl.errors import UserError

if TYPE_CHECKING:
    from vlmrl.workflows.config.evaluate import EvaluateConfig
    from vlmrl.workflows.rollouts import Episodes

EXAMPLES = """
Measure trained policies, from runs and from elsewhere, side by side: success and rewards with intervals, and which of
them is better. Or read the outcomes of trials that were run elsewhere, on real robots above all.

  python -m vlmrl.evaluate runs=last
  python -m vlmrl.evaluate runs=[runs/humanoid-kneeling-clip-sac/<time>,runs/humanoid-kneeling-ground_truth-sac/<time>]
  python -m vlmrl.evaluate runs=last policy=[random,zero] episodes=200 video=true
  python -m vlmrl.evaluate policy=[ppo.zip,my_module:act] env=cartpole reward=clip
  python -m vlmrl.evaluate policy=reference env=humanoid task=kneeling video=true
  python -m vlmrl.evaluate trials=[before.csv,after.csv] margin=0.05
  python -m vlmrl.evaluate trials=trials.csv sequential=true
"""


def main() -> None:
    """Run the command."""
    given = given_keys(sys.argv[1:])
    run_command("evaluate", EXAMPLES, lambda values: _settings(values, given), _work)


def evaluate(policies: Mapping[str, Any], *overrides: str) -> dict[str, Episodes]:
    """Measure policies of a program of your own as the command does: same environments, rewards, table and figures.

    Example:
        >>> evaluate({"always left": lambda observation: 0}, "env=cartpole", "episodes=20")  # doctest: +SKIP

    Args:
        policies: {name: policy}: a function from one observation to one action, or an object with a method `predict`
            as of Stable-Baselines3.
        *overrides: What the command would be given, such as "env=cartpole", "runs=last", "video=true".

    Returns:
        {name, or run: its episodes}.

    Raises:
        UserError: What the command would say in one line.
    """
    from vlmrl.workflows.evaluate import evaluate as workflow

    if "trials" in given_keys(overrides):
        raise UserError(
            "trials= are outcomes that were written down; policies of a program are measured. Leave it out."
        )
    values = plain(compose("evaluate", for_hydra(overrides)))
    named = values["policy"] or []
    values["policy"] = [*([named] if isinstance(named, str) else named), *policies]
    values["run_dir"] = str(Path(values["run_dir"], "evaluate", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}").absolute())
    return workflow(_settings(values, given_keys(overrides)), policies)


def _settings(values: Mapping[str, Any], given: Iterable[str]) -> EvaluateConfig:
    from vlmrl.workflows.config.evaluate import evaluate_settings

    return evaluate_settings(values, given)


def _work(settings: EvaluateConfig) -> None:
    if settings.trials:
        from vlmrl.workflows.evaluate_trials import evaluate_trials

        evaluate_trials(settings)
        return
    from vlmrl.workflows.evaluate import evaluate as workflow

    workflow(settings)


if __name__ == "__main__":
    main()
