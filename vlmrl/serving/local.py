"""The encoder in this process, on the caller's time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmrl.serving.engine import LocalEngine
from vlmrl.serving.settings import BatchSettings, Service


@dataclass(frozen=True)
class LocalConfig(BatchSettings):
    """Settings of `scorer=local`: those of every scorer."""

    def build(self, encoder: Any, device: str) -> Service:
        """Load the encoder and serve it.

        Args:
            encoder: Its settings, an entry of `ENCODERS`.
            device: Torch device.
        """
        return self.serve(LocalEngine(encoder.build(device), self.batch_size))
