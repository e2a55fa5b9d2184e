"""docs/offline.md, followed to the letter on a small folder of clips."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.patience import PATIENCE
from vlmrl.datasets.video import write_video

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "offline.md").read_text()
# The page speaks of a large encoder, which has to be downloaded, and of a robot.
RELABEL = ["encoder=mini", "encoder.any_env=true", "goal=a pole upright", "device=cpu", "progress_bar=false"]
TRAIN = ["total_timesteps=64", "agent.batch_size=8", "agent.net_arch=[8]", "device=cpu", "progress_bar=false"]


def commands() -> list[list[str]]:
    section = PAGE.partition("## From a folder of clips to a policy")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^python -m (vlmrl\..*)$", section, flags=re.MULTILINE)]


def table_columns() -> list[str]:
    return PAGE.partition("```\nepisode,")[2].partition("\n")[0].split(",")


def film(folder: Path) -> None:
    """Two clips of a dot that moves as it is told, and the table that the page shows."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    lines = ["episode," + ",".join(table_columns())]
    for name in ("take_01", "take_02"):
        where, pictures = np.array([24.0, 24.0]), []
        for _ in range(12):
            picture = np.zeros((48, 48, 3), dtype=np.uint8)
            cv2.circle(picture, (round(where[0]), round(where[1])), 5, (255, 40, 40), -1)
            pictures.append(picture)
            push = draws.uniform(-1, 1, 2)
            lines.append(f"{name},{push[0]:.3f},{push[1]:.3f},{where[0]:.2f},{where[1]:.2f},0")
            where = np.clip(where + 3 * push, 6, 42)
        write_video(folder / f"{name}.mp4", pictures, fps=10)
    (folder / "steps.csv").write_text("\n".join(lines) + "\n")


def run(cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.parametrize(
    "way", [pytest.param(0, id="recorded"), pytest.param(1, id="embeddings", marks=pytest.mark.slow)]
)
def test_from_clips_to_a_policy(way: int, tmp_path: Path) -> None:
    film(tmp_path / "my_clips")
    relabel, train = commands()[2 * way : 2 * way + 2]
    assert [relabel[0], train[0]] == ["vlmrl.relabel", "vlmrl.train"]
    printed = run(tmp_path, *relabel, *RELABEL)
    assert "2 episodes, 22 rewards" in printed
    run(tmp_path, *train, *TRAIN)
    folder = (tmp_path / "runs" / "last").resolve()
    assert (folder / "model.zip").is_file()
    assert json.loads((folder / "result.json").read_text())["steps"] == 64
