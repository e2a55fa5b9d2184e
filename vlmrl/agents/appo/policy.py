"""A policy that sample-factory has trained, which acts as those of Stable-Baselines3 do."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from vlmrl.agents.appo.encoder import SINGLE, FeatureEncoder
from vlmrl.errors import UserError

EXPERIMENT = "checkpoints"  # sample-factory's folder in the run's
CHECKPOINTS = f"{EXPERIMENT}/checkpoint_p0"
PATTERN = "checkpoint_*_*.pth"  # gradient steps with leading zeros, and steps of the environments


class AppoPolicy:
    """See this module.

    Args:
        options: sample-factory's settings, by their names there.
        observation_space: What the policy sees.
        action_space: How it acts.
        device: Where its network runs.

    Attributes:
        num_timesteps: Steps that it was trained for.
    """

    def __init__(
        self, options: Mapping[str, Any], observation_space: gym.Space, action_space: gym.Space, device: str = "cpu"
    ):
        from sample_factory.model.model_utils import get_rnn_size
        from sample_factory.utils.attr_dict import AttrDict

        self.observation_space, self.action_space = observation_space, action_space
        self.num_timesteps = 0
        self._options = dict(options)
        self._device = torch.device(device)
        self._memory = get_rnn_size(AttrDict(self._options))
        self._network = self._make()

    def draw(self, seed: int) -> None:
        """Draw the weights that sample-factory's learner draws with a seed."""
        torch.manual_seed(seed)
        self._network = self._make()

    def _make(self) -> Any:
        from sample_factory.model.actor_critic import create_actor_critic
        from sample_factory.utils.attr_dict import AttrDict

        register_encoder()
        spaces = factory_space(self.observation_space), from_zero(self.action_space)
        network = create_actor_critic(AttrDict(self._options), *spaces)
        network.model_to_device(self._device)
        network.eval()
        return network

    @torch.no_grad()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Act.

        Args:
            observation: Of n environments, an array or a dict of arrays.
            state: (n, memory) float32, what the last call returned; None at the start.
            episode_start: (n,) bool, where an episode has just begun: its memory is empty.
            deterministic: Take the most probable action, instead of drawing one.

        Returns:
            Actions, (n, ...), and the memory after them, (n, memory) float32.
        """
        from sample_factory.algo.utils.action_distributions import argmax_actions
        from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs

        parts = observation if isinstance(observation, dict) else {SINGLE: observation}
        tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in parts.items()}
        n = len(next(iter(tensors.values())))
        memory = np.zeros((n, self._memory), dtype=np.float32) if state is None else np.array(state, dtype=np.float32)
        if episode_start is not None:
            memory[np.asarray(episode_start, dtype=bool)] = 0.0
        outputs = self._network(
            prepare_and_normalize_obs(self._network, tensors), torch.from_numpy(memory).to(self._device)
        )
        actions = argmax_actions(self._network.action_distribution()) if deterministic else outputs["actions"]
        return self._as_actions(actions.cpu().numpy().reshape(n, -1)), outputs["new_rnn_states"].cpu().numpy()

    def save(self, path: Path) -> None:
        """Write network, settings and spaces into one file."""
        torch.save(
            {
                "options": self._options,
                "spaces": (self.observation_space, self.action_space),
                "num_timesteps": self.num_timesteps,
                "model": self._network.state_dict(),
            },
            path,
        )

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> AppoPolicy:
        """Read what `save` wrote. Like files of Stable-Baselines3 it can run code: load what you trust.

        Raises:
            UserError: It is no such file.
        """
        try:
            # Spaces are objects, which is more than weights.
            saved = torch.load(path, map_location=device, weights_only=False)
            observation_space, action_space = saved["spaces"]
            policy = cls(saved["options"], observation_space, action_space, device)
            policy._network.load_state_dict(saved["model"])
            policy.num_timesteps = int(saved["num_timesteps"])
        except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(f"'{path}' is no policy of agent=appo ({type(error).__name__}: {error}).") from error
        return policy

    def take_checkpoint(self, run: Path) -> AppoPolicy:
        """Take the weights of the newest checkpoint of sample-factory in a run's folder.

        Raises:
            UserError: There is none.
        """
        path = newest_checkpoint(run)
        saved = torch.load(path, map_location=self._device, weights_only=False)
        self._network.load_state_dict(saved["model"])
        self.num_timesteps = int(saved["env_steps"])
        return self

    def _as_actions(self, actions: np.ndarray) -> np.ndarray:
        """Return actions, (n, k), as the environment wants them."""
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            return actions[:, 0].astype(space.dtype) + space.start
        assert isinstance(space, gym.spaces.Box)
        return np.clip(actions.astype(space.dtype), space.low, space.high)


def has_checkpoint(run: Path) -> bool:
    """Return whether sample-factory has written a checkpoint in a run's folder."""
    return any((run / CHECKPOINTS).glob(PATTERN))


def newest_checkpoint(run: Path) -> Path:
    """Return the newest checkpoint of sample-factory in a run's folder.

    Raises:
        UserError: There is none.
    """
    found = sorted((run / CHECKPOINTS).glob(PATTERN))
    if not found:
        raise UserError(f"'{run}' holds no checkpoint to go on from: it ended before the first one (checkpoint_every).")
    return found[-1]


def steps_of(checkpoint: Path) -> int:
    """Return the steps of the environments after which a checkpoint was written."""
    return int(checkpoint.stem.rpartition("_")[2])


def register_encoder() -> None:
    """Have sample-factory, in this process and in those that it starts, see with `FeatureEncoder`."""
    from sample_factory.algo.utils.context import global_model_factory

    global_model_factory().register_encoder_factory(FeatureEncoder)


def factory_space(space: gym.Space) -> gym.spaces.Dict:
    """Return the space in sample-factory's form, in which every observation is a dict."""
    return space if isinstance(space, gym.spaces.Dict) else gym.spaces.Dict({SINGLE: space})


def from_zero(space: gym.Space) -> gym.Space:
    """Return a space of actions with those that are numbered counted from 0, as sample-factory does."""
    return gym.spaces.Discrete(space.n) if isinstance(space, gym.spaces.Discrete) else space
