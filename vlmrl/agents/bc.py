"""Behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmrl.agents.offline_config import OfflineConfig, shared_arguments

if TYPE_CHECKING:
    import gymnasium as gym

    from vlmrl.agents.offline.bc import BC


@dataclass(frozen=True, kw_only=True)
class BcConfig(OfflineConfig):
    """Settings of `agent=bc`; `configs/agent/bc.yaml` has values."""

    def build(self, observation_space: gym.Space, action_space: gym.Space, seed: int, device: str) -> BC:
        """Make the algorithm, without data; see `IqlConfig.build`."""
        from vlmrl.agents.offline.bc import BC

        return BC(**shared_arguments(self, observation_space, action_space, seed, device))

    def algorithm(self) -> type[BC]:
        """Return the class, which loads what it has saved."""
        from vlmrl.agents.offline.bc import BC

        return BC
