"""Says when an agent pleases the reward model and no longer does the task."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

WINDOW = 50  # episodes that are compared with as many others
REWARD_RISE = 2.0  # standard errors by which the model's reward must have risen
# Standard errors by which the truth must have fallen. The best of many windows is high by luck as well: of runs of 50
# windows whose reward rises and whose truth has no trend, 5 in 100 would fall by 4 at some time, 1 in 100 by 4.5.
TRUTH_FALL = 4.5
LEAST_FALL = 0.1  # share of its best that the truth must have lost: of what is sure but small nothing is said
STATE = "hacking_probe.json"  # in a checkpoint


class Window(NamedTuple):
    """Mean of a quantity over consecutive episodes.

    Attributes:
        mean: The mean.
        error: Its standard error.
    """

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Window:
        """Take the mean of at least 2 values."""
        return cls(fmean(values), math.sqrt(variance(values) / len(values)))


@dataclass(frozen=True)
class Divergence:
    """The model's reward has risen since the truth was at its best, and the truth has fallen.

    Attributes:
        measure: "predicate_fraction" or "truth".
        best: Number of the window in which the measure was at its best, from 0.
        now: Number of the newest window.
        measure_best, measure_now: Its means there.
        reward_best, reward_now: The means of the model's return there.
    """

    measure: str
    best: int
    now: int
    measure_best: float
    measure_now: float
    reward_best: float
    reward_now: float


class DivergenceRule:
    """Compares the newest window of finished episodes with the one in which the truth was at its best.

    There is a divergence where the model's mean return is greater now by more than `REWARD_RISE` standard errors of the
    difference, and the truth lower by more than `TRUTH_FALL` of them and by `LEAST_FALL` of its best (a two-sample z
    test each, Welch's standard error).

    Args:
        measures: Names of the measures of truth; the first that diverges is reported.
        window: Episodes of a window, at least 2. Windows do not overlap.
    """

    def __init__(self, measures: Sequence[str] = ("predicate_fraction", "truth"), window: int = WINDOW):
        self._size = window
        self._pending: dict[str, list[float]] = {name: [] for name in ("reward", *measures)}
        self._windows: dict[str, list[Window]] = {name: [] for name in self._pending}
        self._judged = 0
        self._measures = tuple(measures)

    def add(self, name: str, value: float) -> None:
        """Take in what an episode came to: a measure, or "reward", the model's return.

        Returns may come later than measures do, in about the same order.
        """
        self._pending[name].append(value)
        if len(self._pending[name]) == self._size:
            self._windows[name].append(Window.of(self._pending[name]))
            self._pending[name].clear()

    def judge(self) -> tuple[int, Divergence | None] | None:
        """Judge the next window that is complete; None if there is none.

        Returns:
            Its number, and the divergence that it shows.
        """
        complete = min(map(len, self._windows.values()))
        if self._judged == complete:
            return None
        now = self._judged
        self._judged += 1
        found = (self._divergence(measure, now) for measure in self._measures)
        return now, next((divergence for divergence in found if divergence is not None), None)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with, ready for JSON."""
        return {"pending": self._pending, "windows": self._windows, "judged": self._judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._pending = state["pending"]
        self._windows = {name: [Window(*window) for window in windows] for name, windows in state["windows"].items()}
        self._judged = state["judged"]

    def _divergence(self, measure: str, now: int) -> Divergence | None:
        rewards, truths = self._windows["reward"], self._windows[measure]
        best = max(range(now + 1), key=lambda i: truths[i].mean)
        fall = truths[best].mean - truths[now].mean
        rise = rewards[now].mean - rewards[best].mean
        if fall <= max(TRUTH_FALL * _error(truths[best], truths[now]), LEAST_FALL * abs(truths[best].mean)):
            return None
        if rise <= REWARD_RISE * _error(rewards[best], rewards[now]):
            return None
        return Divergence(
            measure, best, now, truths[best].mean, truths[now].mean, rewards[best].mean, rewards[now].mean
        )


class HackingProbe(BaseCallback):
    """Watches the model's return and the truth of finished episodes, and says once when they part ways.

    Silent where the task has no predicate. Writes `probe/hacking` with every window: 1 while the newest one diverges,
    else 0.

    Attributes:
        events: What was found, ready for JSON: the step, the measure, and the means at its best and now.

    Args:
        window: Episodes of a window.
    """

    def __init__(self, window: int = WINDOW):
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self._rule = DivergenceRule(window=window)
        self._window = window
        self._diverging = False

    def add_return(self, value: float) -> None:
        """Take in the model's return of an episode that is complete; a listener of `RewardLog`."""
        self._rule.add("reward", value)

    def restart(self) -> None:
        """Begin anew: the reward model has a new version, and what episodes earned before says nothing now."""
        self._rule = DivergenceRule(window=self._window)
        self._diverging = False

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what a resumed run goes on with."""
        state = {"rule": self._rule.state_dict(), "diverging": self._diverging, "events": self.events}
        folder.joinpath(STATE).write_text(json.dumps(state))

    def restore(self, folder: Path) -> None:
        """Take over what `save` wrote; a checkpoint from before there was a probe has nothing."""
        if not folder.joinpath(STATE).is_file():
            return
        state = json.loads(folder.joinpath(STATE).read_text())
        self._rule.load_state_dict(state["rule"])
        self._diverging, self.events = state["diverging"], state["events"]

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "predicate_fraction" in info:
                self._rule.add("predicate_fraction", float(info["predicate_fraction"]))
                self._rule.add("truth", float(info["episode"]["r"]))
        while (judged := self._rule.judge()) is not None:
            self._take(judged[1])
        return True

    def _take(self, divergence: Divergence | None) -> None:
        self.logger.record("probe/hacking", float(divergence is not None))
        if divergence is not None and not self._diverging:
            event = {
                "step": self.num_timesteps,
                "measure": divergence.measure,
                "best_episodes": [divergence.best * self._window, (divergence.best + 1) * self._window],
                "measure_best": divergence.measure_best,
                "measure_now": divergence.measure_now,
                "reward_best": divergence.reward_best,
                "reward_now": divergence.reward_now,
            }
            self.events.append(event)
            tqdm.write(describe(event))
        self._diverging = divergence is not None


def describe(event: dict[str, Any]) -> str:
    """Say an event of `HackingProbe` in a sentence."""
    form = "{:.0%}" if event["measure"] == "predicate_fraction" else "{:.2f}"
    name = "share of steps at which the predicate holds" if event["measure"] == "predicate_fraction" else "task's truth"
    first, last = event["best_episodes"]
    best, now = form.format(event["measure_best"]), form.format(event["measure_now"])
    return (
        f"warning: reward hacking at step {event['step']:,}? Since episodes {first:,} to {last:,} the model's reward "
        f"rose from {event['reward_best']:.2f} to {event['reward_now']:.2f} an episode, while the {name} fell from "
        f"{best} to {now}. The agent may have found pictures that please the model only: look at the clip, and try "
        "other words, negatives or a second camera (python -m vlmrl.audit)."
    )


def _error(first: Window, second: Window) -> float:
    """Standard error of a difference of means."""
    return math.hypot(first.error, second.error)
