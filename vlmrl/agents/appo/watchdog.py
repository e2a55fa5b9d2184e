"""Ends a run whose processes died or hang, which sample-factory itself would wait for without an end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vlmrl.agents.appo.shared import StepClock

PERIOD = 0.5  # seconds between two looks
START = 600.0  # seconds that processes have at least until the first step; each imports torch
GRACE = 5.0  # seconds that the main loop has to take note of a failure, before the program is ended over its head


class TrainingFailed(RuntimeError):
    """A process of the run died, or hangs."""


class Watchdog:
    """Looks after the processes of a run from a thread of its own: the main loop itself may hang with them.

    Args:
        processes: Returns those that should be alive now, with `name`, `pid`, `exitcode`, `is_alive()` and `kill()`.
        clock: When the environments stepped.
        timeout_s: Seconds without a step after which a run counts as hanging.
        notes: Folder in which a process leaves `<pid>.txt`, the traceback that it ends with.
        stop: Asks the main loop to end; called once, from the thread.
        ending: Returns whether the run is being ended, and its processes may be.
        give_up: Ends the program where the main loop does not follow.

    Attributes:
        failure: What happened, a sentence or more; empty while all is well.
    """

    def __init__(
        self,
        processes: Callable[[], Sequence[Any]],
        clock: StepClock,
        timeout_s: float,
        notes: Path,
        stop: Callable[[], None],
        ending: Callable[[], bool] = lambda: False,
        give_up: Callable[[str], None] | None = None,
    ):
        self._processes, self._clock, self._timeout, self._notes = processes, clock, timeout_s, notes
        self._stop, self._ending, self._give_up = stop, ending, give_up or _exit
        self.failure = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking: the run is over, and its processes may end."""
        self._over.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def look(self) -> str:
        """Return what is wrong, empty where nothing is."""
        dead = [process for process in self._processes() if not process.is_alive()]
        if self._ending():
            dead = [process for process in dead if process.exitcode]
        if dead:
            return " ".join(self._last_words(process) for process in dead)
        stuck = {env: seconds for env, seconds in self._clock.stuck().items() if seconds > self._timeout}
        if stuck:
            where = ", ".join(f"{env} ({seconds:.0f} s)" for env, seconds in stuck.items())
            allowed = f"agent.timeout_s allows {self._timeout:g} s."
            return f"These environments have not come back from a step: {where}. {allowed}"
        if not self._clock.steps:
            if self._clock.idle() > max(START, self._timeout):
                return f"No environment has stepped in the {self._clock.idle():.0f} s since the run began."
        elif self._clock.idle() > self._timeout:
            return (
                f"No environment has stepped for {self._clock.idle():.0f} s, and none is inside a step: the learner or "
                f"the policy hangs, or one update takes longer than agent.timeout_s={self._timeout:g}."
            )
        return ""

    def kill(self) -> None:
        """Kill the processes, all of them."""
        for process in self._processes():
            if process.is_alive():
                process.kill()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self.failure = self.look()
            if self.failure:
                self._stop()
                if not self._over.wait(GRACE):
                    self.kill()
                    self._give_up(self.failure)
                return

    def _last_words(self, process: Any) -> str:
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        note = self._notes / f"{process.pid}.txt"
        said = f" It said:\n{note.read_text().rstrip()}\n" if note.is_file() else ""
        return f"The process {process.name} (pid {process.pid}) {how}.{said}"


def _exit(failure: str) -> NoReturn:
    """End the program at once: the main thread waits for something that will not come."""
    print(f"Error: {failure}", file=sys.stderr, flush=True)
    os._exit(1)
