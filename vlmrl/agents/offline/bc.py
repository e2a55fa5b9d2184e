"""Behaviour cloning: the policy that is most likely to have made the recordings (Pomerleau 1989)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from vlmrl.agents.offline.algorithm import OfflineAlgorithm, descend
from vlmrl.agents.offline.losses import weighted_log_likelihood_loss
from vlmrl.agents.offline.policies import OfflinePolicy
from vlmrl.datasets.base import Transitions


class BCPolicy(OfflinePolicy):
    """The policy of behaviour cloning."""


class BC(OfflineAlgorithm):
    """Maximises the likelihood of the actions in the data. It looks at no reward: what rewards add is told against it.

    Networks and arguments are those of `OfflineAlgorithm`.
    """

    policy: BCPolicy
    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": BCPolicy, "MultiInputPolicy": BCPolicy}
    figures = ("actor_loss",)
    optimizers = ("actor_optimizer",)

    def _columns(self, dataset: Transitions, actions: np.ndarray) -> dict[str, np.ndarray]:
        return {"observations": self._seen(dataset.observations), "actions": self._scaled(actions)}

    def _rates(self, progress: np.ndarray) -> np.ndarray:
        return np.array([[self.lr_schedule(1 - share)] for share in progress])

    def update(self, index: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Do one update; see `OfflineAlgorithm`."""
        assert self._data is not None
        batch = self._data.batch(index)
        actions = batch["actions"].squeeze(1).long() if self.policy.discrete else batch["actions"]
        log_prob = self.policy.action_net.log_prob(batch["observations"], actions)
        loss = weighted_log_likelihood_loss(torch.ones_like(log_prob), log_prob)
        descend(self.policy.actor_optimizer, loss, rates[0])
        return loss.detach().unsqueeze(0)
