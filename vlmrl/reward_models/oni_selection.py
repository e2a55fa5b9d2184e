"""Which texts, or pairs of texts, are put up to be labelled, and how urgent each is: often said, and unsure."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from vlmrl.reward_models.oni_labels import Item
from vlmrl.reward_models.oni_learner import TextLearner

DRAWN = 4  # pairs that are drawn for each that is put up


def single_texts(said: Mapping[str, int], learner: TextLearner) -> dict[Item, float]:
    """Return {item of one text: priority}.

    Args:
        said: {text: how often it was said so far}.
        learner: Knows how unsure it is.
    """
    items: list[Item] = [(text,) for text in said]
    unsure = learner.unsure(items)
    return {item: count * float(u) for item, count, u in zip(items, said.values(), unsure, strict=True)}


def pairs_of_texts(
    said: Mapping[str, int], labelled: Container[Item], n: int, learner: TextLearner, rng: np.random.Generator
) -> dict[Item, float]:
    """Return {item of two texts: priority}: of `DRAWN` times as many as are wanted, those with the highest.

    Args:
        said: {text: how often it was said so far}, in an order that is the same in every run.
        labelled: Items that need no further label.
        n: Pairs wanted, at most.
        learner: Knows how unsure it is.
        rng: Draws the pairs.
    """
    texts = list(said)
    if len(texts) < 2:
        return {}
    weights = np.array(list(said.values()), dtype=np.float64)
    # The square root, or texts that are said at most steps would be all that is compared.
    chances = np.sqrt(weights) / np.sqrt(weights).sum()
    drawn = rng.choice(len(texts), size=(DRAWN * n, 2), p=chances)
    unique = sorted({(min(i, j), max(i, j)) for i, j in drawn.tolist() if i != j})
    found: list[Item] = [(texts[i], texts[j]) for i, j in unique]
    rated = {
        item: float(np.sqrt(weights[i] * weights[j]) * u)
        for item, (i, j), u in zip(found, unique, learner.unsure(found), strict=True)
        if item not in labelled
    }
    best = sorted(rated, key=lambda item: -rated[item])[:n]
    return {item: rated[item] for item in best}
