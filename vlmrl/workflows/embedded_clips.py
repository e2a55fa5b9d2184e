"""Recorded clips as embeddings, for recipes that learn from a frozen encoder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.datasets.base import open_dataset
from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.serving.local import LocalConfig
from vlmrl.workflows.audit.clips import Clip, Label, read_clips, read_labels


def embedded_clips(
    spec: str, encoder: Any, camera: str, device: str, labels: str = "", progress: bool = False
) -> tuple[Encoder, list[Clip]]:
    """Read clips of a dataset, one camera of them.

    Embeddings stay beside the dataset, where `vlmrl.audit` and `vlmrl.relabel` find them too.

    Args:
        spec: What `open_dataset` takes.
        encoder: Settings of an encoder.
        camera: Camera; empty takes the first of the first clip.
        device: Where the encoder runs.
        labels: Path of a csv file with what is known of outcomes; empty takes what recordings say.
        progress: Whether to show a progress bar.

    Returns:
        The encoder, and the clips, whose `embeddings` hold the camera.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    dataset = open_dataset(spec)
    if len(dataset) == 0:
        raise UserError(f"dataset={spec} holds no clips.")
    known: Mapping[str, Label] = read_labels(labels, dataset) if labels else {}
    path = Path(getattr(dataset, "path", dataset.spec)).absolute()
    service = LocalConfig(store=str(path.with_name(f".{path.name}.embeddings"))).build(encoder, device)
    problems: dict[str, str] = {}
    try:
        chosen = camera or next(iter(dataset.episode(0).frames), "")
        clips = list(read_clips(dataset, service, [chosen], known, problems, progress))
    finally:
        service.close()
    if problems:
        name, problem = next(iter(problems.items()))
        raise UserError(f"dataset={spec}: clip {name} {problem}.")
    return service.encoder, clips


def frames_of(clip: Clip) -> np.ndarray:
    """Return the embeddings of a clip with one camera, (n, E) float32."""
    (embeddings,) = clip.embeddings.values()
    return embeddings


def read_preferences(given: str, clips: list[Clip]) -> list[tuple[int, int]]:
    """Read which of two clips somebody liked better.

    Args:
        given: Path of a csv file with the columns better and worse, names or numbers of clips.
        clips: The clips.

    Returns:
        (better, worse) positions in `clips`.

    Raises:
        UserError: The file is not there or has another form, or names a clip that there is not.
    """
    path = Path(given)
    form = "It is a csv file with the columns better and worse, names or numbers of clips, a line a comparison."
    if not path.is_file():
        raise UserError(f"fit.preferences: there is no file '{given}'. {form}")
    numbers = {clip.name: i for i, clip in enumerate(clips)}
    numbers = {str(clip.number): i for i, clip in enumerate(clips)} | numbers
    pairs: list[tuple[int, int]] = []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        if set(table.fieldnames or ()) != {"better", "worse"}:
            raise UserError(f"fit.preferences: '{given}' has the columns {', '.join(table.fieldnames or ())}. {form}")
        for line in table:
            sides = [(line[side] or "").strip() for side in ("better", "worse")]
            for name in sides:
                if name not in numbers:
                    raise unknown(f"clip in line {table.line_num} of '{given}':", name, numbers)
            if sides[0] == sides[1]:
                raise UserError(
                    f"fit.preferences: line {table.line_num} of '{given}' compares '{sides[0]}' with itself."
                )
            pairs.append((numbers[sides[0]], numbers[sides[1]]))
    if not pairs:
        raise UserError(f"fit.preferences: '{given}' holds no comparison. {form}")
    return pairs
