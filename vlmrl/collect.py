"""Record episodes: `python -m vlmrl.collect run=last out=cartpole/mine-v0`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import given_keys, run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.collect import CollectConfig

EXAMPLES = """
Record episodes of policies: observations, actions, the truth, simulator state, pictures.

  python -m vlmrl.collect run=last out=cartpole/mine-v0
  python -m vlmrl.collect policy=random env=cartpole out=cartpole/random-v0 episodes=200
  python -m vlmrl.collect policy=[random,reference] random_actions=0.3 env=humanoid out=humanoid/mixed-v0
  python -m vlmrl.collect policy=random env=hopper out=./data/hopper format=lerobot
  python -m vlmrl.collect policy=reference env=humanoid env.camera=[front,side] out=./data/clips format=clips
"""


def main() -> None:
    """Run the command."""
    given = given_keys(sys.argv[1:])
    run_command("collect", EXAMPLES, lambda values: _settings(values, given), _work)


def _settings(values: Mapping[str, Any], given: Iterable[str]) -> CollectConfig:
    from vlmrl.workflows.config.collect import collect_settings

    return collect_settings(values, given)


def _work(settings: CollectConfig) -> None:
    from vlmrl.workflows.collect import collect

    collect(settings)


if __name__ == "__main__":
    main()
