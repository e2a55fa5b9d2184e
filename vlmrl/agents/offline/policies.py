"""Policies that are learned from recorded data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from vlmrl.agents.offline.networks import CategoricalHead, GaussianHead, TwinCritic, mlp
from vlmrl.errors import UserError

STATE_EPS = 1e-3  # added to deviations of observations, so that what never changes is not blown up (CORL's value)


class OfflinePolicy(BasePolicy):
    """Observations to actions, with the scales of both that the data gave; behaviour cloning needs no more.

    Args:
        observation_space: Box, Discrete, MultiBinary or MultiDiscrete, or a dict of them; no pictures.
        action_space: Box or Discrete.
        lr_schedule: Step size over the share of the run that remains, 1 to 0.
        net_arch: Width of each hidden layer of each network.
        dropout: Share of the actor's hidden units that is left out in training.
    """

    observation_mean: torch.Tensor
    observation_scale: torch.Tensor
    action_low: torch.Tensor
    action_high: torch.Tensor

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        lr_schedule: Schedule,
        net_arch: Sequence[int] = (256, 256),
        dropout: float = 0.0,
    ):
        super().__init__(observation_space, action_space)
        check_observations(observation_space)
        self.net_arch, self.dropout, self._lr_schedule = tuple(net_arch), dropout, lr_schedule
        self.discrete = isinstance(action_space, gym.spaces.Discrete)
        self.features = gym.spaces.flatdim(observation_space)
        # Means and deviations of observations and bounds of actions are saved with the weights: without them they
        # mean nothing.
        self.register_buffer("observation_mean", torch.zeros(self.features))
        self.register_buffer("observation_scale", torch.ones(self.features))
        if isinstance(action_space, gym.spaces.Discrete):
            self.action_dim = int(action_space.n)
            self.action_net: GaussianHead | CategoricalHead = CategoricalHead(
                self.features, self.action_dim, net_arch, dropout
            )
        elif isinstance(action_space, gym.spaces.Box):
            self.action_dim = int(np.prod(action_space.shape))
            self.register_buffer("action_low", torch.from_numpy(action_space.low.reshape(-1).astype(np.float32)))
            self.register_buffer("action_high", torch.from_numpy(action_space.high.reshape(-1).astype(np.float32)))
            self.action_net = GaussianHead(self.features, self.action_dim, net_arch, dropout)
        else:
            raise UserError(
                f"Policies are learned for actions in a Box or a Discrete space; these are in {action_space}."
            )
        self.actor_optimizer = _adam(self.action_net, lr_schedule(1))

    def normalize(self, observations: torch.Tensor) -> torch.Tensor:
        """Return (n, features) observations as the networks see them."""
        return (observations - self.observation_mean) / self.observation_scale

    def scale_actions(self, actions: torch.Tensor) -> torch.Tensor:
        """Return (n, action_dim) actions of the space between -1 and 1; discrete ones, (n,), counted from 0."""
        if isinstance(self.action_space, gym.spaces.Discrete):
            return actions - int(self.action_space.start)
        return 2 * (actions - self.action_low) / (self.action_high - self.action_low) - 1

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """See `_predict`."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """Return actions of the space: the most likely ones, or a draw."""
        features = self.normalize(self._flatten(observation))
        actions = self.action_net.mode(features) if deterministic else self.action_net.sample(features)
        if isinstance(self.action_space, gym.spaces.Discrete):
            return actions + int(self.action_space.start)
        return self.action_low + (actions + 1) / 2 * (self.action_high - self.action_low)

    def _flatten(self, observation: PyTorchObs) -> torch.Tensor:
        """Return (n, features) float32, in the order of `vlmrl.datasets.base.flatten`."""
        counted = _from_zero(observation, self.observation_space)
        ready = preprocess_obs(counted, self.observation_space, normalize_images=False)
        if isinstance(self.observation_space, gym.spaces.Dict):
            return torch.cat([ready[name].flatten(1) for name in self.observation_space.spaces], dim=1)  # type: ignore[index]
        return ready.flatten(1)  # type: ignore[union-attr]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # whoever loads a policy alone does not train it
            "net_arch": self.net_arch,
            "dropout": self.dropout,
        }


class IQLPolicy(OfflinePolicy):
    """The policy of implicit Q-learning with what judges it: V, twin Q, and the slowly following copy of Q.

    Args:
        observation_space: See `OfflinePolicy`.
        action_space: See `OfflinePolicy`.
        lr_schedule: See `OfflinePolicy`.
        net_arch: See `OfflinePolicy`.
        dropout: See `OfflinePolicy`.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        lr_schedule: Schedule,
        net_arch: Sequence[int] = (256, 256),
        dropout: float = 0.0,
    ):
        super().__init__(observation_space, action_space, lr_schedule, net_arch, dropout)
        self.value_net = mlp([self.features, *net_arch, 1])
        self.critic = TwinCritic(self.features, self.action_dim, self.discrete, net_arch)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.value_optimizer = _adam(self.value_net, lr_schedule(1))
        self.critic_optimizer = _adam(self.critic, lr_schedule(1))


def _adam(module: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Make an Adam whose step is one kernel; the step size is a tensor, so that a graph can change it."""
    return torch.optim.Adam(module.parameters(), lr=torch.tensor(learning_rate), fused=True)


def _from_zero(observation: Any, space: gym.Space) -> Any:
    """Count observations of Discrete and MultiDiscrete spaces from 0, as SB3's `preprocess_obs` takes for granted."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _from_zero(observation[name], part) for name, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return observation - torch.as_tensor(space.start, device=observation.device)
    return observation


def check_observations(space: gym.Space) -> None:
    """Refuse observations that cannot be flattened into numbers that mean something.

    Raises:
        UserError: Pictures, nested dicts, or an unknown kind of space.
    """
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    for part in parts:
        if isinstance(part, gym.spaces.Box) and is_image_space(part):
            raise UserError(
                f"Observations of shape {part.shape} are pictures. iql and bc learn from numbers, such as joint "
                "angles; record those beside the pictures."
            )
        if not isinstance(
            part, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiBinary | gym.spaces.MultiDiscrete
        ):
            raise UserError(
                f"Observations of a space {part} cannot be learned from; Box, Discrete and dicts of them can."
            )
