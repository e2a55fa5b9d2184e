"""The whole of `fit reward=liv`: clips, training by LIV's objective or a triplet loss, weights, held-out figures."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.fit_folder import claim
from vlmrl.workflows.liv.config import LivFitConfig

# What is kept while a run is under way, so that an interrupted one goes on; removed at its end.
CLIPS, STATE, RUN = "clips", "training.pt", "run.json"
SAVE_EVERY = 50  # steps


def fit(config: LivFitConfig) -> dict[str, Any]:
    """Train an encoder's cosines into values, and measure it before and after on clips apart.

    Args:
        config: What to do and where to put it.

    Returns:
        `before` and `after` (see `measure.measure`), `losses` (mean of each tenth of the steps), `config`, `weights`
        (path) and `seconds`. They are also written to `<out>/figures.json`.

    Raises:
        UserError: Clips or weights cannot be read, or `out` holds an interrupted run with other settings.
    """
    import torch

    from vlmrl.datasets.base import open_dataset
    from vlmrl.workflows.liv.clips import gather
    from vlmrl.workflows.liv.measure import measure
    from vlmrl.workflows.liv.train import Training, base_encoder, load_base, save

    started = time.monotonic()
    if config.threads:
        torch.set_num_threads(config.threads)
    base = load_base(config.weights, config.device)
    if config.dataset is not None:
        open_dataset(config.dataset)  # what is wrong with it is said before a folder is made
    out = Path(config.out)
    (out / CLIPS).mkdir(parents=True, exist_ok=True)
    claim(config, out / RUN)
    clips = gather(config.dataset, config.clips, config.camera, base.size, out / CLIPS, config.seed, config.progress)
    learned, held_out = split(clips.texts, config.held_out, config.seed)
    before = measure(base_encoder(config.weights, config.device), clips, held_out)
    training = Training(base, clips, learned, config)
    if (out / STATE).exists():
        training.load(out / STATE)
    training.run(out / STATE, SAVE_EVERY)
    weights = save(base, out)
    after = measure(base_encoder(str(out), config.device), clips, held_out)
    report = {
        "before": before,
        "after": after,
        "losses": [float(part.mean()) for part in np.array_split(training.losses, min(10, config.steps))],
        "clips": {"learned": len(learned), "held_out": len(held_out), "sentences": sorted(set(clips.texts))},
        "config": asdict(config),
        "weights": str(weights),
        "seconds": time.monotonic() - started,
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _print(report, out)
    shutil.rmtree(out / CLIPS)
    for name in (STATE, RUN):
        (out / name).unlink(missing_ok=True)
    return report


def split(texts: tuple[str, ...], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide clips into those that are learned from and those held out, of every sentence alike where there are two.

    Raises:
        UserError: There are too few.
    """
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    for text in sorted(set(texts)):
        own = rng.permutation([i for i, other in enumerate(texts) if other == text])
        held_out += own[: min(round(share * len(own)), len(own) - 1)].tolist()
    learned = sorted(set(range(len(texts))) - set(held_out))
    if not held_out or len(learned) < 2:
        raise UserError(f"{len(texts)} clips are too few to learn from some and measure on others; bring more.")
    return learned, sorted(held_out)


def _print(report: dict[str, Any], out: Path) -> None:
    from vlmrl.workflows.liv.measure import FIGURES
    from vlmrl.workflows.report import figures_table, make_console, shown

    console = make_console()
    title = f"{report['clips']['held_out']} held-out clips, mean and 95 % interval"
    table = figures_table(title, "", "before", "fine-tuned")
    for name, title in FIGURES.items():
        cells = []
        for when in ("before", "after"):
            figure = report[when][name]
            if figure["mean"] is None:
                cells.append("undefined")
                continue
            low, high = figure["interval"]
            cells.append(f"{figure['mean']:.2f} \\[{low:.2f}, {high:.2f}]")
        table.add_row(title, *cells)
    console.print(table)
    kind = "mini" if not report["config"]["weights"] else "its own kind"
    console.print(
        f"weights: {shown(out)}  (encoder=mini encoder.path={shown(out)})"
        if kind == "mini"
        else f"weights: {shown(out)}  (encoder=open_clip encoder.model=local-dir:{shown(out)})",
        soft_wrap=True,
        highlight=False,
    )
