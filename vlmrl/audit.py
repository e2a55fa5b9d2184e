"""Say whether a reward is any good: `python -m vlmrl.audit env=humanoid reward=clip`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from vlmrl.commands import given_keys, run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.audit import AuditConfig

EXAMPLES = """
Is this reward any good? Scores labelled states of a task, or recorded clips, before anything is
trained on it.

  python -m vlmrl.audit env=humanoid reward=clip
  python -m vlmrl.audit env=humanoid task=standing prompts=['a robot on its feet'] alphas=[0,0.5,1]
  python -m vlmrl.audit env=cartpole encoders=[mini,runs/my_weights,ViT-B-32/openai]
  python -m vlmrl.audit env=gym frames=my_frames goal='an open drawer' encoder=open_clip
  python -m vlmrl.audit dataset=my_clips labels=outcomes.csv goal='an open drawer' encoder=open_clip
  python -m vlmrl.audit sequences=mountaincar reward=temporal_alignment
  python -m vlmrl.audit env=crafter reward=clip4mc
"""


def main() -> None:
    """Run the command."""
    OmegaConf.register_new_resolver("audited", _audited, replace=True)
    given = given_keys(sys.argv[1:])
    run_command("audit", EXAMPLES, lambda values: _settings(values, given), _work)


def _audited(sequences: str | None, dataset: str | None, env: str, task: str) -> str:
    """Name what is audited, for the folder of the audit: films and recordings are of no environment of the command."""
    if sequences is not None:
        return f"{sequences}-sequences"
    return PurePath(dataset).name or "dataset" if dataset is not None else f"{env}-{task}"


def _settings(values: Mapping[str, Any], given: Iterable[str]) -> AuditConfig:
    from vlmrl.workflows.config.audit import audit_settings

    return audit_settings(values, given)


def _work(settings: AuditConfig) -> None:
    if settings.sequences is not None:
        from vlmrl.workflows.audit.sequences.run import audit_sequences

        audit_sequences(settings)
        return
    if settings.dataset is not None:
        from vlmrl.workflows.audit.recordings import audit_recordings

        audit_recordings(settings)
        return
    from vlmrl.workflows.audit.run import audit

    audit(settings)


if __name__ == "__main__":
    main()
