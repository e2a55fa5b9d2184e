"""The whole of `fit reward=perceptual`: steps of a task, found in a few demonstrations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.typed import Count


@dataclass(frozen=True)
class PerceptualFitConfig:
    """Settings of `fit reward=perceptual`.

    Attributes:
        out: Folder for `steps.npz` and `figures.json`.
        dataset: Demonstrations: recorded clips in which the task is done.
        weights: Encoder: a folder of open_clip weights, or LIV's model.pt; empty takes the embedded encoder.
        camera: Camera of the dataset; empty takes its first.
        steps: Number of steps after the beginning.
        features: Features that each step keeps.
        seed: Means nothing here: nothing is drawn.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        progress: Show progress bars.
    """

    out: str
    dataset: str | None = None
    weights: str = ""
    camera: str = ""
    steps: Count = 2
    features: Count = 32
    seed: int = 0
    threads: int = 0
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.weights and not Path(self.weights).exists():
            raise UserError(f"fit.weights: there is nothing at '{self.weights}'.")
        if not self.dataset:
            raise UserError(
                "fit reward=perceptual learns from a few clips in which the task is done; name them, dataset=<folder>."
            )


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
    from tqdm import tqdm

    from vlmrl.datasets.base import CorruptEpisode, open_dataset
    from vlmrl.reward_models.perceptual import Steps, split_steps
    from vlmrl.workflows.liv.train import base_encoder
    from vlmrl.workflows.report import make_console, shown

    if config.threads:
        torch.set_num_threads(config.threads)
    assert config.dataset is not None
    dataset = open_dataset(config.dataset)
    encoder = base_encoder(config.weights, config.device)
    if config.features > encoder.dim:
        raise UserError(f"fit.features is {config.features}; the encoder {encoder.name} has {encoder.dim}.")
    demonstrations = []
    for i in tqdm(range(len(dataset)), desc="reading clips", unit="clip", disable=not config.progress):
        try:
            episode = dataset.episode(i)
            episode.check()
            camera = config.camera or next(iter(episode.frames), "")
            if camera not in episode.frames:
                there = ", ".join(episode.frames) or "none"
                raise UserError(f"dataset={config.dataset}: clip {i} has no camera '{camera}' (it has: {there}).")
            demonstrations.append(
                np.concatenate([encoder.encode_images(chunk) for chunk in episode.frames[camera].chunks(64)])
            )
        except CorruptEpisode as error:
            raise UserError(f"dataset={config.dataset}: clip {i} {error}.") from error
    if not demonstrations:
        raise UserError(f"dataset={config.dataset} holds no clips.")
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
    for i, (borders, frames) in enumerate(zip(report["borders"], demonstrations, strict=True)):
        console.print(f"clip {i}: {len(frames)} frames, steps begin at {borders}", highlight=False)
    console.print(f"steps: {shown(out / 'steps.npz')}  (reward=perceptual reward.steps=<this file>)", soft_wrap=True)
    return report
