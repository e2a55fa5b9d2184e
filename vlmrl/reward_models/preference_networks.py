"""Networks that say how good a step is: an ensemble of small ones over what is kept of each step.

Sources: the picture networks are those of RL-VLM-F (Wang et al.: "RL-VLM-F: Reinforcement Learning from Vision Language
Foundation Model Feedback", ICML 2024, arXiv 2402.03681); an ensemble with tanh outputs is that of PEBBLE (Lee, Smith,
Abbeel: "PEBBLE: Feedback-Efficient Interactive Reinforcement Learning", ICML 2021, arXiv 2106.05091).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from vlmrl.encoders.torchvision_ops import prepare_torchvision

Network = Literal["mlp", "cnn", "resnet"]

# Kernel, channels and stride of each layer of RL-VLM-F's convolutional network.
CONVOLUTIONS = ((5, 16, 3), (3, 32, 2), (3, 64, 2), (3, 128, 2))
LEAST_SIZE = 55  # pixels below which the last of them has nothing left to look at


class RewardEnsemble(nn.Module):
    """Several networks of one kind, which differ in their first weights and in the answers that they learn from.

    Args:
        network: "mlp" for vectors; "cnn" or "resnet" for pictures.
        shape: Of one input: (F,) or (channels, height, width).
        net_arch: Width of each hidden layer of an "mlp".
        size: Number of networks.
        squash: Whether rewards go through tanh.

    Attributes:
        log_rationality: (size,), logarithm of the factor that turns a difference of rewards into log odds: of squashed
            rewards, which could not differ by more than 2, it is learned; else it stays 0.
        log_ties: (size,), logarithm of Davidson's nu, how common ties are.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network, shape: Sequence[int], net_arch: Sequence[int], size: int, squash: bool):
        super().__init__()
        self.network, self.shape, self.net_arch, self.squash = network, tuple(shape), tuple(net_arch), squash
        self.members = nn.ModuleList(_network(network, self.shape, self.net_arch) for _ in range(size))
        self.log_rationality = nn.Parameter(torch.zeros(size), requires_grad=squash)
        self.log_ties = nn.Parameter(torch.zeros(size))
        # Embeddings of one scene differ in the third digit: without this a network would hardly see that they do.
        self.register_buffer("mean", torch.zeros(self.shape if network == "mlp" else ()))
        self.register_buffer("std", torch.ones(self.shape if network == "mlp" else ()))

    def normalise_by(self, inputs: torch.Tensor) -> None:
        """Bring vectors to mean 0 and spread 1 from now on, by those of (n, F) inputs; pictures stay as they are."""
        if self.network == "mlp":
            self.mean.copy_(inputs.mean(dim=0))
            spread = inputs.std(dim=0, correction=0)
            self.std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def member(self, i: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return the rewards of one network.

        Args:
            i: Its index.
            inputs: (n, F) float32, or (n, channels, height, width) uint8.

        Returns:
            (n,) float32; -1 to 1 where rewards are squashed.
        """
        prepared = (inputs - self.mean) / self.std if self.network == "mlp" else inputs.float() / 255 - 0.5
        rewards = self.members[i](prepared).squeeze(-1)
        return torch.tanh(rewards) if self.squash else rewards

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the rewards of all networks, (size, n) float32."""
        return torch.stack([self.member(i, inputs) for i in range(len(self.members))])

    def member_parameters(self, i: int) -> list[nn.Parameter]:
        """Return what is trained of one network, but for its entries of `log_rationality` and `log_ties`."""
        return list(self.members[i].parameters())


def _network(network: Network, shape: tuple[int, ...], net_arch: tuple[int, ...]) -> nn.Module:
    if network == "mlp":
        layers: list[nn.Module] = []
        widths = [shape[0], *net_arch]
        for width, following in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(width, following), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 1))
    if network == "cnn":
        layers, channels = [], shape[0]
        for kernel, following, stride in CONVOLUTIONS:
            layers += [nn.Conv2d(channels, following, kernel, stride), nn.ReLU()]
            channels = following
        body = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            width = body(torch.zeros(1, *shape)).shape[1]
        return nn.Sequential(body, nn.Linear(width, 1))
    prepare_torchvision()
    from torchvision.models import resnet18

    net = resnet18(weights=None, num_classes=1)
    if shape[0] != 3:  # several cameras, one behind the other
        net.conv1 = nn.Conv2d(shape[0], 64, kernel_size=7, stride=2, padding=3, bias=False)
    return net
