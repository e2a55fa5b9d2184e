"""Figures of the embedded encoder: what a picture scores against what is true of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.stats import auroc, pearson
from vlmrl.workflows.mini.frames import Frames
from vlmrl.workflows.mini.scenes import SCENES


def statement_figures(encoder: Encoder, sets: Mapping[str, Frames]) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure single statements in each scene: the cosine with the plainest sentence against the statement's degree.

    Args:
        encoder: The encoder, as it will be used.
        sets: {scene: frames that it was not trained on}.

    Returns:
        {scene: {statement: {"auroc" of degrees over 0.6, "pearson", "true": their number}}}; what is true of every
        frame of a scene is left out.
    """
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for name, frames in sets.items():
        scene, truths = SCENES[name], frames.truths()
        embeddings = encoder.encode_images(frames.pixels)
        subject = next(iter(scene.subjects), "")
        figures[name] = {}
        for statement, phrases in scene.phrases.items():
            degree = truths[statement]
            if degree.min() == 1:
                continue
            scores = embeddings @ encoder.encode_texts([f"{subject} {phrases[0]}".strip()])[0]
            true, correlation = degree > 0.6, float(pearson(scores, degree)[0])
            figures[name][statement] = {
                "auroc": float(auroc(scores, true)[0]) if true.any() and not true.all() else None,
                "pearson": None if np.isnan(correlation) else correlation,
                "true": int(true.sum()),
            }
    return figures


def images_per_second(encoder: Encoder, batch_size: int = 64, batches: int = 10) -> float:
    """Time the encoder on frames of its own size."""
    frames = np.zeros((batch_size, *encoder.image_size, 3), dtype=np.uint8)
    encoder.encode_images(frames)
    start = time.perf_counter()
    for _ in range(batches):
        encoder.encode_images(frames)
    return batches * batch_size / (time.perf_counter() - start)
