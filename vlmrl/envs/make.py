"""Builds environments: one of them, or a vector of them that feeds a reward model."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import vlmrl  # noqa: F401  (registers the suite's environments, in worker processes too)
from vlmrl.envs.frame_ring import FrameRing
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.resized_frames import ResizedFrames
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.envs.tasks import Task, TaskReward
from vlmrl.errors import UserError
from vlmrl.quantities import Path as QuantityPath
from vlmrl.reward_models.base import quantities_of


@dataclass(frozen=True)
class EnvSettings:
    """What to build.

    Attributes:
        id: Gymnasium id, such as "vlmrl/Humanoid-v0". An id from outside the suite is drawn by its own `render()`.
        task: Goal and predicate.
        height: Picture height in pixels.
        width: Picture width in pixels.
        profile: Render profile, "lean", "default" or "paper".
        score_every: Draw a frame at every so many steps only; see `RowWriter`.
        max_episode_steps: Time limit; None keeps that of the registration.
        kwargs: Passed on to the environment.
    """

    id: str
    task: Task
    height: int = 224
    width: int = 224
    profile: str = "lean"
    score_every: int = 1
    max_episode_steps: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def make_env(
    settings: EnvSettings,
    fields: Iterable[str] = (),
    at_reset: bool = True,
    monitor: str | None = None,
    render: bool = False,
    ring: FrameRing | None = None,
    quantities: Collection[QuantityPath] | None = None,
) -> gym.Env:
    """Build one environment.

    From the inside out: environment, time limit, the task's ground truth, SB3's Monitor (so it logs the truth), rows.

    Args:
        settings: What to build.
        fields: Row fields to write; without any there are no rows.
        at_reset: Whether the reset row carries fields too.
        monitor: Path of a monitor file without its ending, or None.
        render: Whether `render()` gives pictures even if no field needs them.
        ring: Memory that rows' pictures are put into, where another process reads them.
        quantities: Which quantities rows hold, see `RowWriter`.
    """
    from vlmrl.envs.episode_ends import EndableMonitor

    fields = frozenset(fields)
    frames = render or bool(fields & {"frames", "embeddings"})
    ours = settings.id.startswith("vlmrl/")
    kwargs = dict(settings.kwargs)
    if settings.task.start:
        kwargs.setdefault("start", settings.task.start)
    if frames:
        kwargs["render_mode"] = "rgb_array"
    if frames and ours:
        kwargs |= {"height": settings.height, "width": settings.width, "camera": settings.task.camera}
        if settings.profile != "lean":
            kwargs["profile"] = settings.profile
    try:
        env = gym.make(settings.id, max_episode_steps=settings.max_episode_steps, disable_env_checker=True, **kwargs)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UserError(f"The environment '{settings.id}' cannot be made: {error}") from error
    except TypeError as error:  # that is how Python refuses an argument
        raise UserError(f"The environment '{settings.id}' does not take {kwargs}: {error}. See env.kwargs.") from error
    if not ours:
        if env.spec is None or env.spec.max_episode_steps is None:
            raise UserError(
                f"The environment '{settings.id}' has no limit of steps. Give it one: env.max_episode_steps=<n>."
            )
        if frames:
            env = ResizedFrames(env, settings.height, settings.width)
    space = env.observation_space
    if isinstance(space, gym.spaces.Box) and space.dtype == np.float64:
        # Policies compute in float32 anyway, and replay buffers hold twice as much.
        halved = gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
        env = gym.wrappers.TransformObservation(env, _to_float32, halved)
    env = EndableMonitor(TaskReward(env, settings.task), monitor)
    if not fields:
        return env
    return RowWriter(env, fields, settings.task.cameras, at_reset, settings.score_every, ring, quantities)


def _to_float32(observation: np.ndarray) -> np.ndarray:
    return observation.astype(np.float32)


def make_vec_env(
    settings: EnvSettings,
    rewards: LazyRewards,
    n_envs: int,
    seed: int,
    monitor_dir: Path | None = None,
    wait: bool = False,
    end_episodes: bool = True,
) -> Any:
    """Build a vector of environments whose rewards come from a reward model.

    Environments that render run in processes of their own, each with its one OpenGL context; others run here.

    Args:
        settings: What to build.
        rewards: Takes the rows, gives the rewards.
        n_envs: Number of environments.
        seed: The start of each episode is a function of it, of the environment's index and of the episode's number.
        monitor_dir: Folder for `<i>.monitor.csv`, or None.
        wait: See `RewardVecEnv`.
        end_episodes: See `RewardVecEnv`.

    Returns:
        A `RewardVecEnv`.
    """
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

    from vlmrl.envs.reward_vec_env import RewardVecEnv

    needs, quantities = rewards.needs, quantities_of(rewards.model)
    at_reset = rewards.reads_reset

    apart = n_envs > 1 and bool(needs & {"frames", "embeddings"})
    size = (len(settings.task.cameras), settings.height, settings.width)
    rings = [FrameRing(*size) for _ in range(n_envs)] if apart else []

    def factory(i: int) -> Callable[[], gym.Env]:
        monitor = str(monitor_dir / str(i)) if monitor_dir is not None else None
        ring = rings[i] if apart else None

        def make() -> gym.Env:
            if multiprocessing.parent_process() is not None:
                # Ctrl-C in a terminal reaches every process: the main one ends the run, workers step on until then.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            env = make_env(settings, needs, at_reset, monitor, ring=ring, quantities=quantities)
            return SeededEpisodes(env, seed, i)

        return make

    factories = [factory(i) for i in range(n_envs)]
    if apart:
        # Workers fork from a clean server that has torch loaded but no OpenGL context and no thread of its own.
        multiprocessing.set_forkserver_preload(["torch", "stable_baselines3", "vlmrl.envs.make"])
        venv: VecEnv = SubprocVecEnv(factories, start_method="forkserver")
    else:
        venv = DummyVecEnv(factories)
    return RewardVecEnv(venv, rewards, wait, end_episodes, rings)
