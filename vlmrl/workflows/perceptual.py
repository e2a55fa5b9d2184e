"""The whole of `fit reward=perceptual`: steps of a task, found in a few demonstrations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from vlmrl.errors import UserError
from vlmrl.typed import Count
from vlmrl.workflows.config.recipes import RecordingsRecipe


@dataclass(frozen=True, kw_only=True)
class PerceptualFitConfig(RecordingsRecipe):
    """Settings of `fit reward=perceptual`, which draws nothing: `seed` means nothing here.

    Attributes:
        steps: Number of steps after the beginning.
        features: Features that each step keeps.
    """

    steps: Count = 2
    features: Count = 32

    wants: ClassVar[str] = "fit reward=perceptual learns from a few clips in which the task is done"


def fit(config: PerceptualFitConfig) -> dict[str, Any]:
    """Find the steps of a task.

    Args:
        config: What to do and where to put it.

    Returns:
        `borders` (of each demonstration, frames), `features` (chosen, of each step) and `config`; also written to
        `<out>/figures.json`.

    Raises:
        UserError: A demonstration cannot be read or is too short.
    """
    import torch

    from vlmrl.reward_models.perceptual import Steps, split_steps
    from vlmrl.workflows.embedded_clips import embedded_clips, frames_of
    from vlmrl.workflows.liv.train import base_config
    from vlmrl.workflows.report import make_console, shown

    if config.threads:
        torch.set_num_threads(config.threads)
    assert config.dataset is not None
    encoder, clips = embedded_clips(
        config.dataset, base_config(config.weights), config.camera, config.device, progress=config.progress
    )
    if config.features > encoder.dim:
        raise UserError(f"fit.features is {config.features}; the encoder {encoder.name} has {encoder.dim}.")
    demonstrations = [frames_of(clip) for clip in clips]
    found = Steps.found_in(demonstrations, config.steps, config.features, encoder.fingerprint)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    found.save(out / "steps.npz")
    report: dict[str, Any] = {
        "borders": [split_steps(frames, config.steps + 1) for frames in demonstrations],
        "features": found.chosen.tolist(),
        "config": asdict(config),
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console = make_console()
    for clip, borders in zip(clips, report["borders"], strict=True):
        console.print(f"clip {clip.name}: {len(clip)} frames, steps begin at {borders}", highlight=False)
    console.print(f"steps: {shown(out / 'steps.npz')}  (reward=perceptual reward.steps=<this file>)", soft_wrap=True)
    return report
