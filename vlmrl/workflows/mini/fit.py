"""The whole of `fit encoder=mini`: frames, training, weights, held-out figures."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmrl.errors import UserError

if TYPE_CHECKING:
    from vlmrl.workflows.mini.frames import Frames

# What is kept while a run is under way, so that an interrupted one goes on; removed at its end.
FRAMES, IMAGES = "frames.npz", "images.pt"


@dataclass(frozen=True)
class MiniFitConfig:
    """Settings of `fit encoder=mini`.

    Attributes:
        out: Folder for weights and figures. A run that was interrupted goes on where it was, if it is started again
            with the same settings and folder.
        seed: Seed of everything: frames, weights, order. Held-out frames come from other seeds.
        frames: Number of training frames.
        held_out: Number of held-out frames drawn like the training frames.
        policy_frames: Number of held-out frames from episodes of a random policy, seen as the task sees them.
        states: Archives of states that agents reached, as `vlmrl.workflows.mini.states` writes them; of their training
            part, `state_frames` frames are rendered and added, and of their held-out part, some are measured.
        state_frames: Number of frames from `states`.
        tower: Name of a timm architecture for the pictures.
        epochs: Passes over the frames by the image tower.
        text_steps: Steps of the text tower.
        batch_size: Frames a step of the image tower.
        learning_rate: Highest learning rate of the image tower.
        threads: Threads of torch; 0 leaves them as they are.
        device: "cpu", "cuda" or "cuda:<n>".
        bf16: Compute the image tower's products in bfloat16: twice as fast where the processor can, slower where it
            cannot.
        progress: Show progress bars.
    """

    out: str
    seed: int = 0
    frames: int = 16_000
    held_out: int = 2_500
    policy_frames: int = 800
    states: tuple[str, ...] = ()
    state_frames: int = 8_000
    tower: str = "test_resnet"
    epochs: int = 8
    text_steps: int = 1_500
    batch_size: int = 64
    learning_rate: float = 4e-3
    threads: int = 0
    device: str = "cpu"
    bf16: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("frames", "held_out", "policy_frames", "state_frames", "epochs", "text_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"fit encoder=mini: {name} is {getattr(self, name)}; it must be at least 1.")
        if not self.learning_rate > 0:
            raise UserError(f"fit encoder=mini: learning_rate is {self.learning_rate}; it must be positive.")


def fit(config: MiniFitConfig) -> dict[str, Any]:
    """Train an embedded encoder and measure it.

    Args:
        config: What to do and where to put it.

    Returns:
        The figures that `measure` gives, with `config`, `weights` (path), `megabytes`, `seconds` (of this call) and
        `epochs` (each with its mean losses). They are also printed and written to `<out>/figures.json`.
        `encoder=mini encoder.path=<out>` uses the weights.

    Raises:
        UserError: A setting is out of range, a file is missing, frames cannot be rendered, or `out` holds an
            interrupted run with other settings.
    """
    import torch

    from vlmrl.encoders.mini import MiniConfig
    from vlmrl.workflows.mini import train
    from vlmrl.workflows.mini.measure import held_out_frames, measure, summary

    start = time.perf_counter()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.tower not in train.towers():
        raise UserError(f"fit encoder=mini: timm has no architecture '{config.tower}'.")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    _same_run(config, out / "run.json")
    frames = _training_frames(config, out / FRAMES)

    model = train.new_model(config.tower, config.seed)
    stage = train.ImageStage(
        model,
        frames,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=config.device,
        bf16=config.bf16,
    )
    if (out / IMAGES).exists():
        stage.load(out / IMAGES)
    while stage.epoch < config.epochs:
        means = stage.run_epoch(config.progress)
        print(
            f"epoch {means['epoch']}: divergence {means['divergence']:.4f}, "
            f"geometry error {means['geometry_error']:.3f}",
            flush=True,
        )
        stage.save(out / IMAGES)
    embeddings = train.embed(model, frames.pixels, config.device)
    train.train_texts(
        model,
        frames,
        embeddings,
        steps=config.text_steps,
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    weights = train.save_model(model, out)

    sets = held_out_frames(config.held_out, config.policy_frames, config.seed, config.states, config.progress)
    figures = measure(MiniConfig(path=str(out)).build(config.device), sets)
    report = {
        **figures,
        "config": asdict(config),
        "weights": str(weights),
        "megabytes": weights.stat().st_size / 1e6,
        "seconds": time.perf_counter() - start,
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(summary(report))
    for name in (FRAMES, IMAGES, "run.json"):
        (out / name).unlink(missing_ok=True)
    return report


def _training_frames(config: MiniFitConfig, path: Path) -> Frames:
    """Render the training frames, or read those of an interrupted run."""
    import numpy as np

    from vlmrl.workflows.mini.frames import Frames, render_frames
    from vlmrl.workflows.mini.states import load_states

    if path.exists():
        return Frames.load(path)
    visited = [load_states(archive, "train") for archive in config.states]
    frames = render_frames(config.frames, config.seed, progress=config.progress)
    if visited:
        # Each archive gives as many frames as the others: a later round finds fewer new things, which count as much.
        share = -(-config.state_frames // len(visited))
        drawn = np.concatenate(
            [states[np.random.default_rng(config.seed).integers(len(states), size=share)] for states in visited]
        )
        frames = frames + render_frames(
            config.state_frames, config.seed + 1, cartpole=0, visited=drawn, progress=config.progress
        )
    unfinished = path.with_suffix(".new.npz")
    frames.save(unfinished)
    unfinished.replace(path)
    return frames


def _same_run(config: MiniFitConfig, path: Path) -> None:
    """Make sure that what is in the folder was left by a run like this one."""
    digests = [
        hashlib.sha256(Path(archive).read_bytes()).hexdigest() for archive in config.states if Path(archive).is_file()
    ]
    settings = {
        **asdict(config),
        "out": "",
        "threads": 0,
        "device": "",
        "progress": False,
        "states": digests,
        "bf16": config.bf16,
    }
    text = json.dumps(settings, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"'{path.parent}' holds an interrupted run with other settings; remove it, or give another folder: "
            "out=<folder>."
        )
    path.write_text(text, encoding="utf-8")
