"""The whole of `fit encoder=mini`: frames, training, weights, held-out figures."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmrl.errors import UserError
from vlmrl.workflows.config.recipes import Recipe
from vlmrl.workflows.fit_folder import claim
from vlmrl.workflows.mini.states import archive_path, load_states

# What is kept while a run is under way, so that an interrupted one goes on; removed at its end.
FRAMES, IMAGES, RUN = "frames", "images.pt", "run.json"
HELD_OUT = 1_000_001  # added to a run's seed: no training frame comes from it


@dataclass(frozen=True, kw_only=True)
class MiniFitConfig(Recipe):
    """Settings of `fit encoder=mini`. Held-out frames come from other seeds than `seed`.

    Attributes:
        frames: Number of training frames from the broad distributions of all scenes.
        held_out: Number of held-out frames drawn like the training frames.
        states: Archives of states that agents reached, as `vlmrl.workflows.mini.states` writes them, or names of those
            that come with the suite; of their training parts, `state_frames` frames are rendered and added.
        state_frames: Number of frames from `states`.
        tower: Name of a timm architecture for the pictures.
        epochs: Passes over the frames by the image tower.
        text_steps: Steps of the text tower.
        batch_size: Frames a step of the image tower.
        learning_rate: Highest learning rate of the image tower.
        workers: Processes that render.
        bf16: Compute the image tower's products in bfloat16: twice as fast where the processor can, slower where it
            cannot.
    """

    frames: int = 26_000
    held_out: int = 2_600
    states: tuple[str, ...] = ("visited", "visited2")
    state_frames: int = 10_000
    tower: str = "test_resnet"
    epochs: int = 16
    text_steps: int = 2_000
    batch_size: int = 64
    learning_rate: float = 4e-3
    workers: int = 2
    bf16: bool = True

    def __post_init__(self) -> None:
        for name in ("frames", "held_out", "state_frames", "epochs", "text_steps", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"fit encoder=mini: {name} is {getattr(self, name)}; it must be at least 1.")
        if not self.learning_rate > 0:
            raise UserError(f"fit encoder=mini: learning_rate is {self.learning_rate}; it must be positive.")


def fit(config: MiniFitConfig) -> dict[str, Any]:
    """Train an embedded encoder and measure it.

    Args:
        config: What to do and where to put it.

    Returns:
        `exam` (see `exam.take_exam`), `visited` (see `exam.on_visited`), `statements` (see
        `measure.statement_figures`, on held-out frames), `images_per_second`, `config`, `weights` (path), `megabytes`
        and `seconds` (of this call). They are also written to `<out>/figures.json`, and the exam is printed.
        `encoder=mini encoder.path=<out>` uses the weights.

    Raises:
        UserError: A setting is out of range, a file is missing, frames cannot be rendered, or `out` holds an
            interrupted run with other settings.
    """
    import torch

    from vlmrl.encoders.mini import MiniConfig
    from vlmrl.workflows.mini import train
    from vlmrl.workflows.mini.exam import on_visited, table, take_exam
    from vlmrl.workflows.mini.frames import render_all, training_orders
    from vlmrl.workflows.mini.lesson import Lesson
    from vlmrl.workflows.mini.measure import images_per_second, statement_figures

    start = time.perf_counter()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.tower not in train.towers():
        raise UserError(f"fit encoder=mini: timm has no architecture '{config.tower}'.")
    visited = [load_states(archive, "train") for archive in config.states]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    digests = [hashlib.sha256(archive_path(archive).read_bytes()).hexdigest() for archive in config.states]
    claim(config, out / RUN, states=digests)

    orders = training_orders(config.frames, config.seed, visited, config.state_frames)
    lesson = Lesson.of(render_all(orders, out / FRAMES, config.workers, config.progress))
    model = train.new_model(config.tower, config.seed, lesson.geometry.shape[1])
    stage = train.ImageStage(
        model,
        lesson,
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
    train.train_texts(
        model,
        lesson,
        train.embed(model, lesson.pixels, config.device),
        steps=config.text_steps,
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    weights = train.save_model(model, out)

    encoder = MiniConfig(path=str(out)).build(config.device)
    held_out = render_all(
        training_orders(config.held_out, config.seed + HELD_OUT), out / FRAMES, config.workers, config.progress
    )
    report: dict[str, Any] = {
        "exam": take_exam(encoder, config.progress),
        "visited": {archive: on_visited(encoder, archive) for archive in config.states},
        "statements": statement_figures(encoder, held_out),
        "images_per_second": images_per_second(encoder),
        "config": asdict(config),
        "weights": str(weights),
        "megabytes": weights.stat().st_size / 1e6,
        "seconds": time.perf_counter() - start,
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(report["exam"]))
    shutil.rmtree(out / FRAMES)
    for name in (IMAGES, RUN):
        (out / name).unlink()
    return report
