"""Runs rows: each run is the real command in a process of its own, and one that was stopped goes on."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.results.plan import Row, differences, essence
from benchmarks.results.records import Records, changed, is_finished, older_weights, read_run, write_whole
from vlmrl.agents import checkpoints
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.report import shown
from vlmrl.workflows.run_folder import RunFolder

POLL = 1.0  # seconds between looks at what runs
PATIENCE = 15.0  # seconds until a run that was asked to stop is killed
TAIL = 15  # lines of the output of a failed run that are shown


@dataclass
class Outcome:
    """What became of the runs that were asked for, each named "<row>-<seed>".

    Attributes:
        kept: Had a record before, which is what the row's command gives today.
        finished: Have one now.
        waiting: Were stopped or not begun when time was up.
        failed: Ended with an error.
        busy: Are being run by another process.
        elsewhere: Need something that is not installed here.
    """

    kept: list[str]
    finished: list[str]
    waiting: list[str]
    failed: list[str]
    busy: list[str]
    elsewhere: list[str]


class Work:
    """The folder of a row and seed, in which its run is made: `<row>-<seed>/<env>-<task>-.../<time>/`.

    Args:
        folder: The folder of all rows.
        row: The row.
        seed: The seed.
    """

    def __init__(self, folder: Path, row: Row, seed: int):
        self.name, self.row, self.seed = f"{row.name}-{seed}", row, seed
        self.path = folder / self.name
        self.settings: TrainConfig = row.settings(seed)

    @property
    def output(self) -> Path:
        """What the command printed, part after part."""
        return self.path / "output.txt"

    def run(self) -> RunFolder | None:
        """Return the newest run with the row's settings and today's encoder, finished or not; None if there is none."""
        for config in sorted(self.path.glob("*/*/config.yaml"), reverse=True, key=lambda path: path.parent.name):
            folder = RunFolder(config.parent)
            versions = folder.path / "versions.json"
            if not versions.is_file():  # killed while it was being made
                continue
            try:
                found = essence(train_settings(folder.read_config()))
            except UserError:  # settings of another day, which no command takes any more
                continue
            same = not differences(found, essence(self.settings))
            if same and not older_weights(json.loads(versions.read_text()), self.row, self.seed):
                return folder
        return None

    @property
    def seconds(self) -> float:
        """Wall time of the command so far, over its parts."""
        path = self.path / "seconds.json"
        return float(json.loads(path.read_text())) if path.is_file() else 0.0

    @seconds.setter
    def seconds(self, value: float) -> None:
        write_whole(self.path / "seconds.json", json.dumps(round(value, 1)))

    def steps(self) -> int:
        """Return how far the run's log says that it is."""
        folder = self.run()
        logs = sorted(folder.path.glob("progress*.csv"), key=lambda path: path.stat().st_mtime) if folder else []
        if not logs:
            return 0
        with logs[-1].open(newline="") as file:
            lines = [line.get("time/total_timesteps") or 0 for line in csv.DictReader(file)]
        return int(float(lines[-1])) if lines else 0


class Running:
    """A command that runs. A lock tells others; it is held by the command's process, so a killed runner keeps it.

    Args:
        work: What is run.

    Raises:
        BlockingIOError: Another process runs it.
    """

    def __init__(self, work: Work):
        self.work = work
        work.path.mkdir(parents=True, exist_ok=True)
        with (work.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = work.run()
            if folder is not None and _can_go_on(folder):
                arguments = [f"resume={folder.path}"]
                self._before = work.seconds
            else:
                arguments = [*work.row.overrides, f"seed={work.seed}", f"run_dir={work.path}"]
                self._before = 0.0
            command = [sys.executable, "-m", "vlmrl.train", *arguments, "video=false", "progress_bar=false"]
            self._output: IO[str] = work.output.open("a")
            self._output.write(f"$ {shlex.join(command)}\n")
            self._output.flush()
            self.resumed = len(arguments) == 1
            self._started = time.monotonic()
            # A session of its own: Ctrl-C reaches the runner alone, which then stops the whole group.
            self._process = subprocess.Popen(
                command,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )

    def poll(self) -> int | None:
        """Write down the time that it has taken, and return its exit status if it has ended."""
        status = self._process.poll()
        self.work.seconds = self._before + time.monotonic() - self._started
        if status is not None:
            self._output.close()
        return status

    def stop(self) -> None:
        """End it between two checkpoints: resumed from the last one, it ends as if nothing had happened."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    continue
        self.poll()


def _can_go_on(folder: RunFolder) -> bool:
    try:
        checkpoints.newest(folder.checkpoints)
    except UserError:  # it was stopped before the first one
        return False
    return True


def run_rows(
    chosen: Iterable[tuple[Row, int]],
    records: Records,
    folder: Path,
    jobs: int,
    budget_seconds: float | None,
    console: Console,
    after_each: Callable[[], None],
) -> Outcome:
    """Run what has no record yet, or one that the row's command would no longer give.

    Args:
        chosen: Rows and seeds, in the order in which they are begun.
        records: Where their figures go.
        folder: Folder in which the runs are made.
        jobs: Runs at the same time.
        budget_seconds: Time after which nothing is begun and what runs is stopped; None is no limit.
        console: Where to say what happens.
        after_each: Called when a record has been written.
    """
    outcome = Outcome([], [], [], [], [], [])
    queue: list[Work] = []
    for row, seed in chosen:
        work = Work(folder, row, seed)
        record = records.load(row.name, seed)
        if record is not None and not changed(record, row, seed):
            outcome.kept.append(work.name)
        elif not row.can_run_here():
            outcome.elsewhere.append(work.name)
            console.print(f"{work.name}: left out, its environment needs '{row.module}', which is not installed here")
        else:
            queue.append(work)
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    running: dict[Running, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        try:
            while queue or running:
                if deadline is not None and time.monotonic() >= deadline:
                    console.print("The time is up.")
                    break
                while queue and len(running) < jobs:
                    started = _begin(queue.pop(0), records, outcome, console, after_each)
                    if started is not None:
                        total = started.work.settings.total_timesteps
                        running[started] = progress.add_task(started.work.name, total=total)
                for run, task in list(running.items()):
                    status = run.poll()
                    if console.is_terminal:  # reading how far it is takes time that the run could use
                        progress.update(task, completed=run.work.steps())
                    if status is not None:
                        del running[run]
                        progress.remove_task(task)
                        _end(run, status, records, outcome, console, after_each)
                if running:
                    time.sleep(POLL)
        finally:
            for run in running:
                run.stop()
                outcome.waiting.append(run.work.name)
                console.print(f"{run.work.name}: stopped; the same command goes on with it")
            outcome.waiting += [work.name for work in queue]
    return outcome


def _begin(
    work: Work, records: Records, outcome: Outcome, console: Console, after_each: Callable[[], None]
) -> Running | None:
    """Start the command, unless its run is finished already and only the record was missing."""
    folder = work.run()
    if folder is not None and is_finished(folder, work.settings):
        _keep(work, folder, records, outcome, console, after_each)
        return None
    try:
        running = Running(work)
    except BlockingIOError:
        console.print(f"{work.name}: another process is at it; left out")
        outcome.busy.append(work.name)
        return None
    said = "goes on" if running.resumed else "begins"
    command = work.row.command([work.seed])
    console.print(f"{work.name} {said}: {command}   (output: {shown(work.output)})", soft_wrap=True, markup=False)
    return running


def _end(
    run: Running, status: int, records: Records, outcome: Outcome, console: Console, after_each: Callable[[], None]
) -> None:
    folder = run.work.run()
    if status == 0 and folder is not None and is_finished(folder, run.work.settings):
        _keep(run.work, folder, records, outcome, console, after_each)
        return
    outcome.failed.append(run.work.name)
    tail = "\n".join(run.work.output.read_text().splitlines()[-TAIL:])
    console.print(f"{run.work.name} failed with status {status}; the end of {shown(run.work.output)}:", soft_wrap=True)
    console.print(tail, markup=False, highlight=False, soft_wrap=True)


def _keep(
    work: Work,
    folder: RunFolder,
    records: Records,
    outcome: Outcome,
    console: Console,
    after_each: Callable[[], None],
) -> None:
    record = read_run(folder, work.row.command([work.seed]), work.seconds or None, here=True)
    path = records.save(work.row.name, work.seed, record)
    outcome.finished.append(work.name)
    console.print(f"{work.name} is finished: {shown(path)}", soft_wrap=True)
    after_each()
