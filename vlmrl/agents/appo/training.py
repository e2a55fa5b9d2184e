"""Runs sample-factory: its processes, its checkpoints and its figures in the suite's run folder, under a watchdog."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from stable_baselines3.common.logger import Logger

from vlmrl.agents.appo.labels import PublishedScores
from vlmrl.agents.appo.options import ENV, factory_settings
from vlmrl.agents.appo.policy import EXPERIMENT, register_encoder
from vlmrl.agents.appo.watchdog import TrainingFailed, Watchdog
from vlmrl.agents.appo.workers import EnvMaker

TICK_S = 0.25  # seconds between two looks at the keyboard, at the watchdog and at texts
KEPT = ("train/", "perf/")  # figures of sample-factory that go into the log; those of episodes have the suite's names


@dataclass
class Progress:
    """How a run stands.

    Attributes:
        steps: Of all environments, learned from.
        episodes: {figure of an episode: its values in the last 100 episodes}.
    """

    steps: int = 0
    episodes: dict[str, Sequence[float]] = field(default_factory=dict)

    def values(self, name: str) -> Sequence[float]:
        """Return a figure of the last episodes, empty while there is none."""
        return self.episodes.get(name, ())


class Training:
    """See this module.

    Args:
        options: sample-factory's settings, see `factory_options`.
        maker: Makes environments.
        logger: Where figures go.
        labels: Kept up to date, saved and logged; None where the reward reads no text.
        log_interval: Updates between two lines of the log.
        checkpoint_every: Steps between checkpoints.
        timeout_s: See `Watchdog`.
        report: Called with every line of the log.

    Attributes:
        progress: How the run stands.
        interrupted: Whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        options: dict[str, Any],
        maker: EnvMaker,
        logger: Logger,
        labels: PublishedScores | None,
        log_interval: int,
        checkpoint_every: int,
        timeout_s: float,
        report: Callable[[Progress], None],
    ):
        self.progress = Progress()
        self.interrupted = False
        self._options, self._maker, self._logger, self._labels = options, maker, logger, labels
        self._log_interval, self._checkpoint_every = log_interval, checkpoint_every
        self._report = report
        self._due = 0
        self._timeout = timeout_s
        self._error: Exception | None = None  # of this class's own work, which sample-factory would only log

    def run(self) -> None:
        """Train until it is done or Ctrl-C is pressed; both save a checkpoint. A second Ctrl-C interrupts at once.

        Raises:
            TrainingFailed: A process died or hangs. The checkpoints before that are there.
            KeyboardInterrupt: Ctrl-C was pressed twice.
        """
        from sample_factory.algo.utils.misc import ExperimentStatus
        from sample_factory.envs.env_utils import register_env
        from sample_factory.train import make_runner

        register_env(ENV, self._maker)
        register_encoder()
        _, runner = make_runner(factory_settings(self._options))
        _redirect(runner, self._logger)
        runner.register_observer(
            _Observer(lambda updates: self._guard(runner, lambda: self._after_update(runner, updates)))
        )
        watchdog = Watchdog(
            lambda: _processes(runner),
            self._maker.clock,
            self._timeout,
            self._maker.notes,
            stop=runner.event_loop._terminate,
            ending=lambda: runner.stopped,
        )
        watchdog.start()
        before = self._take_interrupts()
        status = ExperimentStatus.FAILURE
        try:
            status = runner.init()
            if status == ExperimentStatus.SUCCESS:
                _every(runner, TICK_S, lambda: self._guard(runner, lambda: self._look(runner, watchdog)))
                status = runner.run()
        finally:
            watchdog.close()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, before)
            if watchdog.failure or self._error is not None or status != ExperimentStatus.SUCCESS:
                watchdog.kill()
        if self._error is not None:
            raise self._error
        if status == ExperimentStatus.INTERRUPTED:
            raise KeyboardInterrupt
        if watchdog.failure or status != ExperimentStatus.SUCCESS:
            raise TrainingFailed(watchdog.failure or _own_note(self._maker.notes))
        self._save_labels()

    def _guard(self, runner: Any, work: Callable[[], None]) -> None:
        """Work within the main loop of sample-factory; an error ends the loop, and is raised after it."""
        try:
            work()
        except Exception as error:
            self._error = error
            runner.event_loop._terminate()

    def _after_update(self, runner: Any, updates: int) -> None:
        """Save and log where it is time to, after so many updates since this program began."""
        self.progress.steps = int(runner.env_steps.get(0, 0))
        self.progress.episodes = {name: deques[0] for name, deques in runner.policy_avg_stats.items() if deques[0]}
        if not self._due:
            self._due = (self.progress.steps // self._checkpoint_every + 1) * self._checkpoint_every
        if self.progress.steps >= self._due:
            runner.save_periodic.emit()
            self._save_labels()
            self._due = (self.progress.steps // self._checkpoint_every + 1) * self._checkpoint_every
        if updates % self._log_interval == 0:
            self._log()

    def _log(self) -> None:
        for name, values in self.progress.episodes.items():
            if "/" in name:  # those of `RewardAtCollection`
                self._logger.record(name, fmean(values))
        if self._labels is not None:
            for name, value in self._labels.figures().items():
                self._logger.record(name, value)
        self._logger.record("time/total_timesteps", self.progress.steps)
        self._logger.dump(self.progress.steps)
        self._report(self.progress)

    def _look(self, runner: Any, watchdog: Watchdog) -> None:
        if watchdog.failure:
            runner.event_loop._terminate()
        elif self.interrupted:
            runner._stop_training()
        elif self._labels is not None:
            self._labels.update()

    def _save_labels(self) -> None:
        if self._labels is not None:
            self._labels.update()
            self._labels.save(Path(self._options["train_dir"]) / EXPERIMENT)

    def _take_interrupts(self) -> Any:
        """Turn the first Ctrl-C into a wish to stop; return what it did before."""
        if threading.current_thread() is not threading.main_thread():  # Python takes signals nowhere else
            return None
        before = signal.getsignal(signal.SIGINT)

        def interrupt(number: int, frame: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, interrupt)
        return before


class _Observer:
    """What sample-factory tells of a run, in the form of its `AlgoObserver`."""

    def __init__(self, after_update: Callable[[int], None]):
        self._after_update = after_update

    def on_training_step(self, runner: Any, training_iteration_since_resume: int) -> None:
        self._after_update(training_iteration_since_resume)

    def on_init(self, runner: Any) -> None:
        """Nothing to do."""

    on_connect_components = on_start = on_stop = on_init

    def extra_summaries(self, runner: Any, policy_id: int, env_steps: int, writer: Any) -> None:
        """Nothing to add."""


class _Writer:
    """Takes figures of sample-factory in place of its own TensorBoard file."""

    def __init__(self, logger: Logger):
        self._logger = logger

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        if tag.startswith(KEPT):
            self._logger.record(tag.replace("/_", "/"), float(value))

    def flush(self) -> None:
        """What is recorded is written with the next line."""


def _redirect(runner: Any, logger: Logger) -> None:
    """Give a runner's figures to the run's logger."""
    for policy, writer in runner.writers.items():
        writer.close()
        for path in Path(writer.logdir).glob("events.out.*"):  # nothing is in it
            path.unlink()
        runner.writers[policy] = _Writer(logger)


def _processes(runner: Any) -> list[Any]:
    """Return the processes of a runner that have been started and are to run until the end."""
    own = [*getattr(runner, "processes", ()), *getattr(runner.sampler, "processes", ())]
    return [process for process in own if process.pid is not None]


def _every(runner: Any, seconds: float, call: Callable[[], None]) -> None:
    """Have the main loop of sample-factory make a call again and again."""
    from signal_slot.signal_slot import EventLoopObject, Timer

    class Ticker(EventLoopObject):
        def tick(self) -> None:
            call()

    ticker = Ticker(runner.event_loop, "vlmrl")
    timer = Timer(runner.event_loop, seconds, object_id="vlmrl timer")
    timer.timeout.connect(ticker.tick)
    runner.timers.append(timer)  # which it stops at the end


def _own_note(notes: Path) -> str:
    """Return what this process has written down of its end, where all is in one process."""
    note = notes / f"{os.getpid()}.txt"
    said = f" It said:\n{note.read_text().rstrip()}" if note.is_file() else ""
    return f"sample-factory has given up; its log is {notes.parent / 'sf_log.txt'}.{said}"
