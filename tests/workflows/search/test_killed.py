"""The command itself, killed in the middle of a training and gone on with: an endpoint writes, a rater looks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.reward_models.programs.test_generate import fenced
from tests.reward_models.programs.writer_endpoint import MODEL, serve_writer
from vlmrl.reward_models.confinement.process import measured_level

ROOT = Path(__file__).parents[3]
PROGRAM = """WEIGHT = {weight}

def compute_dense_reward(state, action):
    up = WEIGHT * np.cos(state.angle)
    return up, {{"up": up}}
"""


def _write(body: dict[str, Any]) -> str:
    """Answer by the seed of the question and by what was told of the programs before."""
    return fenced(PROGRAM.format(weight=1.0 + body["seed"] + 10 * (len(body["messages"]) > 2)))


def _command(folder: Path, url: str) -> list[str]:
    return [
        "env=cartpole",
        "reward.completions=judge",
        "reward.temperature=1",
        f"reward.confinement={measured_level()}",
        "judge=openai",
        f"judge.base_url={url}",
        f"judge.model={MODEL}",
        "feedback=clips",
        "judge@rater=ground_truth",
        "clip_size=32",
        "samples=1",
        "rounds=2",
        "report_seeds=[0]",
        "total_timesteps=256",
        "agent.n_steps=16",
        "eval_episodes=1",
        "log_interval=1",
        "progress_bar=false",
        f"hydra.run.dir={folder}",
    ]


@contextlib.contextmanager
def _search(where: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmrl.search", *arguments],
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _finished(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_search_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    with serve_writer(_write) as endpoint, _search(tmp_path, *_command(tmp_path / "whole", endpoint.url)) as whole:
        with _search(tmp_path, *_command(tmp_path / "cut", endpoint.url)) as cut:
            # In the second round, while it trains: one run is done and filmed, another one has begun and is not.
            deadline = time.monotonic() + PATIENCE
            while len(list(tmp_path.glob("cut/runs/*/256-100/config.yaml"))) < 2 and cut.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(cut.pid, signal.SIGKILL)
            assert cut.wait(10) == -signal.SIGKILL
        assert not (tmp_path / "cut" / "result.json").exists()
        done = list(tmp_path.glob("cut/runs/*/256-100/result.json"))
        assert len(done) == 1
        files = [done[0].with_name(name) for name in ("result.json", "model.zip", "clip.npz", "progress.csv")]
        kept = {path: path.stat().st_mtime_ns for path in files}
        with _search(tmp_path, f"resume={tmp_path / 'cut'}") as on:
            assert "round 2: 1 new programs" in _finished(on)
        _finished(whole)
        # The answers of the first half came from the store: a question is paid once in each search.
        assert len(endpoint.requests) == 4
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")]
    assert results[0] == results[1] and len(results[0]["candidates"]) == 2
    assert results[0]["chosen"]["comparisons"] == 1
    programs = [(tmp_path / name / "program.py").read_text() for name in ("whole", "cut")]
    assert programs[0] == programs[1]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # what was done was not done again
