"""Training in a world that speaks, end to end: a policy that remembers, what it sees in a dict, a film of it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import pytest

from tests.patience import PATIENCE

pytest.importorskip("minigrid")

SETTINGS = [
    "env=minigrid",
    "env.kwargs.level=MiniGrid-Empty-5x5-v0",
    "env.max_episode_steps=20",
    "task=reach_goal",
    "n_envs=2",
    "agent=recurrent_ppo",
    "agent.n_steps=16",
    "agent.batch_size=32",
    "agent.n_epochs=1",
    "agent.lstm_hidden_size=8",
    "agent.features_dim=16",
    "total_timesteps=128",
    "checkpoint_every=64",
    "eval_episodes=2",
    "progress_bar=false",
    "device=cpu",
    "audit=false",
]


def run(cwd: Path, module: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_a_policy_that_remembers_learns_from_a_dict_is_filmed_and_measured_again(tmp_path: Path) -> None:
    run(tmp_path, "vlmrl.train", *SETTINGS)
    folder = (tmp_path / "runs" / "last").resolve()
    rows = list(csv.DictReader((folder / "progress.csv").open()))
    told = [float(row["rollout/ep_rew_mean"]) for row in rows if row["rollout/ep_rew_mean"]]
    filled = [float(row["rollout/ep_vlm_rew_mean"]) for row in rows if row["rollout/ep_vlm_rew_mean"]]
    # The truth is what is rewarded here, so both are one number where the same episodes are complete.
    assert told and filled and filled[-1] == pytest.approx(told[-1], rel=0.2)
    policies = json.loads((folder / "result.json").read_text())["policies"]
    assert set(policies) == {"trained", "untrained", "random", "zero"}
    assert all(0 <= policy["success"]["mean"] <= 1 for policy in policies.values())
    pictures = list(imageio.get_reader(next((tmp_path / "videos").glob("*.mp4"))).iter_data())
    assert len(pictures) > 20 and max(abs(a.astype(int) - pictures[0]).mean() for a in pictures[1:]) > 1
    # From the zip alone: which algorithm it is, and what it sees.
    again = run(
        tmp_path, "vlmrl.evaluate", f"policy={folder / 'model.zip'}", *SETTINGS[:4], "episodes=2", "progress_bar=false"
    )
    assert "model.zip" in again
