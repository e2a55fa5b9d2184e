"""How well cosines are values, on clips that nothing was learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.stats import auroc, auroc_interval, bootstrap_mean, spearman, wilson
from vlmrl.workflows.liv.clips import Clips

FIGURES = {
    "value_order": "value-order correlation (Spearman) with time",
    "ends_higher": "ends higher than where it began",
    "auroc": "AUROC of last frames against first ones",
    "tells_sentences": "last frame: its own sentence is closest",
}


def measure(encoder: Encoder, clips: Clips, chosen: Sequence[int]) -> dict[str, Any]:
    """Measure an encoder on clips, each under its own sentence.

    Args:
        encoder: Gives the cosines.
        clips: The clips.
        chosen: Numbers of those that count, at least one.

    Returns:
        {figure of `FIGURES`: {"mean", "interval"}}, with "undefined" clips of the first, whose value never changes. The
        AUROC is over all clips together: it asks for values that mean the same in one clip as in another.
    """
    sentences = sorted(set(clips.texts))
    texts = dict(zip(sentences, encoder.encode_texts(sentences), strict=True))
    ranks, rises, told = [], 0, 0
    ends, starts = [], []
    for i in chosen:
        pictures = encoder.encode_images(np.asarray(clips.of(i)))
        values = pictures @ texts[clips.texts[i]]
        ranks.append(spearman(values, np.arange(len(values))))
        rises += int(values[-1] > values[0])
        ends.append(values[-1])
        starts.append(values[0])
        closest = int(np.argmax([float(pictures[-1] @ texts[sentence]) for sentence in sentences]))
        told += int(sentences[closest] == clips.texts[i])
    defined = np.array([rank for rank in ranks if not np.isnan(rank)])
    n = len(chosen)
    area = float(auroc(np.array(ends + starts), np.arange(2 * n) < n)[0])
    return {
        "value_order": {
            "mean": float(defined.mean()) if len(defined) else None,
            "interval": bootstrap_mean(defined) if len(defined) else None,
            "undefined": n - len(defined),
        },
        "ends_higher": {"mean": rises / n, "interval": wilson(rises, n)},
        "auroc": {"mean": area, "interval": auroc_interval(area, n, n)},
        "tells_sentences": {"mean": told / n, "interval": wilson(told, n)},
    }
