"""The whole of `fit reward=optimal_transport`: demonstrations, and features aligned with preferences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.optimal_transport.config import OptimalTransportFitConfig


def fit(config: OptimalTransportFitConfig) -> dict[str, Any]:
    """Embed demonstrations and, where there are preferences, learn what to compare of them.

    Args:
        config: What to do and where to put it.

    Returns:
        `demonstrations` (frames of each), `config`, and with preferences `before` and `after`: the share of held-out
        comparisons in which the better clip costs less, with Wilson's interval, and `losses`. Also written to
        `<out>/figures.json`.

    Raises:
        UserError: Clips or preferences cannot be read, or are too few.
    """
    import torch

    from vlmrl.reward_models.optimal_transport import Demonstrations
    from vlmrl.workflows.embedded_clips import embedded_clips, frames_of
    from vlmrl.workflows.liv.train import base_config
    from vlmrl.workflows.report import make_console, shown

    if config.threads:
        torch.set_num_threads(config.threads)
    assert config.dataset is not None
    settings = base_config(config.weights)
    encoder, shown_clips = embedded_clips(
        config.dataset, settings, config.camera, config.device, progress=config.progress
    )
    wanted = Demonstrations.of([_spread(frames_of(clip), config.frames) for clip in shown_clips], encoder.fingerprint)
    report: dict[str, Any] = {"demonstrations": np.diff(wanted.starts).tolist(), "config": asdict(config)}
    if config.clips:
        wanted, figures = _aligned(wanted, settings, encoder.dim, config)
        report |= figures
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    wanted.save(out / "demonstrations.npz")
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console = make_console()
    console.print(f"{len(wanted)} demonstrations of {report['demonstrations']} frames", highlight=False)
    for when, said in (("before", "the encoder's own features"), ("after", "aligned features")):
        if when in report:
            figure = report[when]
            low, high = figure["interval"]
            console.print(
                f"{said}: the better clip is closer in {figure['mean']:.0%} of {report['pairs']['held_out']} held-out "
                f"comparisons, 95 % interval {low:.0%} to {high:.0%}",
                highlight=False,
                soft_wrap=True,
            )
    console.print(
        f"demonstrations: {shown(out / 'demonstrations.npz')}  (reward=optimal_transport "
        "reward.demonstrations=<this file>)",
        soft_wrap=True,
    )
    return report


def _aligned(wanted: Any, settings: Any, size: int, config: OptimalTransportFitConfig) -> tuple[Any, dict[str, Any]]:
    """Learn features of preferences; return the demonstrations with them, and figures."""
    from vlmrl.workflows.embedded_clips import embedded_clips, frames_of, read_preferences
    from vlmrl.workflows.optimal_transport.align import align, principal

    if config.dim > size:
        raise UserError(f"fit.dim is {config.dim}; the encoder's embeddings have {size}.")
    _, clips = embedded_clips(config.clips, settings, config.camera, config.device, progress=config.progress)
    if config.preferences:
        pairs = read_preferences(config.preferences, clips)
    else:
        outcomes = [clip.label.success for clip in clips]
        pairs = [(i, j) for i, good in enumerate(outcomes) for j, bad in enumerate(outcomes) if good and bad is False]
        if not pairs:
            raise UserError(
                f"fit.clips={config.clips} says of no clip that it succeeded, or of none that it failed. Compare some: "
                "fit.preferences=<csv with better and worse>."
            )
    frames = [_spread(frames_of(clip), config.frames) for clip in clips]
    learned, held_out = divide(pairs, len(clips), config.held_out, config.seed)
    parts = sorted({i for pair in learned for i in pair})
    start = principal(wanted, [frames[i] for i in parts], config.dim)
    aligned, losses = align(start, frames, learned, config)
    return aligned, {
        "pairs": {"learned": len(learned), "held_out": len(held_out)},
        "before": _agreement(wanted, frames, held_out, config.epsilon),
        "after": _agreement(aligned, frames, held_out, config.epsilon),
        "losses": [float(part.mean()) for part in np.array_split(losses, min(10, config.steps))],
    }


def divide(
    pairs: Sequence[tuple[int, int]], clips: int, share: float, seed: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Divide comparisons into those to learn from and those to measure on.

    Clips are held out: what is measured on compares at least one that nothing was learned from.

    Args:
        pairs: (better, worse) numbers of clips.
        clips: Number of clips.
        share: Of the clips, to hold out.
        seed: Of the draw.

    Raises:
        UserError: Either part would be empty.
    """
    out = set(np.random.default_rng(seed).permutation(clips)[: round(share * clips)].tolist())
    learned = [pair for pair in pairs if not out & set(pair)]
    held_out = [pair for pair in pairs if out & set(pair)]
    if not learned or not held_out:
        raise UserError(
            f"{len(pairs)} comparisons of {clips} clips are too few to learn from some and measure on others; bring "
            "more."
        )
    return learned, held_out


def _agreement(
    wanted: Any, frames: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], epsilon: float
) -> dict[str, Any]:
    """Return the share of comparisons in which the better clip costs less, a tie counting half."""
    from vlmrl.stats import wilson
    from vlmrl.workflows.optimal_transport.align import costs

    parts = sorted({i for pair in pairs for i in pair})
    cost = dict(zip(parts, costs(wanted, [frames[i] for i in parts], epsilon), strict=True))
    wins = sum((cost[a] < cost[b]) + 0.5 * (cost[a] == cost[b]) for a, b in pairs)
    return {"mean": wins / len(pairs), "interval": wilson(int(wins), len(pairs))}


def _spread(frames: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many frames, evenly spread, the first and the last among them."""
    return frames[np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)]
