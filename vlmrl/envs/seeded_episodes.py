"""Episodes whose start depends on their number alone, not on what was drawn before them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class SeededEpisodes(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Seeds every reset with a function of (seed, index of the environment, number of the episode).

    So a run that is resumed at an episode's start goes on as if it had never stopped.

    Args:
        env: The environment.
        seed: Seed of the run.
        index: Index of this environment in its vector.
        episode: Number of the first episode.
    """

    def __init__(self, env: gym.Env, seed: int, index: int = 0, episode: int = 0):
        gym.utils.RecordConstructorArgs.__init__(self, seed=seed, index=index, episode=episode)
        gym.Wrapper.__init__(self, env)
        self._seed, self._index, self._episode = seed, index, episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode; a seed that is given explicitly wins."""
        if seed is None:
            seed = episode_seed(self._seed, self._index, self._episode)
        self._episode += 1
        return self.env.reset(seed=seed, options=options)

    def set_next_episode(self, episode: int) -> None:
        """Choose the number of the episode that the next reset starts."""
        self._episode = episode


def episode_seed(seed: int, index: int, episode: int) -> int:
    """Return the seed of one episode, 0 to 2**31 - 1 (numpy's SeedSequence over the three numbers)."""
    return int(np.random.SeedSequence([seed, index, episode]).generate_state(1)[0] >> 1)
