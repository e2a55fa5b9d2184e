"""How well a video-text model tells, on clips that nothing was learned from, what they show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlmrl.encoders.base import Encoder
from vlmrl.reward_models.video_heads import VideoHead
from vlmrl.stats import auroc
from vlmrl.stats.ranking import auroc_interval
from vlmrl.workflows.video.footage import Footage, plainly

LEAST = 5  # clips of a meaning that a figure takes


def measure(
    encoder: Encoder, head: VideoHead, footage: Footage, embeddings: np.ndarray, rows: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Score clips against every meaning, in the suite's own words.

    Args:
        encoder: Encodes the sentences, and gave the embeddings.
        head: Makes clips of frames.
        footage: The clips.
        embeddings: (N, E) float32 of all frames.
        rows: Numbers of the clips to measure on.

    Returns:
        For each meaning that at least 5 clips show and 5 do not: `auroc` of its logit with a 95 % interval, `single`,
        that of the cosine of a clip's last frame alone; `precision` and `recall` where the reward pays, which is where
        the probability among all meanings is above chance; `clips` that show it, and `groups` that they come from. The
        key "mean" has the means.
    """
    meanings = footage.meanings
    texts = torch.from_numpy(encoder.encode_texts([plainly(meaning) for meaning in meanings]))
    with torch.inference_mode():
        clips = torch.from_numpy(embeddings[footage.clips[rows]])
        made = torch.cat([head(part) for part in clips.split(512)])
        logits = head.logits(made, head.texts(texts)).sum(dim=1).double().numpy()
    last = embeddings[footage.clips[rows, -1]] @ texts.numpy().T
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    paid = probability > 1 / len(meanings)
    figures: dict[str, dict[str, Any]] = {}
    for k, meaning in enumerate(meanings):
        true = np.array([meaning in footage.shown[row] for row in rows])
        if min(true.sum(), (~true).sum()) < LEAST:
            continue
        area = float(auroc(logits[:, k], true)[0])
        groups = len(np.unique(footage.group[rows][true]))
        figures[meaning] = {
            "auroc": area,
            # Clips of one scene overlap: scenes are counted, not clips.
            "interval": list(auroc_interval(area, groups, len(np.unique(footage.group[rows][~true])))),
            "single": float(auroc(last[:, k], true)[0]),
            "precision": float(true[paid[:, k]].mean()) if paid[:, k].any() else None,
            "recall": float(paid[true, k].mean()),
            "clips": int(true.sum()),
            "groups": groups,
        }
    if figures:
        means = {}
        for name in ("auroc", "single", "precision", "recall"):
            values = [own[name] for own in figures.values() if own[name] is not None]
            means[name] = float(np.mean(values)) if values else None
        figures["mean"] = means
    return figures
