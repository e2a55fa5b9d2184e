"""The vector path: environments step on while their rewards are still on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from vlmrl.envs.frame_ring import FrameRing
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.reward_models.base import EpisodeEndingModel, awaits_end
from vlmrl.rows import Row, RowKey


class RewardVecEnv(VecEnvWrapper):
    """Gives each transition a key instead of a reward, or the reward at once.

    With `wait=False` the reward is a placeholder 0, and a buffer adds the real one to it later (adds, because SB3's
    on-policy algorithms put `gamma * V(terminal)` into the reward of a truncated step before the buffer sees it).
    `keys` then names the rows of the last step. With `wait=True` the reward is computed before `step` returns: for any
    SB3 algorithm with its own buffers, and for models whose output ends episodes.

    Args:
        venv: Its environments are wrapped in `RowWriter`.
        rewards: Takes the rows and computes the rewards.
        wait: Whether to compute each reward before `step` returns.
        end_episodes: Whether a model that ends episodes does so: the step becomes one that terminated, `dones` and
            `infos` say so, and the environment is reset. Without it the model only rewards, as is wanted where
            policies are measured on episodes of full length.
        rings: Where the environments' processes put their pictures, one each; empty where the rows hold them.

    Attributes:
        keys: (n_envs,) of `KEY_DTYPE`, the rows that the last step arrived at.
        rewards: The same `LazyRewards`.
    """

    def __init__(
        self,
        venv: VecEnv,
        rewards: LazyRewards,
        wait: bool = False,
        end_episodes: bool = True,
        rings: Sequence[FrameRing] = (),
    ):
        super().__init__(venv)
        self._rings = rings
        self._ends = rewards.model.requires_sync and end_episodes
        if self._ends and not wait:
            raise ValueError(
                f"{type(rewards.model).__name__} ends episodes, so its rewards cannot come later; use wait=True."
            )
        if wait and rewards.scale.enabled:
            raise ValueError("A reward scale is fixed by a batch of first rewards; there is none with wait=True.")
        if wait and (rewards.lag or awaits_end(rewards.model)):
            raise ValueError("Rewards that are known some steps later cannot be had with wait=True.")
        self.rewards = rewards
        self.wait = wait
        self.keys = np.zeros(self.num_envs, dtype=KEY_DTYPE)
        self.keys["env"] = np.arange(self.num_envs)
        self.keys["episode"] = -1
        self._running = False  # whether there are episodes that a reset would leave
        self._time = self.keys.copy()  # where each environment is now; differs from keys after an automatic reset

    def reset(self) -> VecEnvObs:
        """Start new episodes everywhere."""
        observations = self.venv.reset()
        self.leave()
        self._time["episode"] += 1
        self._time["t"] = 0
        self._running = True
        self.rewards.observe([self._reset_row(i) for i in range(self.num_envs)])
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Take in the rows of a step; see the class for what the rewards are."""
        observations, _, dones, infos = self.venv.step_wait()
        self._time["t"] += 1
        self.keys = self._time.copy()
        rows = [(self._place(i), self._whole(i, info.pop(ROW))) for i, info in enumerate(infos)]
        for i in np.flatnonzero(dones):
            self._time[i]["episode"] += 1
            self._time[i]["t"] = 0
            rows.append(self._reset_row(int(i)))
        self.rewards.observe(rows)
        if not self.wait:
            return observations, np.zeros(self.num_envs, dtype=np.float32), dones, infos
        rewards = self.rewards.fill(self.keys)
        if self._ends:
            ended = np.flatnonzero(cast(EpisodeEndingModel, self.rewards.model).ends(rewards))
            observations, dones = self._terminate(ended, observations, dones, infos)
        return observations, rewards, dones, infos

    def _terminate(
        self, ended: np.ndarray, observations: Any, dones: np.ndarray, infos: Sequence[dict[str, Any]]
    ) -> tuple[Any, np.ndarray]:
        """Make the last step of these environments one that terminated; return observations and dones as they are then.

        Environments whose time ran out at the same step have started anew already: there a truncation becomes a
        termination.
        """
        dones, rows = dones.copy(), []
        for i in map(int, ended):
            infos[i]["TimeLimit.truncated"] = False
            if dones[i]:
                continue
            key = RowKey(*(int(self.keys[field][i]) for field in RowKey._fields))
            infos[i]["terminal_observation"] = _at(observations, i)
            if self.venv.has_attr("end_episode"):  # of EndableMonitor
                infos[i].update(self.venv.env_method("end_episode", indices=i)[0])
            ((start, reset_info),) = self.venv.env_method("reset", indices=i)
            self.venv.reset_infos = [*self.venv.reset_infos[:i], reset_info, *self.venv.reset_infos[i + 1 :]]
            observations, dones[i] = _with(observations, i, start), True
            self.rewards.end(key)
            self._time[i]["episode"] += 1
            self._time[i]["t"] = 0
            rows.append(self._reset_row(i))
        self.rewards.observe(rows)
        return observations, dones

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset, unless the environments choose their starts by episode (`SeededEpisodes`).

        SB3's algorithms seed their environments whenever they are made or loaded; a resumed run would start anew.
        """
        if all(self.env_is_wrapped(SeededEpisodes)):
            return [None] * self.num_envs
        return self.venv.seed(seed)

    @property
    def at_start(self) -> bool:
        """Whether every environment is at the start of an episode."""
        return not self._time["t"].any()

    @property
    def episodes(self) -> np.ndarray:
        """Number of the episode that each environment is in, (n_envs,) int; -1 before the first reset."""
        return self._time["episode"].copy()

    def set_next_episodes(self, episodes: np.ndarray) -> None:
        """Choose the numbers of the episodes that the next reset starts, (n_envs,) int; a reset must follow."""
        for i, episode in enumerate(episodes):
            self.env_method("set_next_episode", int(episode), indices=i)
        self.leave()
        self._time["episode"] = np.asarray(episodes) - 1
        self._time["t"] = 0

    def close(self) -> None:
        """Close the environments and the scorer."""
        self.rewards.close()
        super().close()

    def _place(self, i: int) -> RowKey:
        return RowKey(*(int(self._time[field][i]) for field in RowKey._fields))

    def leave(self) -> None:
        """Leave the running episodes, as a reset does, which must follow; what waits for rewards still gets them."""
        if not self._running:
            return
        for i in range(self.num_envs):
            self.rewards.cut(self._place(i))
        self._running = False

    def _reset_row(self, i: int) -> tuple[RowKey, Row]:
        return self._place(i), self._whole(i, self.venv.reset_infos[i].pop(ROW))

    def _whole(self, i: int, row: Row) -> Row:
        """Return a row of an environment with its pictures."""
        return self._rings[i].take(row) if self._rings else row


def _at(observations: Any, i: int) -> Any:
    """Return the observation of one environment, a copy."""
    if isinstance(observations, dict):
        return {key: value[i].copy() for key, value in observations.items()}
    return observations[i].copy()


def _with(observations: Any, i: int, single: Any) -> Any:
    """Return observations with that of one environment replaced."""
    if isinstance(observations, dict):
        return {key: _with(value, i, single[key]) for key, value in observations.items()}
    observations = observations.copy()
    observations[i] = single
    return observations
