"""Networks of learners of recorded data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

# Bounds of the logarithm of the standard deviation, as in the IQL authors' settings. Below, one action of the data
# can have a likelihood that outweighs all others.
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, started as in the IQL authors' code.

    Args:
        sizes: Width of input, hidden layers and output.
        dropout: Share of hidden units that is left out in training.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [_orthogonal(nn.Linear(inputs, outputs)), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, _orthogonal(nn.Linear(sizes[-2], sizes[-1])))


class TwinMlp(nn.Module):
    """Two networks of one shape that see the same input, each layer one batched product.

    Args:
        sizes: Width of input, hidden layers and output.
    """

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(2, inputs, outputs)) for inputs, outputs in pairs])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(2, 1, outputs)) for _, outputs in pairs])
        for weight in self.weights:
            for one in weight:
                nn.init.orthogonal_(one, math.sqrt(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (n, D) float32 to (2, n, outputs) float32."""
        hidden = inputs.expand(2, *inputs.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if i < last:
                hidden = torch.relu(hidden)
        return hidden


class TwinCritic(nn.Module):
    """Q1 and Q2 of observations and actions; of discrete actions it has one output each.

    Args:
        features: Width of an observation.
        action_dim: Numbers of an action, or of different actions where they are discrete.
        discrete: Whether actions are numbers of actions.
        net_arch: Width of each hidden layer.
    """

    def __init__(self, features: int, action_dim: int, discrete: bool, net_arch: Sequence[int]):
        super().__init__()
        self._discrete = discrete
        sizes = [features, *net_arch, action_dim] if discrete else [features + action_dim, *net_arch, 1]
        self.net = TwinMlp(sizes)

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return (2, n) values of (n, features) observations and (n, action_dim) float32 or (n,) int64 actions."""
        if not self._discrete:
            return self.net(torch.cat([observations, actions], dim=1)).squeeze(2)
        index = actions.expand(2, -1).unsqueeze(2)
        return self.net(observations).gather(2, index).squeeze(2)


class GaussianHead(nn.Module):
    """A normal distribution over actions from -1 to 1: its mean is a tanh, its deviation is the same everywhere.

    The parametrisation of the IQL authors: the samples themselves are not squashed.

    Args:
        features: Width of an observation.
        action_dim: Numbers of an action.
        net_arch: Width of each hidden layer.
        dropout: Share of hidden units that is left out in training.
    """

    def __init__(self, features: int, action_dim: int, net_arch: Sequence[int], dropout: float):
        super().__init__()
        self.net = mlp([features, *net_arch, action_dim], dropout)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def mode(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the means, (n, action_dim)."""
        return torch.tanh(self.net(observations))

    def sample(self, observations: torch.Tensor) -> torch.Tensor:
        """Draw actions, (n, action_dim), cut to -1 to 1."""
        mean = self.mode(observations)
        return (mean + self._log_std().exp() * torch.randn_like(mean)).clamp(-1, 1)

    def log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-density of actions, (n,)."""
        log_std = self._log_std()
        distance = (actions - self.mode(observations)) * torch.exp(-log_std)
        return -(0.5 * distance.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=1)

    def _log_std(self) -> torch.Tensor:
        return self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


class CategoricalHead(nn.Module):
    """A distribution over discrete actions, numbered from 0.

    Args:
        features: Width of an observation.
        n_actions: Number of different actions.
        net_arch: Width of each hidden layer.
        dropout: Share of hidden units that is left out in training.
    """

    def __init__(self, features: int, n_actions: int, net_arch: Sequence[int], dropout: float):
        super().__init__()
        self.net = mlp([features, *net_arch, n_actions], dropout)

    def mode(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the most likely actions, (n,) int64."""
        return self.net(observations).argmax(dim=1)

    def sample(self, observations: torch.Tensor) -> torch.Tensor:
        """Draw actions, (n,) int64."""
        return torch.multinomial(self.net(observations).softmax(dim=1), 1).squeeze(1)

    def log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of actions, (n,)."""
        return self.net(observations).log_softmax(dim=1).gather(1, actions.unsqueeze(1)).squeeze(1)


def _orthogonal(layer: nn.Linear) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, math.sqrt(2))
    nn.init.zeros_(layer.bias)
    return layer
