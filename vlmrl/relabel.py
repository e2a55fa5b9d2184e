"""Give recorded data rewards in words: `python -m vlmrl.relabel dataset=cartpole/random-v0 reward=clip out=<id>`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import given_keys, run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.relabel import RelabelConfig

EXAMPLES = """
Give recorded data rewards: a new dataset with them, or a table of them. Killed and started again, it goes on.

  python -m vlmrl.relabel dataset=cartpole/random-v0 reward=clip out=cartpole/random-clip-v0
  python -m vlmrl.relabel dataset=cartpole/random-v0 reward=ground_truth out=cartpole/random-truth-v0
  python -m vlmrl.relabel dataset=my_clips goal='a robot opening a drawer' encoder=open_clip out=./data/drawer-v0
  python -m vlmrl.relabel dataset=my_lerobot reward=clip encoder=open_clip out=my_lerobot/clip_progress.parquet
  python -m vlmrl.relabel dataset=my_clips goal='a tidy table' encoder=open_clip out=rewards.csv on_error=skip
"""


def main() -> None:
    """Run the command."""
    given = given_keys(sys.argv[1:])
    run_command("relabel", EXAMPLES, lambda values: _settings(values, given), _work)


def _settings(values: Mapping[str, Any], given: Iterable[str]) -> RelabelConfig:
    from vlmrl.workflows.config.relabel import relabel_settings

    return relabel_settings(values, given)


def _work(settings: RelabelConfig) -> None:
    from vlmrl.workflows.relabel.run import relabel

    relabel(settings)


if __name__ == "__main__":
    main()
