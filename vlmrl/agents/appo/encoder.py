"""What a policy of sample-factory sees with: what the policies of Stable-Baselines3 see with here."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import nn

from vlmrl.agents.features import WorldFeatures

SINGLE = "obs"  # what sample-factory calls an observation that is no dict


class FeatureEncoder(nn.Module):
    """A features extractor of Stable-Baselines3, then layers: an encoder as sample-factory wants one.

    Args:
        cfg: sample-factory's settings, with `encoder_mlp_layers`, width of each layer, and `features_dim`, width of
            what the parts of a dict are made into.
        obs_space: Dict of spaces.
    """

    def __init__(self, cfg: Any, obs_space: gym.spaces.Dict):
        super().__init__()
        self._single = list(obs_space.spaces) == [SINGLE]
        self._spaces = {key: channels_first(space) for key, space in obs_space.spaces.items()}
        self._turned = {key for key, space in obs_space.spaces.items() if self._spaces[key] is not space}
        seen = self._spaces[SINGLE] if self._single else gym.spaces.Dict(self._spaces)
        self.extractor = features_extractor(seen, cfg.features_dim)
        layers: list[nn.Module] = []
        size = self.extractor.features_dim
        for width in cfg.encoder_mlp_layers:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.layers = nn.Sequential(*layers)
        self._size = size

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return features, (n, width) float32, of n observations."""
        seen: dict[str, Any] = {}
        for key, space in self._spaces.items():
            value = observations[key]
            seen[key] = preprocess_obs(value.permute(0, 3, 1, 2) if key in self._turned else value, space)
        return self.layers(self.extractor(seen[SINGLE] if self._single else seen))

    def get_out_size(self) -> int:
        """Return the number of features."""
        return self._size

    def model_to_device(self, device: Any) -> None:
        """Move to a device."""
        self.to(device)

    def device_for_input_tensor(self, input_tensor_name: str) -> torch.device | None:
        """Return where observations must be; None leaves it to the rest of the network."""
        parameter = next(self.parameters(), None)
        return parameter.device if parameter is not None else None

    def type_for_input_tensor(self, input_tensor_name: str) -> torch.dtype:
        """Return the type of observations; numbers of glyphs and characters are whole in float32, too."""
        return torch.float32


def features_extractor(space: gym.Space, features_dim: int) -> BaseFeaturesExtractor:
    """Return what the suite's other agents see a space with, see `vlmrl.agents.features.policy_for`.

    Args:
        space: Pictures with their channels first.
        features_dim: Width of what the parts of a dict are made into.
    """
    if isinstance(space, gym.spaces.Dict):
        return WorldFeatures(space, features_dim)
    if isinstance(space, gym.spaces.Box) and is_image_space(space):
        return NatureCNN(space)
    return FlattenExtractor(space)


def channels_first(space: gym.Space) -> gym.Space:
    """Return a space with the channels of pictures before their rows, as convolutions want them; others as they are."""
    if isinstance(space, gym.spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        return VecTransposeImage.transpose_space(space)
    return space
