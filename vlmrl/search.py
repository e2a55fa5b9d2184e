"""Improve a reward program: `python -m vlmrl.search env=hopper task=flip reward=text2reward`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import given_keys, run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.search import SearchConfig

EXAMPLES = """
Improve a reward program: several are written, the better ones trained with, and the writer told what came of the best.

  python -m vlmrl.search env=hopper task=flip reward.completions=judge reward.temperature=1 judge=openai judge.model=...
  python -m vlmrl.search env=cartpole samples=1 rounds=1 total_timesteps=50000
  python -m vlmrl.search env=humanoid goal='a humanoid robot waving' feedback=clips ...   # you choose, at a page
  python -m vlmrl.search resume=runs/searches/<search>/<time>
  python -m vlmrl.search resume=runs/searches/<search>/<time> judge.max_calls=200   # its budget was spent
"""


def main() -> None:
    """Run the command."""
    given = given_keys(sys.argv[1:])
    if "resume" in given:
        # The judges are those of the search, whose keys the yaml files of this command do not list.
        sys.argv[1:] = [f"++{arg}" if arg.startswith(("judge.", "rater.")) else arg for arg in sys.argv[1:]]
        # Hydra's own notes on this command would overwrite those of the search.
        sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=."]
    run_command("search", EXAMPLES, lambda values: _settings(values, given), _work)


def _settings(values: Mapping[str, Any], given: Iterable[str]) -> SearchConfig:
    from vlmrl.workflows.config.search import resumed_search_settings, search_settings

    if not values["resume"]:
        return search_settings(values)
    from vlmrl.workflows.run_folder import find

    folder = find(str(values["resume"]), make="vlmrl.search env=cartpole samples=1 rounds=1")
    return resumed_search_settings({**values, "run_dir": str(folder.path)}, folder.read_config("search"), given)


def _work(settings: SearchConfig) -> None:
    from vlmrl.workflows.search.run import search

    search(settings)


if __name__ == "__main__":
    main()
