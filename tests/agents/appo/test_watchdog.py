"""What ends a run whose processes die or hang, with real processes that are really killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from vlmrl.agents.appo.shared import StepClock
from vlmrl.agents.appo.watchdog import Watchdog


@pytest.fixture
def process() -> Iterator[Any]:
    process = get_context("fork").Process(target=time.sleep, args=(600,), name="rollout_proc0")
    process.start()
    yield process
    process.kill()
    process.join()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_while_all_is_well_nothing_is_said(process: Any, tmp_path: Path) -> None:
    assert Watchdog(lambda: [process], StepClock(1), 60, tmp_path, stop=lambda: None).look() == ""


def test_a_process_that_is_killed_stops_the_main_loop_within_seconds(process: Any, tmp_path: Path) -> None:
    stopped = threading.Event()
    watchdog = Watchdog(lambda: [process], StepClock(1), 60, tmp_path, stop=stopped.set)
    watchdog.start()
    try:
        os.kill(process.pid, signal.SIGKILL)
        assert stopped.wait(5)
        assert watchdog.failure == f"The process rollout_proc0 (pid {process.pid}) was killed by SIGKILL."
    finally:
        watchdog.close()


def test_the_last_words_of_a_process_are_told(process: Any, tmp_path: Path) -> None:
    (tmp_path / f"{process.pid}.txt").write_text("ValueError: the dungeon collapsed\n")
    process.kill()
    process.join()
    failure = Watchdog(lambda: [process], StepClock(1), 60, tmp_path, stop=lambda: None).look()
    assert "It said:\nValueError: the dungeon collapsed" in failure


def test_at_the_end_processes_may_end_but_not_be_killed(tmp_path: Path) -> None:
    ended = get_context("fork").Process(target=int)
    failed = get_context("fork").Process(target=os._exit, args=(3,), name="learner_proc0")
    for process in (ended, failed):
        process.start()
        process.join()

    def look(process: Any, ending: bool) -> str:
        return Watchdog(lambda: [process], StepClock(1), 60, tmp_path, lambda: None, ending=lambda: ending).look()

    assert look(ended, ending=True) == ""
    assert "ended with 0" in look(ended, ending=False)
    assert "learner_proc0" in look(failed, ending=True) and "ended with 3" in look(failed, ending=True)


def test_an_environment_that_hangs_is_named(tmp_path: Path) -> None:
    clock = StepClock(4)
    watchdog = Watchdog(lambda: [], clock, 0.1, tmp_path, stop=lambda: None)
    clock.enter(2)
    time.sleep(0.15)
    assert "come back from a step: 2 (" in watchdog.look()


def test_environments_that_nobody_asks_to_step_point_at_the_learner(tmp_path: Path) -> None:
    clock = StepClock(4)
    watchdog = Watchdog(lambda: [], clock, 0.1, tmp_path, stop=lambda: None)
    clock.leave(1)
    assert watchdog.look() == ""
    time.sleep(0.15)
    assert "learner" in watchdog.look()
    clock.leave(3)
    assert watchdog.look() == ""


def test_a_run_that_has_not_begun_to_step_has_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = Watchdog(lambda: [], StepClock(4), 0.1, tmp_path, stop=lambda: None)
    time.sleep(0.15)
    assert watchdog.look() == ""
    monkeypatch.setattr("vlmrl.agents.appo.watchdog.START", 0.1)
    assert "since the run began" in watchdog.look()


def test_a_main_loop_that_hangs_itself_is_ended_over_its_head(
    process: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrl.agents.appo.watchdog.GRACE", 0.1)
    said: list[str] = []
    other = get_context("fork").Process(target=time.sleep, args=(600,))
    other.start()
    watchdog = Watchdog(lambda: [process, other], StepClock(1), 60, tmp_path, stop=lambda: None, give_up=said.append)
    watchdog.start()
    process.kill()
    until(lambda: said)
    assert "SIGKILL" in said[0]
    until(lambda: not other.is_alive())  # nothing is left behind
    watchdog.close()
