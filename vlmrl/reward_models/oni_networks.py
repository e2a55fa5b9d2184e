"""Small networks that read a text, character by character or as a bag of its parts, and say how good it is.

Sources: `bag` is the text classifier of fastText: words, pairs of words and parts of words, hashed, averaged (Joulin et
al.: "Bag of Tricks for Efficient Text Classification", EACL 2017, arXiv 1607.01759; Bojanowski et al.: "Enriching Word
Vectors with Subword Information", TACL 2017, arXiv 1607.04606). `char_cnn` has the sizes of the message network of
Motif (Klissarov et al., arXiv 2310.00166) and ONI (Zheng et al., arXiv 2410.23022), which go back to Zhang et al.:
"Character-level Convolutional Networks for Text Classification", NeurIPS 2015.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TextNetworkName = Literal["bag", "char_cnn"]

BUCKETS = 2**14  # of the hashed bag: about as many as a table of two thousand texts has different parts
CHECK = 20  # gradient steps between two looks at what is held out
PARTS = (3, 4, 5)  # characters of a part of a word
LENGTH = 256  # bytes that a char_cnn reads of a text: a message of NetHack has no more
# Kernel of each layer, and whether the largest of three neighbours follows; 256 bytes become 5 places.
CONVOLUTIONS = ((7, True), (7, True), (3, False), (3, False), (3, False), (3, True))
CHANNELS = 64


class BagNetwork(nn.Module):
    """Mean of the vectors of a text's parts, then a layer.

    Args:
        width: Size of a vector, and of the layer.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.vectors = nn.EmbeddingBag(BUCKETS, width, mode="mean")
        nn.init.normal_(self.vectors.weight, std=0.1)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """Return a score of each text, (n,) float32."""
        parts = [parts_of(text) for text in texts]
        device = self.vectors.weight.device
        numbers = torch.from_numpy(np.concatenate(parts)).to(device)
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        return self.head(self.vectors(numbers, torch.from_numpy(starts).to(device))).squeeze(-1)


class CharCnn(nn.Module):
    """Convolutions over the bytes of a text, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(256, 32)
        layers: list[nn.Module] = []
        channels = 32
        for kernel, pooled in CONVOLUTIONS:
            layers += [nn.Conv1d(channels, CHANNELS, kernel), nn.ReLU()]
            layers += [nn.MaxPool1d(3)] if pooled else []
            channels = CHANNELS
        self.body = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            width = self.body(torch.zeros(1, 32, LENGTH)).shape[1]
        self.head = nn.Sequential(
            nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 1)
        )

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """Return a score of each text, (n,) float32; what is beyond 256 bytes is not read."""
        numbers = np.zeros((len(texts), LENGTH), dtype=np.int64)
        for row, text in zip(numbers, texts, strict=True):
            read = text.encode()[:LENGTH]
            row[: len(read)] = np.frombuffer(read, dtype=np.uint8)
        embedded = self.characters(torch.from_numpy(numbers).to(self.characters.weight.device))
        return self.head(self.body(embedded.transpose(1, 2))).squeeze(-1)


def make_network(name: TextNetworkName, seed: int) -> nn.Module:
    """Make a network with weights that are drawn by a seed; nothing that others draw from is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BagNetwork() if name == "bag" else CharCnn()


@lru_cache(maxsize=65536)
def parts_of(text: str) -> np.ndarray:
    """Return the buckets of a text's words, pairs of words and parts of words, (k,) int64; case does not count."""
    words = [f"<{word}>" for word in text.lower().split()] or ["<>"]
    found = [*words, *(f"{first} {second}" for first, second in zip(words[:-1], words[1:], strict=True))]
    for word in words:
        found += [word[i : i + size] for size in PARTS for i in range(len(word) - size + 1)]
    # CRC-32 and not `hash`, which differs from process to process.
    return np.array([zlib.crc32(part.encode()) % BUCKETS for part in found], dtype=np.int64)


@torch.no_grad()
def scores(network: nn.Module, texts: Sequence[str]) -> np.ndarray:
    """Return the scores of n texts, (n,) float32, in batches of 1024."""
    network.eval()
    parts = [network(texts[i : i + 1024]).cpu().numpy() for i in range(0, len(texts), 1024)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Lessons:
    """What a network learns from: how probable it is that a text is good, or the better one of two.

    Attributes:
        texts: (n,) texts, or the first ones of n pairs.
        others: The second ones; None where there are no pairs.
        targets: (n,) float32, probability that the text is good, or that the first is the better one.
    """

    texts: tuple[str, ...]
    others: tuple[str, ...] | None
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: np.ndarray) -> Lessons:
        others = tuple(self.others[i] for i in chosen) if self.others is not None else None
        return Lessons(tuple(self.texts[i] for i in chosen), others, self.targets[chosen])

    def log_odds(self, network: nn.Module) -> torch.Tensor:
        """Return what a network makes of them, (n,): its score, of pairs the difference of scores (Bradley-Terry)."""
        if self.others is None:
            return network(self.texts)
        both = network([*self.texts, *self.others])
        return both[: len(self)] - both[len(self) :]


def train_network(
    network: nn.Module,
    lessons: Lessons,
    held_out: Lessons,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    gradient_steps: int,
    patience: int,
    seed: int,
) -> dict[str, float]:
    """Train by the cross-entropy with soft labels, until what is held out is told no better.

    It is steps that are counted and not passes: the first few labels would be passed over in a step each.

    Args:
        network: Trained in place; ends with the weights that had the least loss on what is held out.
        lessons: To learn from, at least one.
        held_out: To stop by; may be empty, and the weights are then those of the last step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        batch_size: Lessons a gradient step, at most.
        gradient_steps: Steps at most.
        patience: Steps without a better loss after which training stops.
        seed: Of the order of the lessons, and of dropout.

    Returns:
        `steps` and `train_loss`.
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    best_loss, best_step, best, loss = np.inf, 0, None, np.nan
    batches = _batches(len(lessons), batch_size, rng)
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(seed)
        for step in range(1, gradient_steps + 1):
            network.train()
            step_loss = _loss(network, lessons[next(batches)])
            optimiser.zero_grad()
            step_loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)  # as ONI does
            optimiser.step()
            loss = float(step_loss.detach())
            if len(held_out) == 0 or step % CHECK and step < gradient_steps:
                continue
            network.eval()
            with torch.no_grad():
                score = float(_loss(network, held_out))
            if score < best_loss:
                best_loss, best_step, best = score, step, copy.deepcopy(network.state_dict())
            elif step - best_step >= patience:
                break
    network.eval()
    if best is None:
        return {"steps": float(gradient_steps), "train_loss": loss}
    network.load_state_dict(best)
    return {"steps": float(best_step), "train_loss": loss}


def _batches(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of numbers below n for ever, each number once a pass."""
    while True:
        order = rng.permutation(n)
        for start in range(0, n, batch_size):
            yield order[start : start + batch_size]


def _loss(network: nn.Module, lessons: Lessons) -> torch.Tensor:
    log_odds = lessons.log_odds(network)
    return functional.binary_cross_entropy_with_logits(log_odds, torch.from_numpy(lessons.targets).to(log_odds.device))
