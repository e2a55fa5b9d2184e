"""Batched pictures for open_clip models: what their own preprocessing makes, without a loop over PIL images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class Preprocess:
    """Resizes, crops and normalises a batch as open_clip's inference transform does to one picture.

    Like PIL it resizes with antialiasing in whole grey levels. A frame of the model's own size is not resized.

    Args:
        cfg: open_clip's `preprocess_cfg`: `size` (pixels, int or (height, width)), `mean` and `std` (per channel, of
            pixels from 0 to 1), `interpolation` ("bicubic" or "bilinear"), `resize_mode` ("squash", "shortest" or
            "longest") and `fill_color` (0 to 255).
        device: Where the model is.
    """

    def __init__(self, cfg: Mapping[str, Any], device: torch.device):
        size = cfg["size"]
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[-1])
        self._mode = cfg["resize_mode"]
        # open_clip reads "random", which some weights were trained with, as bicubic, and knows no third method. For a
        # shortest-edge resize to a size that is not square it leaves the method out, and the default is bicubic.
        not_square = self._mode == "shortest" and self.size[0] != self.size[1]
        self._interpolation = "bilinear" if cfg["interpolation"] == "bilinear" and not not_square else "bicubic"
        self._fill = cfg["fill_color"]
        self._device = device
        self._mean = torch.tensor(cfg["mean"], device=device).view(1, -1, 1, 1) * 255
        self._std = torch.tensor(cfg["std"], device=device).view(1, -1, 1, 1) * 255

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """Return (n, 3, height, width) float32 in the model's units from (n, H, W, 3) uint8 RGB."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2)
        resized = self._resized_size(*pixels.shape[2:])
        if resized != tuple(pixels.shape[2:]):
            # Only the CPU resizes bytes; elsewhere do it in floats and round, which comes to the same.
            source = pixels if pixels.device.type == "cpu" else pixels.float()
            source = torch.nn.functional.interpolate(source, size=resized, mode=self._interpolation, antialias=True)
            pixels = source if source.dtype == torch.uint8 else source.clamp(0, 255).round()
        return (self._crop_or_pad(pixels).float() - self._mean) / self._std

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        if self._mode == "squash":
            return self.size
        if self._mode == "shortest" and self.size[0] == self.size[1]:
            # torchvision cuts the longer edge off to whole pixels, open_clip's own resize rounds it.
            short, long = min(height, width), max(height, width)
            edge = self.size[0]
            other = int(edge * long / short)
            return (edge, other) if height <= width else (other, edge)
        ratios = (height / self.size[0], width / self.size[1])
        ratio = max(ratios) if self._mode == "longest" else min(ratios)
        return round(height / ratio), round(width / ratio)

    def _crop_or_pad(self, pixels: torch.Tensor) -> torch.Tensor:
        for dimension, wanted in ((2, self.size[0]), (3, self.size[1])):
            extra = pixels.shape[dimension] - wanted
            if extra > 0:
                pixels = pixels.narrow(dimension, round(extra / 2), wanted)
            elif extra < 0:
                before, after = -extra // 2, (1 - extra) // 2
                around = (0, 0, before, after) if dimension == 2 else (before, after, 0, 0)
                pixels = torch.nn.functional.pad(pixels, around, value=self._fill)
        return pixels
