"""What is logged while an agent learns."""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tqdm import tqdm

from vlmrl.envs.lazy_rewards import LazyRewards


class RewardLog(BaseCallback):
    """Logs the model's reward beside the truth, and says now and then in one line how things stand.

    Writes `rollout/ep_vlm_rew_mean` (sum of the model's unscaled rewards over an episode) and
    `rollout/predicate_fraction` (share of an episode's steps at which the task's predicate holds), each the mean of
    the last 100 episodes. `rollout/ep_rew_mean` is SB3's own tag and holds the task's ground truth. Where an encoder
    runs, `reward/queue_depth`, `reward/age_s`, `reward/wait_s`, `reward/reused` and `reward/restarts` say how it keeps
    up, as means over the vector steps since the last line of the log; see `BatchingScorer.pop_stats`. Where the reward
    is a program, `reward/component_<name>` is the mean of each of its terms.

    Args:
        rewards: The source of the model's rewards.
        lines: Number of lines to print over the whole run; 0 prints none.
        listeners: Called with the model's return of each episode that is complete.
    """

    def __init__(self, rewards: LazyRewards, lines: int = 20, listeners: Sequence[Callable[[float], None]] = ()):
        super().__init__()
        self._rewards = rewards
        self._lines = lines
        self._listeners = listeners
        self._returns: deque[float] = deque(maxlen=100)
        self._fractions: deque[float] = deque(maxlen=100)
        self._next_line = 0.0
        self._every = 0.0

    def _on_training_start(self) -> None:
        self._every = self._steps_ahead() / self._lines if self._lines else float("inf")
        self._next_line = self.num_timesteps + self._every
        if self._lines:
            tqdm.write(progress_header())

    def _steps_ahead(self) -> int:
        """Return how many steps will be taken; rollouts are always whole, however few steps are left."""
        asked = self.locals["total_timesteps"] - self.num_timesteps
        if not isinstance(self.model, OnPolicyAlgorithm):
            return asked
        rollout = self.model.n_steps * self.model.n_envs
        return math.ceil(asked / rollout) * rollout

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "predicate_fraction" in info:
                self._fractions.append(info["predicate_fraction"])
        self._take_returns()
        if self._fractions:
            self.logger.record("rollout/predicate_fraction", fmean(self._fractions))
        for name, value in (self._rewards.pop_scorer_stats() | self._rewards.pop_model_stats()).items():
            self.logger.record_mean(f"reward/{name}", value)
        if self.num_timesteps >= self._next_line:
            self._next_line += self._every
            tqdm.write(self._line())
        return True

    def _on_rollout_end(self) -> None:
        self._take_returns()  # what an on-policy buffer has just filled

    def _take_returns(self) -> None:
        returns = self._rewards.pop_returns()
        for listen in self._listeners:
            for value in returns:
                listen(value)
        self._returns.extend(returns)
        if self._returns:
            self.logger.record("rollout/ep_vlm_rew_mean", fmean(self._returns))

    def _line(self) -> str:
        truth = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return progress_line(self.num_timesteps, truth, self._returns, self._fractions)


def progress_header() -> str:
    """Return the line above those of `progress_line`."""
    headers = ("step", "truth", "model reward", "predicate")
    return "".join(f"{header:>14}" for header in headers) + "   (means of the last 100 episodes)"


def progress_line(step: int, truth: Sequence[float], returns: Sequence[float], fractions: Sequence[float]) -> str:
    """Say in a line how training stands.

    Args:
        step: Steps so far.
        truth: Returns of the last episodes by the task's ground truth.
        returns: The same by the model's unscaled reward.
        fractions: Shares of their steps at which the task's predicate held.
    """

    def column(values: Sequence[float], form: str) -> str:
        return form.format(fmean(values)) if values else "-"

    cells = (f"{step:,}", column(truth, "{:.2f}"), column(returns, "{:.2f}"), column(fractions, "{:.1%}"))
    return "".join(f"{cell:>14}" for cell in cells)


class StopOnInterrupt(BaseCallback):
    """Ends training at the next step after Ctrl-C; a second Ctrl-C interrupts at once.

    An interrupt that is raised just anywhere can tear a checkpoint or be swallowed by whatever happens to run.

    Attributes:
        stopped: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self._before: Any = None

    def _on_training_start(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python takes signals nowhere else
            self._before = signal.signal(signal.SIGINT, self._interrupt)

    def _on_step(self) -> bool:
        return not self.stopped

    def _on_training_end(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: Any) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, self._before)
