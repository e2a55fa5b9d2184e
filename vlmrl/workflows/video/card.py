"""The model card of a video-text model: what it was taught, how well it tells clips apart that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = ("auroc", "single", "precision", "recall")
HEADERS = ("clips", "AUROC", "last frame alone", "precision", "recall")


def usage(config: Mapping[str, Any], out: str) -> str:
    """Return what a command is given to use the model.

    Args:
        config: Plain settings of the fit.
        out: Folder of the model.
    """
    if config["dataset"] is None:
        return f"env=crafter reward=clip4mc encoder.path={out}"
    if not config["weights"]:
        return f"reward=clip4mc encoder=mini encoder.path={out} encoder.any_env=true"
    head = f"reward.weights={out}/video_head.safetensors"
    return f"reward=clip4mc encoder=open_clip encoder.model=local-dir:{out} {head}"


def write_card(path: Path, report: Mapping[str, Any], size: tuple[int, int], out: str) -> None:
    """Write the card, markdown.

    Args:
        path: The file.
        report: What `fit` returns.
        size: (height, width) of the model's pictures in pixels.
        out: Folder of the model, as a person names it.
    """
    config, clips = report["config"], report["clips"]
    played = config["dataset"] is None
    groups = "scenes" if played else "recordings"
    source = f"{config['scenes']:,} scenes of Crafter that a script played" if played else f"`{config['dataset']}`"
    learned = [
        "the head",
        *(["the text tower"] if config["text"] else []),
        *(["the image tower"] if played and config["image_epochs"] else []),
    ]
    changed = {
        name: config[name] for name in ("pooling", "frames", "steps", "batch_size", "learning_rate", "noise", "seed")
    }
    lines = [
        "# A video-text model that vlmrl.fit made",
        "",
        "An encoder of pictures and sentences, and a head for clips beside it (`video_head.safetensors`).",
        "",
        "| | |",
        "| --- | --- |",
        f"| Learned from | {source}: {clips['learned']:,} clips of {config['frames']} frames, "
        f"{len(clips['meanings'])} sentences |",
        f"| Learned | {', '.join(learned)}; the rest is as in {config['weights'] or 'the embedded encoder'} |",
        f"| Pictures | {size[0]} x {size[1]} pixels; others are fitted to that |",
        f"| Settings | {', '.join(f'{name} {value}' for name, value in changed.items())} |",
        "",
        "## Use",
        "",
        f"    python -m vlmrl.train {'' if played else 'env=<yours> '}{usage(config, out)}",
        "",
        "A goal is weighed against the task's negatives: say both in sentences like those below.",
        "",
        "## Held-out clips",
        "",
        f"{clips['held_out']:,} clips of {groups} that nothing was learned from. AUROC of a clip's logit, with a 95 % "
        f"interval that counts {groups} and not clips, which overlap; the same of the cosine of its last frame alone; "
        "precision and recall where the probability among all sentences is above chance, which is where the reward "
        "pays. A sentence that fewer than 5 clips show, or all do, has no line.",
        "",
        f"| sentence | {groups} | {' | '.join(HEADERS)} |",
        f"| {' | '.join('---' for _ in range(2 + len(HEADERS)))} |",
        *_lines(report["held_out"]),
        "",
        "## Limits",
        "",
        "Held-out clips are of the same origin as those that were learned from. What an agent does looks otherwise, "
        "and it will find pictures that fool the model. `vlmrl.audit dataset=` measures it on clips of your own.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(held_out: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from vlmrl.workflows.video.footage import plainly

    lines = []
    for meaning, figures in held_out.items():
        cells = {name: "-" if figures[name] is None else f"{figures[name]:.2f}" for name in FIGURES}
        if "interval" in figures:
            cells["auroc"] += f" [{figures['interval'][0]:.2f}, {figures['interval'][1]:.2f}]"
        name = "**mean**" if meaning == "mean" else plainly(meaning).replace("|", "\\|")
        lines.append(
            f"| {name} | {figures.get('groups', '')} | {figures.get('clips', '')} | {' | '.join(cells.values())} |"
        )
    return lines
