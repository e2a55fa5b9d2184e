"""Train an agent on a reward in words: `python -m vlmrl.train env=humanoid reward=clip`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import given_keys, run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.train import TrainConfig

EXAMPLES = """
Train an agent on a reward in words.

  python -m vlmrl.train env=humanoid reward=clip
  python -m vlmrl.train env=humanoid goal='a humanoid robot doing the splits' baseline='a humanoid robot'
  python -m vlmrl.train env=cartpole reward=ground_truth agent=dqn -m seed=0,1,2
  python -m vlmrl.train env=none agent=iql dataset=<recordings with rewards>
  python -m vlmrl.train env=cartpole agent=dqn reward=vlm_preference judge=encoder
  python -m vlmrl.train env=nethack reward=oni agent=appo n_envs=64
  python -m vlmrl.train resume=last total_timesteps=400000
"""


def main() -> None:
    """Run the command."""
    given = given_keys(sys.argv[1:])
    if "resume" in given:
        # Hydra's own notes on this command would overwrite those of the run.
        sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=."]
    run_command("train", EXAMPLES, lambda values: _settings(values, given), _work)


def _settings(values: Mapping[str, Any], given: list[str]) -> TrainConfig:
    from vlmrl.workflows.config.train import resumed_settings, train_settings

    if not values["resume"]:
        return train_settings(values)
    from vlmrl.workflows.run_folder import find

    folder = find(str(values["resume"]))
    return resumed_settings({**values, "run_dir": str(folder.path)}, folder.read_config(), given)


def _work(settings: TrainConfig) -> None:
    if settings.offline:
        from vlmrl.workflows.train_offline import train_offline

        train_offline(settings)
        return
    if settings.rewards_at_collection:
        from vlmrl.agents.appo.watchdog import TrainingFailed
        from vlmrl.workflows.train_appo import train_appo

        try:
            train_appo(settings)
        except TrainingFailed as error:
            print(f"Error: {error}", file=sys.stderr)
            raise SystemExit(1) from error
        return
    from vlmrl.workflows.train import train

    train(settings)


if __name__ == "__main__":
    main()
