"""Blocks of gradient updates: one after the other on a CPU, as one replayed graph on a CUDA device.

What an update does is captured once, for all updates of a block; a replay then costs the host one call. Batches and
step sizes of a block lie in tensors that the graph reads. They are drawn on the host, so that all devices learn from
the same batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

# Takes the transitions of a batch, (n,) int64, and the step sizes of the update; gives figures to be logged.
Update = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class UpdateBlocks:
    """Runs updates in blocks.

    Args:
        update: One update; on CUDA it must not wait for the device.
        device: Where.
        size: Updates of a full block; only full ones are graphs.
    """

    def __init__(self, update: Update, device: torch.device, size: int):
        self._update, self._device, self._size = update, device, size
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = False
        self._refused = device.type != "cuda"

    def run(self, indices: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Do a block.

        Args:
            indices: (n, batch_size) int64 on the host.
            rates: (n, optimisers) float32 on the host, the step sizes.

        Returns:
            Figures of the updates, their mean, on the device.
        """
        if self._refused or len(indices) != self._size:
            return self._each(indices.to(self._device), rates.to(self._device))
        if not self._warm:
            return self._warm_up(indices, rates)
        if self._graph is None and not self._capture(indices, rates):
            return self._each(indices.to(self._device), rates.to(self._device))
        assert self._graph is not None
        self._indices.copy_(indices)
        self._rates.copy_(rates)
        self._graph.replay()
        return self._figures.clone()

    def _each(self, indices: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        total = self._update(indices[0], rates[0])
        for i in range(1, len(indices)):
            total = total + self._update(indices[i], rates[i])
        return total / len(indices)

    def _warm_up(self, indices: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Do the first block without a graph: libraries and optimisers make what they keep, on a stream of its own."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            figures = self._each(indices.to(self._device), rates.to(self._device))
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._warm = True
        return figures

    def _capture(self, indices: torch.Tensor, rates: torch.Tensor) -> bool:
        """Record a block without doing it; where that cannot be done, say so and return False."""
        self._indices, self._rates = indices.to(self._device), rates.to(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._figures = self._each(self._indices, self._rates)
        except RuntimeError as error:
            warnings.warn(f"Updates run one by one: no CUDA graph could be made of them ({error}).", stacklevel=2)
            self._refused = True
            return False
        self._graph = graph
        return True
