"""Keeps a network that learns from labels of texts, or of pairs of them: when it learns anew, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from vlmrl.reward_models.oni_labels import Item
from vlmrl.reward_models.oni_networks import Lessons, TextNetworkName, make_network, scores, train_network
from vlmrl.reward_models.preference_loss import calibration
from vlmrl.rows import text_keys

LEAST_LABELS = 8  # fewer teach a network nothing
GROWTH = 1.25  # a network is trained anew when it has so many times the labels of the last training
HELD_OUT_STEPS = 1000  # in which the share that is held out is counted


@dataclass(frozen=True)
class Training:
    """How a network is trained; `configs/reward/oni.yaml` says what each means."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    gradient_steps: int
    patience: int
    held_out: float


class TextLearner:
    """See this module. Until `learn` was called there is no network, and everything is equally unsure.

    Args:
        name: Which network.
        training: How it is trained.

    Attributes:
        network: The newest network; None before the first one.
        normal: Mean and spread of its scores, which `normalise` sets.
        learned_from: Labels that it has learned from, those that were held out included.
        metrics: Of its training, and how well it tells labels that it has not learned from: `accuracy`, `brier`, `ece`.
    """

    def __init__(self, name: TextNetworkName, training: Training):
        self.network: nn.Module | None = None
        self.normal = (0.0, 1.0)
        self.learned_from = 0
        self.metrics: dict[str, float] = {}
        self._name, self._training = name, training
        self._device = "cpu"

    def to(self, device: str) -> None:
        """Move the network to a torch device."""
        self._device = device
        if self.network is not None:
            self.network.to(device)

    def is_due(self, labels: int) -> bool:
        """Return whether so many labels are enough to learn anew."""
        return labels >= max(LEAST_LABELS, GROWTH * self.learned_from)

    def learn(self, labels: Mapping[Item, float], seed: int) -> bool:
        """Train a new network on all labels, whatever the order in which they came.

        Args:
            labels: {item: probability}, all of one text or all of two.
            seed: Of weights, order and dropout.

        Returns:
            Whether there was anything to learn from, after a share was held out.
        """
        items = sorted(labels)
        whole = _lessons(items, np.array([labels[item] for item in items], dtype=np.float32))
        out = np.array([self._is_held_out(item) for item in items])
        learned, held_out = whole[np.flatnonzero(~out)], whole[np.flatnonzero(out)]
        if len(learned) == 0:
            return False
        training = self._training
        network = make_network(self._name, seed).to(self._device)
        self.metrics = train_network(
            network,
            learned,
            held_out,
            training.learning_rate,
            training.weight_decay,
            training.batch_size,
            training.gradient_steps,
            training.patience,
            seed,
        )
        self.network, self.learned_from = network, len(labels)
        self.metrics |= {"labels": float(len(labels)), "held_out": float(len(held_out))} | _agreement(network, held_out)
        return True

    def normalise(self, counts: Mapping[str, int]) -> None:
        """Fix mean and spread of the scores, over {text: how often it counts}."""
        texts = sorted(counts)
        raw = self.scores(texts)
        weights = np.array([counts[text] for text in texts], dtype=np.float64)
        mean = float(np.average(raw, weights=weights))
        spread = float(np.sqrt(np.average((raw - mean) ** 2, weights=weights)))
        self.normal = mean, spread if spread > 1e-6 else 1.0

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the network's scores of n texts, (n,) float64."""
        assert self.network is not None
        return scores(self.network, texts).astype(np.float64)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return how probable it is that each of n texts is good, (n,) float64."""
        return _sigmoid(self.scores(texts))

    def normal_scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of n texts, (n,) float64, with the mean and spread of `normalise` as 0 and 1."""
        mean, spread = self.normal
        return (self.scores(texts) - mean) / spread

    def unsure(self, items: Sequence[Item]) -> np.ndarray:
        """Return how unsure the network is of n items, (n,) float64: 4 p (1 - p), so 1 where it knows nothing."""
        if self.network is None or not items:
            return np.ones(len(items))
        first, *second = (scores(self.network, list(texts)) for texts in zip(*items, strict=True))
        p = _sigmoid((first - second[0] if second else first).astype(np.float64))
        return 4 * p * (1 - p)

    def known(self) -> dict[str, Any]:
        """Return what `restore` needs beside the weights, ready for JSON."""
        return {"normal": list(self.normal), "learned_from": self.learned_from, "metrics": dict(self.metrics)}

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's weights, on the CPU; {} before the first one."""
        state = self.network.state_dict() if self.network is not None else {}
        return {name: value.cpu().contiguous() for name, value in state.items()}

    def restore(self, known: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        """Take over what `known` and `weights` returned."""
        self.normal = known["normal"][0], known["normal"][1]
        self.learned_from, self.metrics = known["learned_from"], dict(known["metrics"])
        self.network = None
        if weights:
            self.network = make_network(self._name, 0).to(self._device)
            self.network.load_state_dict(weights)
            self.network.eval()

    def _is_held_out(self, item: Item) -> bool:
        """Whether nothing learns from an item: by its texts, so that it is the same in every run and at every time."""
        total = sum(text_keys(list(item)).tolist())
        return total % HELD_OUT_STEPS < self._training.held_out * HELD_OUT_STEPS


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _lessons(items: list[Item], targets: np.ndarray) -> Lessons:
    pairs = bool(items) and len(items[0]) == 2
    return Lessons(tuple(item[0] for item in items), tuple(item[1] for item in items) if pairs else None, targets)


@torch.no_grad()
def _agreement(network: nn.Module, held_out: Lessons) -> dict[str, float]:
    """Return how well a network tells labels that it has not learned from; {} where none decides."""
    decided = held_out[np.flatnonzero(held_out.targets != 0.5)]
    if len(decided) == 0:
        return {}
    network.eval()
    probabilities = _sigmoid(decided.log_odds(network).cpu().numpy().astype(np.float64))
    return calibration(probabilities, decided.targets > 0.5)
