"""The whole of `fit reward=clip4mc`: footage, training, an encoder with a head for clips, held-out figures."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.workflows.fit_folder import claim
from vlmrl.workflows.video.config import VideoFitConfig

# What is kept while a run is under way, so that an interrupted one goes on; removed at its end.
FOOTAGE, IMAGES, CLIPS, RUN = "footage", "images.pt", "clips.pt", "run.json"
CARD = "README.md"
SAVE_EVERY = 200  # steps


def fit(config: VideoFitConfig) -> dict[str, Any]:
    """Make a video-text model: an encoder of frames and sentences, and a head for clips beside it.

    Args:
        config: What to do and where to put it.

    Returns:
        `held_out` (see `measure.measure`), `losses` (mean of each tenth of the steps), `clips`, `config`, `weights`
        (path), `megabytes` and `seconds` (of this call). They are also written to `<out>/figures.json`, and in words to
        `<out>/README.md`.

    Raises:
        UserError: Clips or weights cannot be read, or `out` holds an interrupted run with other settings.
    """
    import torch

    from vlmrl.datasets.base import open_dataset
    from vlmrl.encoders.mini import VIDEO_HEAD
    from vlmrl.reward_models.video_heads import load_head, save_head
    from vlmrl.workflows.liv.train import base_encoder, load_base
    from vlmrl.workflows.report import shown
    from vlmrl.workflows.video.card import write_card
    from vlmrl.workflows.video.footage import from_play, from_recordings
    from vlmrl.workflows.video.measure import measure
    from vlmrl.workflows.video.train import ClipStage, ImageStage, embed
    from vlmrl.workflows.video.weights import resize, save_encoder, teach_words

    started = time.monotonic()
    if config.threads:
        torch.set_num_threads(config.threads)
    base = load_base(config.weights, config.device)
    if config.image_size:
        resize(base, config.image_size)
    if config.dataset is not None:
        open_dataset(config.dataset)  # what is wrong with it is said before a folder is made
    out = Path(config.out)
    (out / FOOTAGE).mkdir(parents=True, exist_ok=True)
    claim(config, out / RUN)
    if config.dataset is None:
        footage = from_play(config.scenes, config.frames, base.size, out / FOOTAGE, config.seed, config.progress)
    else:
        footage = from_recordings(
            config.dataset,
            config.camera,
            config.windows,
            config.frames,
            base.size,
            out / FOOTAGE,
            config.seed,
            config.progress,
        )
    learned, held_out = footage.split(config.held_out, config.seed)
    if config.text:
        teach_words(base, footage, config.seed)
    if footage.state is not None and config.image_epochs:
        stage = ImageStage(base, footage, np.unique(footage.clips[learned]), config)
        if (out / IMAGES).exists():
            stage.load(out / IMAGES)
        while stage.epoch < config.image_epochs:
            stage.run_epoch()
            stage.save(out / IMAGES)
    embeddings = embed(base, footage.frames, config.device, config.progress)
    clips = ClipStage(base, footage, embeddings, learned, config)
    if (out / CLIPS).exists():
        clips.load(out / CLIPS)
    clips.run(out / CLIPS, SAVE_EVERY)
    weights = save_encoder(base, out)
    encoder = base_encoder(str(out), config.device)
    save_head(clips.head, out / VIDEO_HEAD, encoder)

    # Measured as it will be used: from the files, whose numbers are shorter.
    head = load_head(out / VIDEO_HEAD, encoder)
    embedded = np.concatenate(
        [encoder.encode_images(footage.frames[i : i + 128]) for i in range(0, len(footage.frames), 128)]
    )
    report: dict[str, Any] = {
        "held_out": measure(encoder, head, footage, embedded, held_out),
        "losses": [float(part.mean()) for part in np.array_split(clips.losses, min(10, config.steps))],
        "clips": {"learned": len(learned), "held_out": len(held_out), "meanings": footage.meanings},
        "config": asdict(config),
        "weights": str(weights),
        "megabytes": sum(path.stat().st_size for path in out.glob("*.safetensors")) / 1e6,
        "seconds": time.monotonic() - started,
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_card(out / CARD, report, encoder.image_size, shown(out))
    _print(report, out)
    shutil.rmtree(out / FOOTAGE)
    for name in (IMAGES, CLIPS, RUN):
        (out / name).unlink(missing_ok=True)
    return report


def _print(report: dict[str, Any], out: Path) -> None:
    from vlmrl.workflows.report import figures_table, make_console, shown
    from vlmrl.workflows.video.card import usage
    from vlmrl.workflows.video.footage import plainly

    console = make_console()
    groups = "scenes" if report["config"]["dataset"] is None else "recordings"
    title = f"{report['clips']['held_out']} held-out clips"
    table = figures_table(title, "", groups, "AUROC", "last frame alone", "precision", "recall")
    for meaning, figures in report["held_out"].items():
        cells = [
            "-" if figures[name] is None else f"{figures[name]:.2f}"
            for name in ("auroc", "single", "precision", "recall")
        ]
        name = "mean" if meaning == "mean" else plainly(meaning)
        table.add_row(name, str(figures.get("groups", "")), *cells)
    console.print(table)
    console.print(f"weights: {shown(out)}  ({usage(report['config'], shown(out))})", soft_wrap=True, highlight=False)
    console.print(f"card:    {shown(out / CARD)}", soft_wrap=True, highlight=False)
