"""The commands with an encoder that runs elsewhere."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from tests.workflows.test_train import COMMON, TINY, last, run


@pytest.mark.slow
def test_a_run_is_the_same_wherever_its_encoder_is(tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    learned = {}
    for scorer in ("local", "thread", "process"):
        folder = tmp_path / scorer
        folder.mkdir()
        run(folder, *TINY["cartpole"], *COMMON, "reward=clip", "video=false", f"scorer={scorer}")
        learned[scorer] = PPO.load(last(folder) / "model.zip", device="cpu").policy.state_dict()
        rows = list(csv.DictReader((last(folder) / "progress.csv").open()))
        assert float(rows[-1]["reward/queue_depth"]) >= 0
    run(folder, "runs=last", "episodes=2", "n_envs=2", "progress_bar=false", "threads=1", module="vlmrl.evaluate")
    for scorer in ("thread", "process"):
        assert all(torch.equal(value, learned[scorer][key]) for key, value in learned["local"].items())
