"""Which pairs of clips are worth asking about.

The samplers are those of B-Pref (Lee, Smith, Dragan, Abbeel: "B-Pref: Benchmarking Preference-Based Reinforcement
Learning", 2021, arXiv 2111.03026, section 4.2), over whatever space the clips' features lie in, pictures included.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Sampler = Literal["uniform", "disagreement", "entropy", "kcenter"]


def choose_pairs(
    n: int,
    returns: np.ndarray | None,
    features: np.ndarray,
    asked: set[tuple[int, int]],
    rng: np.random.Generator,
    sampler: Sampler = "uniform",
    candidates: int = 10,
    gap_floor: float = 0.0,
) -> np.ndarray:
    """Choose pairs of clips to ask about.

    First pairs are drawn at random; then those whose clips are the most alike are left out, because that is where
    judges err most; then the sampler takes its pick of the others.

    Args:
        n: Number of pairs wanted.
        returns: (members, clips) log odds scale: sum of each member's rewards of a clip; None before there is a model.
            Without it every sampler but "kcenter" is uniform.
        features: (clips, F) float, where distances between clips mean something.
        asked: Pairs (i, j), i < j, that were asked before, and are not drawn.
        rng: Of the draws.
        sampler: "uniform": any. "disagreement": members disagree most on which is better. "entropy": the ensemble is
            least sure. "kcenter": the most different from those chosen before (greedy k-center).
        candidates: Pairs drawn for each that is chosen.
        gap_floor: Share of the drawn pairs that is left out, those with the smallest gap: difference of predicted
            returns or, before there is a model, distance of features; 0 to 1.

    Returns:
        (k, 2) int, k <= n: fewer where there are not so many pairs. Pairs with the very same features are never chosen.
    """
    pairs = _draw(n * candidates, len(features), asked, rng)
    pairs = pairs[np.abs(features[pairs[:, 0]] - features[pairs[:, 1]]).max(axis=1) > 0]
    if len(pairs) == 0:
        return pairs
    gaps = returns[:, pairs[:, 0]] - returns[:, pairs[:, 1]] if returns is not None else None  # (members, pairs)
    if gap_floor > 0:
        size = (
            np.abs(gaps.mean(axis=0))
            if gaps is not None
            else np.linalg.norm(features[pairs[:, 0]] - features[pairs[:, 1]], axis=1)
        )
        least = max(n, len(pairs) - int(gap_floor * len(pairs)))  # never fewer than are wanted
        kept = np.sort(np.argsort(-size, kind="stable")[:least])
        pairs, gaps = pairs[kept], gaps[:, kept] if gaps is not None else None
    if sampler == "kcenter":
        return pairs[_spread_out(np.concatenate([features[pairs[:, 0]], features[pairs[:, 1]]], axis=1), n)]
    if sampler == "uniform" or gaps is None:
        return pairs[:n]
    probabilities = 1 / (1 + np.exp(-gaps))
    score = probabilities.std(axis=0) if sampler == "disagreement" else _entropy(probabilities.mean(axis=0))
    return pairs[np.argsort(-score, kind="stable")[:n]]


def _draw(n: int, clips: int, asked: set[tuple[int, int]], rng: np.random.Generator) -> np.ndarray:
    """Draw up to n different pairs that were not asked before, (k, 2) int, either clip first."""
    total = clips * (clips - 1) // 2
    if total <= 2 * n:  # so few that all of them can be listed
        every = np.array([(i, j) for i in range(clips) for j in range(i + 1, clips)], dtype=np.int64).reshape(-1, 2)
        drawn = rng.permutation(every)
    else:
        i, j = rng.integers(clips, size=(2, 2 * n))
        drawn = np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)[i != j]
    seen = set(asked)
    fresh: list[tuple[int, ...]] = []
    for pair in map(tuple, drawn.tolist()):
        if pair not in seen and len(fresh) < n:
            seen.add(pair)
            fresh.append(pair)
    pairs = np.array(fresh, dtype=np.int64).reshape(-1, 2)
    flipped = rng.random(len(pairs)) < 0.5  # or the older clip would always be on the left
    return np.where(flipped[:, None], pairs[:, ::-1], pairs)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of a yes-or-no answer, in nats; 0 at 0 and 1."""
    sure = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return -(sure * np.log(sure) + (1 - sure) * np.log(1 - sure))


def _spread_out(points: np.ndarray, n: int) -> list[int]:
    """Choose n of (m, F) points, each the farthest from all chosen before; the first is the farthest from the mean."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(n, len(points)):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen
