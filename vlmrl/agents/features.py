"""Features extractors of worlds that are no vectors: grids of kinds of things, words, messages, statistics.

"Features extractor" is Stable-Baselines3's word for what turns observations into the vector that actor and critic see.
An observation that is a dict gets one part for each of its keys; keys are those of MiniGrid ("image", "mission") and of
the NetHack Learning Environment ("glyphs", "message", "blstats"), whatever environment has them. The parts follow the
networks that came with these worlds: a bag of words in each cell (BabyAI 1.1, Hui et al. 2020, arXiv 2007.12770), and a
view of the whole map beside a close one around the hero (Küttler et al. 2020, arXiv 2006.13760, section 5), with fewer
and strided convolutions so that they run on a CPU.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

CROP = 9  # cells a side of the view around the hero
LARGEST_NUMBER = 127  # of a kind, colour or state; numbers up to 255 are a picture's


class WorldFeatures(BaseFeaturesExtractor):
    """One part for each key of a dict observation, side by side, then a layer.

    Args:
        observation_space: A dict of spaces.
        features_dim: Width of what comes out.
    """

    def __init__(self, observation_space: gym.spaces.Dict, features_dim: int):
        super().__init__(observation_space, features_dim)
        self.parts = nn.ModuleDict()
        width = 0
        for key, space in observation_space.spaces.items():
            part = _part(key, space)
            self.parts[key] = part
            width += _width(part, space)
        self._hero = "blstats" in observation_space.spaces
        self.join = nn.Sequential(nn.Linear(width, features_dim), nn.ReLU())

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Turn observations, {key: (n, ...) float32}, into (n, features_dim) float32."""
        # The first two of NetHack's statistics say where on the map the hero is.
        place = observations["blstats"][:, :2].long() if self._hero else None
        parts = [
            part(observations[key], place) if isinstance(part, MapFeatures) else part(observations[key])
            for key, part in self.parts.items()
        ]
        return self.join(torch.cat(parts, dim=1))


class CellFeatures(nn.Module):
    """Cells that hold numbers, such as MiniGrid's (type, colour, state): embeddings summed up, then convolutions.

    Args:
        space: (height, width, channels), at least 5 high and wide, its bounds those of the numbers.
    """

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        height, width, channels = space.shape
        highest = space.high.reshape(-1, channels).max(axis=0)
        self.embeddings = nn.ModuleList(nn.Embedding(int(number) + 1, 32) for number in highest)
        self.convolutions = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.width = 64 * (height - 4) * (width - 4)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Turn (n, height, width, channels) into (n, width)."""
        numbers = cells.long()
        summed = sum(embedding(numbers[..., i]) for i, embedding in enumerate(self.embeddings))
        return self.convolutions(summed.permute(0, 3, 1, 2))


class WordFeatures(nn.Module):
    """A sentence of numbered words, 0 for none: embeddings, and the last state of a GRU.

    Args:
        space: (length,), its bounds those of the numbers.
    """

    width = 64

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        self.embedding = nn.Embedding(int(space.high.max()) + 1, 32)
        self.gru = nn.GRU(32, self.width, batch_first=True)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Turn (n, length) into (n, 64)."""
        numbers = words.long()
        lengths = (numbers != 0).sum(dim=1).clamp(min=1)
        states, _ = self.gru(self.embedding(numbers[:, : int(lengths.max())]))
        return states[torch.arange(len(states), device=states.device), lengths - 1]


class MessageFeatures(nn.Module):
    """A line of text as bytes, 0 where it has ended: embeddings, two convolutions, and the strongest answers to them.

    Args:
        space: (length,) of bytes.
    """

    width = 64
    SHORTEST = 19  # bytes that the two convolutions need for one answer

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        self.embedding = nn.Embedding(256, 32, padding_idx=0)
        self.convolutions = nn.Sequential(
            nn.Conv1d(32, 64, 7, stride=3), nn.ReLU(), nn.Conv1d(64, self.width, 5, stride=2), nn.ReLU()
        )

    def forward(self, message: torch.Tensor) -> torch.Tensor:
        """Turn (n, length) into (n, 64)."""
        numbers = message.long()
        used = int((numbers != 0).any(dim=0).nonzero().max()) + 1 if bool(numbers.any()) else 0
        answers = self.convolutions(self.embedding(numbers[:, : max(used, self.SHORTEST)]).transpose(1, 2))
        return answers.amax(dim=2)


class MapFeatures(nn.Module):
    """NetHack's map of glyphs: convolutions over all of it, and others over the cells around the hero.

    Args:
        space: (rows, columns), its bounds those of the glyphs.
    """

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        self.embedding = nn.Embedding(int(space.high.max()) + 2, 16, padding_idx=0)  # 0 is beyond the map's edge
        self.whole = nn.Sequential(
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.close = nn.Sequential(
            nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten()
        )  # 9 to 5 cells a side
        rows, columns = (int(np.ceil(side / 8)) for side in space.shape)
        self.width = 32 * rows * columns + 32 * (CROP - 4) ** 2

    def forward(self, glyphs: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
        """Turn the map, (n, rows, columns), and the hero's column and row, (n, 2), into (n, width).

        Without a place the middle of the map is looked at closely.
        """
        n, rows, columns = glyphs.shape
        numbers = glyphs.long() + 1
        if place is None:
            place = torch.tensor([[columns // 2, rows // 2]], device=glyphs.device).expand(n, 2)
        around = nn.functional.pad(numbers, (CROP // 2,) * 4)
        offsets = torch.arange(CROP, device=glyphs.device)
        row, column = (place[:, i].clamp(0, side - 1)[:, None] + offsets for i, side in ((1, rows), (0, columns)))
        cut = around[torch.arange(n, device=glyphs.device)[:, None, None], row[:, :, None], column[:, None, :]]
        whole, close = (self.embedding(part).permute(0, 3, 1, 2) for part in (numbers, cut))
        return torch.cat([self.whole(whole), self.close(close)], dim=1)


class StatisticsFeatures(nn.Module):
    """Counts of very different sizes: the logarithm of each, with its sign, then a layer.

    Args:
        space: (length,).
    """

    width = 64

    def __init__(self, space: gym.spaces.Box):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(space.shape[0], self.width), nn.ReLU())

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Turn (n, length) into (n, 64)."""
        return self.layer(torch.sign(numbers) * torch.log1p(numbers.abs()))


PARTS: dict[str, Any] = {
    "image": CellFeatures,
    "mission": WordFeatures,
    "glyphs": MapFeatures,
    "message": MessageFeatures,
    "blstats": StatisticsFeatures,
}


def _part(key: str, space: gym.spaces.Space) -> nn.Module:
    """Make the part of a key; what is not known is seen as Stable-Baselines3's `CombinedExtractor` sees it."""
    if is_image_space(space):
        return NatureCNN(space)
    if key in PARTS and isinstance(space, gym.spaces.Box) and (key != "image" or space.high.max() <= LARGEST_NUMBER):
        return PARTS[key](space)
    return nn.Flatten()


def _width(part: nn.Module, space: gym.spaces.Space) -> int:
    if isinstance(part, NatureCNN):
        return part.features_dim
    return int(getattr(part, "width", 0)) or get_flattened_obs_dim(space)


def policy_for(
    observation_space: gym.spaces.Space, features_dim: int, suffix: str = "Policy"
) -> tuple[str, dict[str, Any]]:
    """Choose Stable-Baselines3's policy for what an environment shows, and how its features are made.

    Args:
        observation_space: A vector, a picture, or a dict of parts.
        features_dim: Width of what a dict's parts are made into.
        suffix: End of the policy's name: "Policy", or "LstmPolicy" of recurrent algorithms.

    Returns:
        Its name and arguments for it.
    """
    if is_image_space(observation_space):
        return f"Cnn{suffix}", {}
    if not isinstance(observation_space, gym.spaces.Dict):
        return f"Mlp{suffix}", {}
    return f"MultiInput{suffix}", {
        "features_extractor_class": WorldFeatures,
        "features_extractor_kwargs": {"features_dim": features_dim},
    }
