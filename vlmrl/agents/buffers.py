"""SB3's buffers, with rewards that are filled in at the last moment that they are needed.

No learner sees an unfilled reward: a rollout buffer fills before it computes advantages, a replay buffer before it
samples. A fill *adds* to the placeholder 0, because SB3's on-policy algorithms add `gamma * V(terminal)` to the reward
of a truncated step before the buffer sees it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from vlmrl.envs.lazy_rewards import KEY_DTYPE
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.errors import UserError

# What a replay buffer holds, one entry a slot.
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "_keys")
CHUNK = 4096  # vector steps that are rewarded again at once


class RewardFillingReplayBuffer(ReplayBuffer):
    """A replay buffer that fills rewards in before it samples.

    Of a reward model that learns it keeps, beside each transition, what the model retains, so that `relabel` can
    reward all of them again. Pictures lie in a memory-mapped file without a name, in the folder for temporary files
    (`TMPDIR`), which is gone with the process.

    Args:
        *args: As for SB3's `ReplayBuffer`.
        lag: Number of newest vector steps that are neither filled nor sampled. It is a number of steps and not of
            seconds, so that timing never changes what is learned. 0 where the scorer runs in this process. Rewards
            that are themselves known only some steps later (`LazyRewards.lag`) add theirs.
        **kwargs: As for SB3's `ReplayBuffer`, but for `optimize_memory_usage`, which SB3 itself rules out where time
            limits bootstrap.
    """

    _window = 1  # steps of reward that one sample reads

    def __init__(self, *args: Any, lag: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._own_lag = lag
        self._source: RewardVecEnv | None = None
        self._keys = np.zeros((self.buffer_size, self.n_envs), dtype=KEY_DTYPE)
        self._added = 0  # vector steps ever added and ever filled; a step's slot is its number modulo the size
        self._filled = 0
        self._retained: dict[str, np.ndarray] = {}  # each (size, n_envs, ...); made with the first fill

    @property
    def lag(self) -> int:
        """Number of newest vector steps that are neither filled nor sampled."""
        return self._own_lag + (self._source.rewards.lag if self._source is not None else 0)

    @property
    def least(self) -> int:
        """Number of vector steps that must be there for a sample."""
        return self.lag + self._window

    def attach(self, source: RewardVecEnv) -> None:
        """Name the environments whose transitions come in and whose rewards are filled."""
        self._source = source

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        """Store a vector step; its reward may come later."""
        if self._source is not None:
            if self._added - self._filled == self.buffer_size:  # the slot to be overwritten still waits for its reward
                self._fill(self._added)
            self._keys[self.pos] = self._source.keys
        super().add(obs, next_obs, action, reward, done, infos)
        self._added += 1
        if self._source is None:
            self._filled = self._added

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Sample transitions whose rewards are in, filling those that are not.

        Raises:
            RuntimeError: The buffer holds no transition older than the lag.
        """
        self._fill(self._added - self.lag)
        if self.lag == 0:
            return super().sample(batch_size, env)
        kept = min(self._added, self.buffer_size)
        # The last window starts so that it ends with the newest filled step.
        count = kept - self.least + 1
        if count <= 0:
            raise RuntimeError(
                f"The buffer holds {kept} vector steps, sampling takes those older than {self.least - 1}. "
                "Raise learning_starts."
            )
        oldest = self._added - kept
        return self._get_samples((oldest + np.random.randint(0, count, size=batch_size)) % self.buffer_size, env=env)

    def _fill(self, until: int) -> None:
        """Fill the rewards of vector steps up to number `until`, in the order in which they happened."""
        if self._source is None or until <= self._filled:
            return
        slots = np.arange(self._filled, until) % self.buffer_size

        def keep(where: np.ndarray, retained: Mapping[str, np.ndarray]) -> None:
            for name, column in retained.items():
                if name not in self._retained:
                    self._retained[name] = _room((self.buffer_size, self.n_envs, *column.shape[1:]), column.dtype)
                self._retained[name][slots[where // self.n_envs], where % self.n_envs] = column

        filled = self._source.rewards.fill(self._keys[slots].ravel(), keep)
        self.rewards[slots] += filled.reshape(len(slots), self.n_envs)
        self._filled = until

    def fill(self) -> None:
        """Fill in the rewards of all transitions older than the lag, as sampling would."""
        self._fill(self._added - self.lag)

    def relabel(self) -> int:
        """Give every transition whose reward is in the reward that the model would give now, and fix the scale anew.

        Whatever is younger gets its reward from the same version when it is filled.

        Returns:
            Number of transitions.
        """
        assert self._source is not None
        self.fill()
        rewards = self._source.rewards
        slots = np.arange(max(self._added - self.buffer_size, 0), self._filled) % self.buffer_size
        if len(slots) == 0:
            return 0
        raw = [
            rewards.again({name: _flat(array[part]) for name, array in self._retained.items()})
            for part in np.split(slots, np.arange(CHUNK, len(slots), CHUNK))
        ]
        rewards.scale.forget()
        self.rewards[slots] = rewards.scale(np.concatenate(raw)).reshape(len(slots), self.n_envs)
        return len(slots) * self.n_envs

    def __getstate__(self) -> dict[str, Any]:
        """Fill what waits, and leave out the environments and the slots that were never used."""
        self._fill(self._added)
        state = {**self.__dict__, "_source": None}
        if not self.full:
            state |= {name: state[name][: self.pos] for name in _ARRAYS}
        kept = min(self._added, self.buffer_size)
        state["_retained"] = {name: np.array(array[:kept]) for name, array in self._retained.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give the arrays their full length again."""
        self.__dict__.update(state)
        for name in _ARRAYS:
            kept = state[name]
            whole = np.zeros((self.buffer_size, *kept.shape[1:]), dtype=kept.dtype)
            whole[: len(kept)] = kept
            setattr(self, name, whole)
        self._retained = {}
        for name, kept in state.get("_retained", {}).items():  # buffers of old runs have none
            self._retained[name] = _room((self.buffer_size, *kept.shape[1:]), kept.dtype)
            self._retained[name][: len(kept)] = kept


class RewardFillingNStepReplayBuffer(RewardFillingReplayBuffer, NStepReplayBuffer):
    """The same for n-step returns: all rewards of a window are in before it is sampled."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._window = self.n_steps


def _room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make an array for what is retained; one of pictures, uint8, is a memory-mapped file that has no name."""
    if dtype != np.uint8:
        return np.zeros(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _flat(array: np.ndarray) -> np.ndarray:
    """Put vector steps and environments on one axis: (steps, n_envs, ...) to (steps * n_envs, ...)."""
    return np.asarray(array).reshape(-1, *array.shape[2:])


class RewardFillingRolloutBuffer(RolloutBuffer):
    """A rollout buffer that fills rewards in before it computes returns and advantages."""

    _source: RewardVecEnv | None = None

    def attach(self, source: RewardVecEnv) -> None:
        """Name the environments whose transitions come in and whose rewards are filled."""
        self._source = source

    def reset(self) -> None:
        """Start an empty rollout."""
        super().reset()
        self._keys = np.zeros((self.buffer_size, self.n_envs), dtype=KEY_DTYPE)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Store a vector step; its reward may come later."""
        if self._source is not None:
            self._keys[self.pos] = self._source.keys
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Add the rewards to the placeholders, then compute as SB3 does."""
        if self._source is not None:
            self.rewards += self._source.rewards.fill(self._keys.ravel()).reshape(self.rewards.shape)
        super().compute_returns_and_advantage(last_values, dones)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the environments out."""
        return {**self.__dict__, "_source": None}


def reward_source(env: Any) -> RewardVecEnv | None:
    """Find the `RewardVecEnv` in a stack of vector wrappers; None where rewards come with the step."""
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, RewardVecEnv):
            return None if env.wait else env
        env = env.venv
    return None


def attach_rewards(model: BaseAlgorithm) -> None:
    """Connect an algorithm's buffer with its environments; call after it is made, loaded or given another environment.

    Raises:
        ValueError: Its environments leave rewards to the buffer, and its buffer cannot fill them.
        UserError: It would learn, or forget, before its first rewards are known.
    """
    source = reward_source(model.get_env())
    if source is None:
        return
    buffer = getattr(model, "replay_buffer", None) or getattr(model, "rollout_buffer", None)
    if not isinstance(buffer, RewardFillingReplayBuffer | RewardFillingRolloutBuffer):
        raise ValueError(
            f"{type(buffer).__name__} cannot fill rewards; use one of vlmrl.agents.buffers or RewardVecEnv(wait=True)."
        )
    buffer.attach(source)
    if isinstance(buffer, RewardFillingReplayBuffer) and buffer.lag:
        # SB3 learns once more than `learning_starts` transitions are there.
        first: int = model.learning_starts // source.num_envs + 1  # type: ignore[attr-defined]
        if min(first, buffer.buffer_size) < buffer.least:
            raise UserError(
                f"The newest {buffer.lag} steps of each environment have no reward yet, so learning needs "
                f"{buffer.least * source.num_envs} transitions: raise agent.learning_starts "
                f"({model.learning_starts}) and agent.buffer_size "  # type: ignore[attr-defined]
                f"({buffer.buffer_size * source.num_envs}) at least to that."
            )


def replay_settings(n_steps: int, gamma: float) -> dict[str, Any]:
    """Return SB3's arguments that choose a reward-filling replay buffer, for returns over `n_steps` rewards."""
    if n_steps == 1:
        return {"replay_buffer_class": RewardFillingReplayBuffer}
    return {
        "replay_buffer_class": RewardFillingNStepReplayBuffer,
        "replay_buffer_kwargs": {"n_steps": n_steps, "gamma": gamma},
    }
