"""SB3's buffers, with rewards that are filled in at the last moment that they are needed.

No learner sees an unfilled reward: a rollout buffer fills before it computes advantages, a replay buffer before it
samples. A fill *adds* to the placeholder 0, because SB3's on-policy algorithms add `gamma * V(terminal)` to the reward
of a truncated step before the buffer sees it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictRolloutBuffer, NStepReplayBuffer, ReplayBuffer, RolloutBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from vlmrl.envs.lazy_rewards import KEY_DTYPE
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.errors import UserError
from vlmrl.reward_models.base import awaits_end, called, is_learned

# What a replay buffer holds, one entry a slot.
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "_keys")
CHUNK = 4096  # vector steps that are rewarded again at once


class RewardFillingReplayBuffer(ReplayBuffer):
    """A replay buffer that fills rewards in before it samples.

    Of a reward model that learns it keeps, beside each transition, what the model retains, so that `relabel` can
    reward all of them again. Pictures lie in a memory-mapped file without a name, in the folder for temporary files
    (`TMPDIR`), which is gone with the process.

    With a reward model that awaits the end of an episode, vector steps are filled and sampled up to where the oldest
    running episode began.

    Args:
        *args: As for SB3's `ReplayBuffer`.
        lag: Number of newest vector steps that are neither filled nor sampled. It is a number of steps and not of
            seconds, so that timing never changes what is learned. 0 where the scorer runs in this process. Rewards
            that are themselves known only some steps later (`LazyRewards.lag`) add theirs.
        **kwargs: As for SB3's `ReplayBuffer`, but for `optimize_memory_usage`, which SB3 itself rules out where time
            limits bootstrap.
    """

    window = 1  # steps of reward that one sample reads

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
        """Least number of newest vector steps that are neither filled nor sampled."""
        return self._own_lag + (self._source.rewards.lag if self._source is not None else 0)

    @property
    def pending(self) -> int:
        """Number of newest vector steps that are neither filled nor sampled now: `lag`, or more where episodes run."""
        if self._source is None or self._added == 0:
            return self.lag
        return self._own_lag + self._source.rewards.pending(self._keys[(self._added - 1) % self.buffer_size])

    def attach(self, source: RewardVecEnv) -> None:
        """Name the environments whose transitions come in and whose rewards are filled."""
        self._source = source

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        """Store a vector step; its reward may come later."""
        if self._source is not None:
            if self._added - self._filled == self.buffer_size:  # the slot to be overwritten still waits for its reward
                self._fill(self._added if not awaits_end(self._source.rewards.model) else self._added - self.pending)
                if self._added - self._filled == self.buffer_size:
                    raise RuntimeError(
                        f"The buffer holds {self.buffer_size} steps of each environment and an episode has more; its "
                        "rewards come when it ends. Raise buffer_size."
                    )
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
        pending = self.pending
        self._fill(self._added - pending)
        if pending == 0:
            return super().sample(batch_size, env)
        kept = min(self._added, self.buffer_size)
        # The last window starts so that it ends with the newest filled step.
        newer = pending + self.window - 1
        count = kept - newer
        if count <= 0:
            raise RuntimeError(
                f"The buffer holds {kept} vector steps, sampling takes those older than {newer}. Raise learning_starts."
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
        """Fill in the rewards of all transitions that are not pending, as sampling would."""
        self._fill(self._added - self.pending)

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
        self.window = self.n_steps


def _room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make an array for what is retained; one of pictures, uint8, is a memory-mapped file that has no name."""
    if dtype != np.uint8:
        return np.zeros(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _flat(array: np.ndarray) -> np.ndarray:
    """Put vector steps and environments on one axis: (steps, n_envs, ...) to (steps * n_envs, ...)."""
    return np.asarray(array).reshape(-1, *array.shape[2:])


class FillsRollouts(RolloutBuffer):
    """What a rollout buffer does to fill rewards in before it computes advantages; comes before SB3's class.

    Of a reward model that learns it keeps, until the next rollout, what the model retains of each transition. Before
    each pass over the rollout the model takes in what it has been taught; if that made a new version, all is rewarded
    again, and returns and advantages follow from the values and placeholders of the collection. So an answer that comes
    late counts from the next pass on.

    Attributes:
        refills: How often a rollout was rewarded again so far.
    """

    _source: RewardVecEnv | None = None
    refills = 0

    def attach(self, source: RewardVecEnv) -> None:
        """Name the environments whose transitions come in and whose rewards are filled."""
        self._source = source

    def reset(self) -> None:
        """Start an empty rollout."""
        super().reset()
        self._keys = np.zeros((self.buffer_size, self.n_envs), dtype=KEY_DTYPE)
        self._retained: dict[str, np.ndarray] = {}  # each (buffer_size * n_envs, ...)
        self._version: int | None = None  # of the reward model that the rewards are from; None where it does not learn

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Store a vector step; its reward may come later."""
        if self._source is not None:
            self._keys[self.pos] = self._source.keys
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Add the rewards to the placeholders, then compute as SB3 does."""
        if self._source is not None:
            rewards, model = self._source.rewards, self._source.rewards.model
            self._collected = (self.rewards.copy(), self.values, self.episode_starts, last_values.clone(), dones.copy())
            self.rewards += rewards.fill(self._keys.ravel(), self._keep).reshape(self.rewards.shape)
            self._version = model.version if is_learned(model) else None
        super().compute_returns_and_advantage(last_values, dones)

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Yield the rollout in batches, as SB3 does, with the rewards that the model gives now."""
        self._refill()
        yield from super().get(batch_size)

    def _keep(self, where: np.ndarray, retained: Mapping[str, np.ndarray]) -> None:
        for name, column in retained.items():
            if name not in self._retained:
                self._retained[name] = _room((self._keys.size, *column.shape[1:]), column.dtype)
            self._retained[name][where] = column

    def _refill(self) -> None:
        """Reward the rollout again if the reward model has a new version."""
        if self._source is None or self._version is None:
            return
        rewards, model = self._source.rewards, self._source.rewards.model
        assert is_learned(model)
        model.refresh()
        if model.version == self._version:
            return
        self._version = model.version
        self.refills += 1
        placeholders, values, starts, last_values, dones = self._collected
        rewards.scale.forget()
        again = rewards.scale(rewards.again(self._retained)).reshape(self.rewards.shape)
        self.rewards = placeholders + again
        # SB3 has put steps and environments on one axis if this is not the first pass.
        flat, (self.values, self.episode_starts) = (self.values, self.episode_starts), (values, starts)
        self.advantages = np.zeros_like(self.rewards)
        super().compute_returns_and_advantage(last_values, dones)
        self.values, self.episode_starts = flat
        if self.generator_ready:
            self.advantages, self.returns = map(self.swap_and_flatten, (self.advantages, self.returns))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the environments out, and the rollout itself: the next one takes its place."""
        return {**self.__dict__, "_source": None, "_retained": {}, "_version": None, "_collected": None}


class RewardFillingRolloutBuffer(FillsRollouts, RolloutBuffer):
    """A rollout buffer that fills rewards in before it computes returns and advantages."""


class RewardFillingDictRolloutBuffer(FillsRollouts, DictRolloutBuffer):
    """The same for observations that are dicts of arrays."""


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
    if not isinstance(buffer, RewardFillingReplayBuffer | FillsRollouts):
        raise ValueError(
            f"{type(buffer).__name__} cannot fill rewards; use one of vlmrl.agents.buffers or RewardVecEnv(wait=True)."
        )
    buffer.attach(source)
    if isinstance(buffer, RewardFillingReplayBuffer):
        model_settings: Any = model
        starts, size = model_settings.learning_starts, buffer.buffer_size * source.num_envs
        if awaits_end(source.rewards.model):
            check_hindsight(source, type(model), source.num_envs, starts, size, buffer.window)
        if buffer.lag:
            _check_enough(
                f"The newest {buffer.lag} steps of each environment have no reward yet",
                buffer.lag + buffer.window,
                source.num_envs,
                starts,
                size,
            )
    elif awaits_end(source.rewards.model):
        check_hindsight(source, type(model), source.num_envs)


def check_hindsight(
    source: RewardVecEnv,
    algorithm: type[BaseAlgorithm],
    n_envs: int,
    learning_starts: int = 0,
    buffer_size: int = 0,
    window: int = 1,
) -> None:
    """Refuse to learn from rewards that await the end of an episode where they would come too late.

    Args:
        source: Environments, with such a reward model.
        algorithm: Class of the learner.
        n_envs: Environments that the learner will have.
        learning_starts: Transitions that are taken before a learner with a replay buffer learns.
        buffer_size: Transitions that its buffer holds.
        window: Steps of reward that one of its samples reads.

    Raises:
        UserError: It learns from rollouts; or it would learn, or forget, before the first episodes have ended, or
            episodes have no limit.
    """
    model = called(source.rewards.model)
    if not issubclass(algorithm, OffPolicyAlgorithm):
        raise UserError(
            f"{model} rewards the steps of an episode when it has ended, and {algorithm.__name__} learns from rollouts "
            "that stop in the middle of episodes. Use an agent with a replay buffer (agent=sac, crossq or dqn), or "
            "record episodes, relabel them and learn from those: vlmrl.collect, vlmrl.relabel, agent=iql."
        )
    specs = source.get_attr("spec")
    limits = [spec.max_episode_steps for spec in specs if spec is not None and spec.max_episode_steps is not None]
    if len(limits) < len(specs):
        raise UserError(
            f"{model} rewards the steps of an episode when it has ended, and the episodes of this environment have no "
            "limit. Give one: env.max_episode_steps=<steps>."
        )
    # An episode that runs has one step less than the longest at most; with the next one it ends.
    longest = max(limits)
    _check_enough(
        f"{model} rewards the steps of an episode when it has ended, and one has up to {longest}",
        longest - 1 + window,
        n_envs,
        learning_starts,
        buffer_size,
    )


def _check_enough(why: str, least: int, n_envs: int, learning_starts: int, buffer_size: int) -> None:
    """Refuse to learn, or forget, before `least` vector steps are there.

    Raises:
        UserError: That would be.
    """
    # SB3 learns once more than `learning_starts` transitions are there.
    if min(learning_starts // n_envs + 1, buffer_size // n_envs) < least:
        raise UserError(
            f"{why}, so learning needs {least * n_envs} transitions: raise agent.learning_starts ({learning_starts}) "
            f"and agent.buffer_size ({buffer_size}) at least to that."
        )


def replay_settings(n_steps: int, gamma: float) -> dict[str, Any]:
    """Return SB3's arguments that choose a reward-filling replay buffer, for returns over `n_steps` rewards."""
    if n_steps == 1:
        return {"replay_buffer_class": RewardFillingReplayBuffer}
    return {
        "replay_buffer_class": RewardFillingNStepReplayBuffer,
        "replay_buffer_kwargs": {"n_steps": n_steps, "gamma": gamma},
    }
