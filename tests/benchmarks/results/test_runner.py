"""The whole command, in processes of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.results.records import Records
from tests.benchmarks.results.made import PAGE, ROOT, TOY, line
from tests.patience import PATIENCE


def start(place: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.results", "plan=plan.yaml", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Who starts the tests in the background of a script has Ctrl-C ignored, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(place: Path, *arguments: str) -> tuple[int, str]:
    process = start(place, *arguments)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def test_a_row_that_another_process_runs_is_left_out(place: Path) -> None:
    folder = place / "runs" / "results" / "long-1"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and "long-1: another process is at it; left out" in output
    assert not list(folder.glob("*/2*"))


def test_a_stopped_row_goes_on_and_a_finished_one_is_passed_over(place: Path) -> None:
    runner = start(place, "rows=[long]", "seeds=[1]")
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(place.glob("runs/results/long-1/*/2*/checkpoints/[0-9]*")):
            assert time.monotonic() < deadline and runner.poll() is None
            time.sleep(0.02)
        runner.send_signal(signal.SIGINT)
        output, _ = runner.communicate(timeout=PATIENCE)
    finally:
        runner.kill()
    assert runner.returncode == 1 and "long-1: stopped; the same command goes on with it" in output
    (run,) = place.glob("runs/results/long-1/*/2*")
    assert not (run / "result.json").exists()

    status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and "long-1 goes on: python -m vlmrl.train env=cartpole" in output
    assert list(place.glob("runs/results/long-1/*/2*")) == [run]
    kept = Records(place / "docs" / "results").load("long", 1)
    assert kept is not None and kept.steps == 30720 and {"trained", "untrained", "random"} <= set(kept.policies)
    assert (
        kept.command_seconds is not None and kept.command_seconds > kept.training_seconds - 2
    )  # whole seconds, two logs
    assert str(place) not in (place / "docs" / "results" / "long-1.json").read_text()

    before = {path: path.stat().st_mtime_ns for path in (place / "docs").rglob("*")}
    status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and output.strip() == "kept: long-1"
    assert {path: path.stat().st_mtime_ns for path in (place / "docs").rglob("*")} == before


@pytest.mark.slow
def test_a_row_that_fails_shows_why_and_stops_no_other(place: Path) -> None:
    # A replay buffer that no machine holds is found by the run itself.
    rows = (
        "    broken: {overrides: [agent=dqn, agent.buffer_size=1000000000000000]}\n"
        "    short: {overrides: [total_timesteps=256], label: a short one}\n"
    )
    toy = TOY.partition("words:")[0].replace('agent.n_steps=64, agent.batch_size=64, "agent.net_arch=[16]",', "")
    (place / "plan.yaml").write_text(toy.partition("    long:")[0] + rows)
    (place / "docs" / "results.md").write_text(PAGE.partition("Kept between")[0])
    status, output = finish(place, "jobs=2")
    assert status == 1
    assert "broken-0 failed with status 2" in output and "A replay buffer of agent.buffer_size=" in output
    assert "failed: broken-0" in output and "finished: short-0" in output

    status, output = finish(place, "gallery=[toy]")
    assert status == 0 and (place / "videos" / "gallery_short.mp4").stat().st_size > 1000
    assert line(place / "docs" / "results.md", "a short one")["run"] == "[a short one](../videos/gallery_short.mp4)"

    status, output = finish(place, "publish=runs/results/short-0/last", "reference=reference")
    assert status == 0 and "policy=reference" in output


def test_no_time_begins_nothing(place: Path) -> None:
    status, output = finish(place, "rows=[short]", "budget_minutes=0.000001")
    assert status == 0 and "The time is up." in output and "waiting: short-0" in output
    assert not (place / "runs").exists()


def test_mistakes_are_one_line(place: Path) -> None:
    for arguments, message in (
        (["rows=[lnog]"], "Error: Unknown row 'lnog'. Did you mean 'long'"),
        (["gallery=[toys]"], "Error: Unknown table 'toys'. Did you mean 'toy'"),
        (["import=nowhere"], "Error: There is no run folder 'nowhere'"),
        (["plan=nowhere.yaml"], "Error: There is no file 'nowhere.yaml' with the rows"),
    ):
        status, output = finish(place, *arguments)
        assert status == 2 and output.splitlines()[-1].startswith(message) and "Traceback" not in output
