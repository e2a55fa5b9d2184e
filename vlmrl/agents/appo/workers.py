"""What runs in sample-factory's worker processes: environments of the suite, and their rewards as steps are taken.

sample-factory has no way to change a reward once a worker has reported it, so whatever is known of a text at that
moment is what counts: a label that comes later counts from the next time on that the text is said.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import traceback
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Full
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from vlmrl.agents.appo.shared import SharedScores, StepClock
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, quantities_of
from vlmrl.rows import Row, Rows, stack, text_keys

FEED_S = 1.0  # seconds between two reports of the texts that were said
LARGEST_FEED = 10_000  # different texts that wait for a report; more are not reported


class StepReward(Protocol):
    """Rewards a step where it is taken; it travels to the processes that do.

    Attributes:
        needs: Row fields that it reads.
    """

    @property
    def needs(self) -> frozenset[str]: ...  # noqa: D102

    def __call__(self, row: Row) -> tuple[float, dict[str, float]]:
        """Return the reward for arriving at a row, and figures to log: their means over an episode."""
        ...

    def closing(self) -> dict[str, float]:
        """Return figures to log with the last step of an episode."""
        ...


@dataclass(frozen=True)
class ModelReward:
    """The reward of a model that looks at single rows.

    Attributes:
        model: The model; it can be pickled.
    """

    model: RewardModel

    @property
    def needs(self) -> frozenset[str]:
        """Row fields that the model reads."""
        return self.model.needs

    def __call__(self, row: Row) -> tuple[float, dict[str, float]]:
        """See `StepReward`."""
        rows: Rows = stack([row], [1], self.model.needs)
        return float(self.model(rows)[0]), {}

    def closing(self) -> dict[str, float]:
        """See `StepReward`."""
        return {}


@dataclass(frozen=True)
class TextReward:
    """The reward of `vlmrl.reward_models.oni`, r being read from memory that the main process writes.

    Attributes:
        scores: r of each text; one that is not there counts as 0.
        extrinsic_coef: Factor of the environment's own reward.
        intrinsic_coef: Factor of r.
        beta: Exponent of the count of the text in its episode.
    """

    scores: SharedScores
    extrinsic_coef: float
    intrinsic_coef: float
    beta: float

    needs = frozenset({"text", "text_count", "native_reward"})

    def __call__(self, row: Row) -> tuple[float, dict[str, float]]:
        """See `StepReward`."""
        assert row.text is not None and row.text_count is not None and row.native_reward is not None
        score = self.scores.read(_key(row.text)) if row.text else math.nan
        known = not math.isnan(score)
        intrinsic = self.intrinsic_coef * score * row.text_count**-self.beta if known else 0.0
        extrinsic = self.extrinsic_coef * row.native_reward
        return extrinsic + intrinsic, {"extrinsic": extrinsic, "intrinsic": intrinsic, "labelled_share": float(known)}

    def closing(self) -> dict[str, float]:
        """See `StepReward`: which labels there are, and for how long there have been no others."""
        return {"label_version": float(self.scores.version), "label_age_s": self.scores.age}


@lru_cache(maxsize=65536)
def _key(text: str) -> int:
    return int(text_keys([text])[0])


class RewardAtCollection(gym.Wrapper):
    """An environment as sample-factory wants one, rewarded as it steps.

    Actions are numbered from 0, and cut to the bounds of their space, as Stable-Baselines3 does. Every reset chooses
    its own seed (`SeededEpisodes`). The last step of an episode has its figures in `info["episode_extra_stats"]`.

    Args:
        env: An environment of `make_env` with rows.
        reward: Rewards each step.
        index: Number of the environment in the run.
        clock: Takes note of its steps; None where nobody looks.
        feed: Queue that texts go into now and then, (index, {text: how often}); None where nobody reads.
    """

    def __init__(self, env: gym.Env, reward: StepReward, index: int, clock: StepClock | None = None, feed: Any = None):
        super().__init__(env)
        self._reward, self._index, self._clock, self._feed = reward, index, clock, feed
        space = env.action_space
        self._first = int(space.start) if isinstance(space, gym.spaces.Discrete) else 0
        if isinstance(space, gym.spaces.Discrete):
            self.action_space = gym.spaces.Discrete(space.n)
        self._bounds = (space.low, space.high) if isinstance(space, gym.spaces.Box) else None
        if feed is not None:
            feed.cancel_join_thread()  # a worker that ends does not wait until its last report is read
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._steps = 0
        self._return = 0.0
        self._said: Counter[str] = Counter()
        self._fed = time.monotonic()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; sample-factory's seed, which counts environments, is not used."""
        if self._clock is not None:
            self._clock.enter(self._index)
        observation, info = self.env.reset(options=options)
        info.pop(ROW, None)
        self._parts.clear()
        self._steps, self._return = 0, 0.0
        if self._clock is not None:
            self._clock.leave(self._index, steps=0)
        return _arrays(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step and reward."""
        if self._clock is not None:
            self._clock.enter(self._index)
        if self._bounds is not None:
            action = np.clip(action, *self._bounds)
        observation, _, terminated, truncated, info = self.env.step(action + self._first if self._first else action)
        row: Row = info.pop(ROW)
        reward, parts = self._reward(row)
        for name, value in parts.items():
            self._parts[name] += value
        self._steps += 1
        self._return += reward
        if self._feed is not None:
            self._report(row.text or "")
        if terminated or truncated:
            info["true_objective"] = float(info["episode"]["r"])
            info["episode_extra_stats"] = self._figures(info)
        if self._clock is not None:
            self._clock.leave(self._index)
        return _arrays(observation), reward, bool(terminated), bool(truncated), info

    def _figures(self, info: dict[str, Any]) -> dict[str, float]:
        """Return what is logged of an episode, under the names of the log."""
        means = {name: total / self._steps for name, total in self._parts.items()}
        figures = {f"reward/{name}": value for name, value in (means | self._reward.closing()).items()}
        figures |= {"rollout/ep_rew_mean": info["true_objective"], "rollout/ep_len_mean": float(self._steps)}
        figures["rollout/ep_vlm_rew_mean"] = self._return
        if "predicate_fraction" in info:
            figures["rollout/predicate_fraction"] = float(info["predicate_fraction"])
            figures["rollout/success_rate"] = float(info["is_success"])
        return figures

    def _report(self, text: str) -> None:
        """Tell the main process now and then what was said; where it is behind, later."""
        if text and (text in self._said or len(self._said) < LARGEST_FEED):
            self._said[text] += 1
        now = time.monotonic()
        if now - self._fed < FEED_S or not self._said:
            return
        self._fed = now
        try:
            self._feed.put_nowait((self._index, dict(self._said)))
        except Full:
            return
        self._said.clear()


def _arrays(observation: Any) -> Any:
    """Return an observation with arrays for numbers, which sample-factory puts into its tensors."""
    if isinstance(observation, dict):
        return {key: np.asarray(value) for key, value in observation.items()}
    return np.asarray(observation)


@dataclass
class EnvMaker:
    """Makes the environments of a run in whatever process sample-factory asks for one.

    Attributes:
        settings: What to build.
        reward: Rewards each step.
        seed: Of the run; the start of each episode follows from it, the environment's number and the episode's.
        first_episode: Number of each environment's first episode; a run that goes on sees no start again.
        monitor: Folder of `<i>.monitor.csv`.
        notes: Folder in which a process leaves `<pid>.txt`, the traceback that it ends with.
        clock: Takes note of steps.
        feed: Queue for the texts that are said, or None.
    """

    settings: EnvSettings
    reward: StepReward
    seed: int
    first_episode: int
    monitor: Path
    notes: Path
    clock: StepClock
    feed: Any = None

    def __call__(self, full_env_name: str, cfg: Any, env_config: Any, render_mode: str | None = None) -> gym.Env:
        """Make an environment; sample-factory calls this, once without a number to see what its spaces are."""
        try:
            return _Noted(self._make(env_config), self.notes)
        except Exception:
            _note(self.notes)
            raise

    def probe(self) -> RewardAtCollection:
        """Make an environment that nobody looks after."""
        return self._make(None)

    def _make(self, env_config: Any) -> RewardAtCollection:
        index = env_config.env_id if env_config is not None else None
        monitor = str(self.monitor / str(index)) if index is not None else None
        quantities = quantities_of(self.reward.model) if isinstance(self.reward, ModelReward) else None
        env = make_env(self.settings, self.reward.needs, at_reset=False, monitor=monitor, quantities=quantities)
        _check_actions(env.action_space)
        seeded = SeededEpisodes(env, self.seed, index or 0, self.first_episode)
        if index is None:
            return RewardAtCollection(seeded, self.reward, 0)
        return RewardAtCollection(seeded, self.reward, index, self.clock, self.feed)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a process of sample-factory."""
        return {**self.__dict__, "parent": os.getpid()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive there: its log goes into its file alone, and it ends with the process that started it."""
        parent = state.pop("parent")
        self.__dict__.update(state)
        quiet()
        threading.Thread(target=_end_with, args=(parent,), name="end with the run", daemon=True).start()


class _Noted(gym.Wrapper):
    """Writes down the traceback of an error before it ends the process."""

    def __init__(self, env: gym.Env, folder: Path):
        super().__init__(env)
        self._folder = folder

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        try:
            return self.env.reset(**kwargs)
        except Exception:
            _note(self._folder)
            raise

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            return self.env.step(action)
        except Exception:
            _note(self._folder)
            raise


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which may have been killed: sample-factory's would wait for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _note(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"{os.getpid()}.txt").write_text(traceback.format_exc())


def quiet() -> None:
    """Let sample-factory write its log into its file alone; what matters of it the run says itself."""
    from sample_factory.utils.utils import log

    warnings.filterwarnings("ignore", module=r"sample_factory\.")
    for handler in log.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.CRITICAL)


def _check_actions(space: gym.Space) -> None:
    """Refuse actions that sample-factory has no distribution for.

    Raises:
        UserError: They are neither numbered nor a vector.
    """
    if isinstance(space, gym.spaces.Discrete) or (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        return
    raise UserError(
        f"agent=appo acts by one number of several (Discrete) or a vector (Box), and this environment has {space}. Use "
        "agent=ppo."
    )
