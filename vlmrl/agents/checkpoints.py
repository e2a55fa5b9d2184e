"""Checkpoints from which a run goes on as if it had never stopped.

A checkpoint holds the algorithm with its optimisers, its replay buffer, the state of every random number generator,
the fixed scale of the reward and the number of the next episode of each environment. It is taken between updates and at
the start of an episode: the start of an episode is a function of its number (`SeededEpisodes`), so no simulator state
needs saving. Where episodes of several environments never start together, the checkpoint itself cuts the running ones
short; it does so in every run with the same settings, resumed or not.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnvWrapper

from vlmrl.agents.buffers import attach_rewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.errors import UserError

KEEP = 2  # checkpoints that stay on disk


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk.

    Attributes:
        path: Its folder, `checkpoints/<step>`.
    """

    path: Path

    @property
    def step(self) -> int:
        """Steps after which it was taken."""
        return int(self.path.name)

    @property
    def model(self) -> Path:
        """The algorithm, an SB3 zip."""
        return self.path / "model.zip"

    @property
    def replay(self) -> Path:
        """The replay buffer, where the algorithm has one."""
        return self.path / "replay_buffer.pkl"

    @property
    def state(self) -> Path:
        """Everything else."""
        return self.path / "state.pkl"


class Companion(Protocol):
    """Something beside the algorithm that has a state of its own, which checkpoints must hold."""

    def save(self, folder: Path) -> None:
        """Write the state into the folder of a checkpoint."""
        ...

    def restore(self, folder: Path) -> None:
        """Take over the state that `save` wrote there."""
        ...


def newest(folder: Path) -> Checkpoint:
    """Return the newest complete checkpoint in `checkpoints/`.

    Raises:
        UserError: There is none.
    """
    steps = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit())
    if not steps:
        raise UserError(
            f"'{folder.parent}' holds no checkpoint to go on from: it ended before the first one (checkpoint_every)."
        )
    return Checkpoint(folder / str(steps[-1]))


def save(model: BaseAlgorithm, folder: Path, companions: Sequence[Companion] = ()) -> Checkpoint:
    """Write `checkpoints/<step>` whole or not at all, point `last` at it, and forget the oldest ones.

    Everything is written into a hidden folder that is renamed when it is complete and on disk; a full disk or a kill
    leaves the checkpoint before it as it was.

    Args:
        model: Between updates, its environments at the start of an episode.
        folder: The folder `checkpoints`.
        companions: What else has a state.
    """
    env = _reward_env(model)

    def write(checkpoint: Checkpoint) -> None:
        if isinstance(model, OffPolicyAlgorithm):
            model.save_replay_buffer(checkpoint.replay)  # fills what waits for rewards, so before the state is taken
        model.save(checkpoint.model)
        checkpoint.state.write_bytes(pickle.dumps(_state(model, env)))
        for companion in companions:
            companion.save(checkpoint.path)

    return write_whole(folder, model.num_timesteps, write)


def write_whole(folder: Path, step: int, write: Callable[[Checkpoint], None]) -> Checkpoint:
    """Make `checkpoints/<step>` as `save` does, whatever is in it.

    Args:
        folder: The folder `checkpoints`.
        step: The step that it is called after.
        write: Writes the files of a checkpoint.
    """
    final, draft = folder / str(step), folder / f".{step}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(Checkpoint(draft))
        for path in draft.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    fresh = folder / ".last"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(final.name, target_is_directory=True)
    fresh.replace(folder / "last")
    for old in sorted((int(path.name) for path in folder.glob("[0-9]*")), reverse=True)[KEEP:]:
        shutil.rmtree(folder / str(old))
    return Checkpoint(final)


def save_at_end(model: BaseAlgorithm, folder: Path, companions: Sequence[Companion] = ()) -> Checkpoint:
    """Save a run that has taken its last step, so that it can be made longer from there.

    Args:
        model: As `learn` leaves it; running episodes are cut short.
        folder: The folder `checkpoints`.
        companions: What else has a state.
    """
    env = _reward_env(model)
    if not env.at_start:
        _cut(model, env)
    return save(model, folder, companions)


def restore(
    model_class: type[BaseAlgorithm],
    checkpoint: Checkpoint,
    env: Any,
    device: str,
    companions: Sequence[Companion] = (),
) -> BaseAlgorithm:
    """Load an algorithm and put everything random and everything counted back to where it was.

    Args:
        model_class: SB3's class.
        checkpoint: What `save` wrote.
        env: The same environments as then, just made.
        device: Torch device.
        companions: What else has a state.

    Raises:
        UserError: A file of the checkpoint is missing or broken.
    """
    with reading(checkpoint):
        model = model_class.load(checkpoint.model, env=env, device=device)
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(checkpoint.replay, truncate_last_traj=False)
        state = pickle.loads(checkpoint.state.read_bytes())
        for companion in companions:
            companion.restore(checkpoint.path)
    attach_rewards(model)
    source = _reward_env(model)
    source.set_next_episodes(state["episodes"])
    source.rewards.load_state_dict(state["rewards"])
    model.action_space = state["action_space"]
    set_random_state(state)
    return model


@contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """Say of which checkpoint it is what goes wrong inside the `with`.

    Raises:
        UserError: A file of the checkpoint is missing or broken.
    """
    try:
        yield
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UserError(
            f"The checkpoint '{checkpoint.path}' cannot be read ({type(error).__name__}: {error}). "
            "An older one may be beside it."
        ) from error


def random_state() -> dict[str, Any]:
    """Return the state of every global random number generator."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every global random number generator back to where `random_state` saw it."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class CheckpointCallback(BaseCallback):
    """Saves every so many steps, at the next start of an episode.

    Args:
        folder: The folder `checkpoints`.
        every: Steps between checkpoints, over all environments.
        patience: Vector steps to wait for a step at which every environment starts an episode, before the running
            episodes are cut short.
        companions: What else has a state.
    """

    def __init__(self, folder: Path, every: int, patience: int, companions: Sequence[Companion] = ()):
        super().__init__()
        self._companions = companions
        self._folder, self._every, self._patience = folder, every, patience
        self._due = 0
        self._waited = 0

    def _on_training_start(self) -> None:
        self._due = (self.num_timesteps // self._every + 1) * self._every

    def _on_rollout_start(self) -> None:
        # Here SB3 is between updates: all that was collected is stored and learned from.
        if self.num_timesteps < self._due:
            return
        env = _reward_env(self.model)
        if not env.at_start:
            self._waited += 1
            if self._waited * self._rollout() < self._patience:
                return
            _cut(self.model, env)
        save(self.model, self._folder, self._companions)
        self._waited = 0
        self._due = (self.num_timesteps // self._every + 1) * self._every

    def _on_step(self) -> bool:
        return True

    def _rollout(self) -> int:
        """Vector steps between two calls of `_on_rollout_start`."""
        model: Any = self.model
        return int(model.train_freq.frequency if hasattr(model, "train_freq") else model.n_steps)


def _cut(model: BaseAlgorithm, env: RewardVecEnv) -> None:
    """Leave the running episodes and start new ones everywhere."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        # A window of several steps must not reach into the next episode; a single step bootstraps as it would have.
        newest_step = (buffer.pos - 1) % buffer.buffer_size
        running = buffer.dones[newest_step] == 0
        buffer.dones[newest_step, running] = buffer.timeouts[newest_step, running] = 1.0
    if model.action_noise is not None:
        model.action_noise.reset()  # as at the start of any episode
    model._last_obs = model.env.reset()  # type: ignore[union-attr,assignment]
    model._last_episode_starts = np.ones(env.num_envs, dtype=bool)


def _state(model: BaseAlgorithm, env: RewardVecEnv) -> dict[str, Any]:
    return {
        "episodes": env.episodes,
        "rewards": env.rewards.state_dict(),
        "action_space": model.action_space,
    } | random_state()


def _reward_env(model: BaseAlgorithm) -> RewardVecEnv:
    env: Any = model.get_env()
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, RewardVecEnv):
            return env
        env = env.venv
    raise ValueError("A checkpoint needs environments in a RewardVecEnv.")
