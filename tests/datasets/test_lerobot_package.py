"""LeRobot's own classes read what is written here, and what they write is read here; run by `make test-lerobot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.datasets.recordings import brightness, episode, write
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.datasets.base import open_dataset
from vlmrl.workflows.config.relabel import relabel_settings
from vlmrl.workflows.relabel.run import relabel

pytest.importorskip("lerobot", reason="make test-lerobot")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.utils.rabc import RABCWeights  # noqa: E402

SIZE, FPS = 64, 10


def theirs(root: Path) -> Any:
    """Open it as LeRobot does; films through PyAV, which needs no libraries of the system."""
    return LeRobotDataset("local/mine", root=root, video_backend="pyav")


def test_lerobot_reads_what_is_written_here(tmp_path: Path) -> None:
    root = write("lerobot", tmp_path / "mine", [episode(0), episode(1, 3)])
    dataset = theirs(root)
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (2, 10, 10)
    for index, (number, t) in enumerate([(0, t) for t in range(6)] + [(1, t) for t in range(4)]):
        row = dataset[index]
        assert (int(row["episode_index"]), int(row["frame_index"]), row["task"]) == (number, t, "be bright")
        np.testing.assert_allclose(row["observation.state"], episode(number, 5 - 2 * number).observations[t])
        ends = [bool(row[name]) for name in ("next.done", "next.terminated", "next.truncated")]
        over = t >= 4 - 2 * number  # the last step, and the row beyond it
        assert ends == [over, over and number == 0, over and number == 1]
        shade = 255 * float(row["observation.images.front"].mean())
        np.testing.assert_allclose(shade, brightness(number, t), atol=2)  # H.264's loss


def test_what_lerobot_writes_is_read_here(tmp_path: Path) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["number", "t"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["push"]},
        "observation.images.top": {
            "dtype": "video",
            "shape": (SIZE, SIZE, 3),
            "names": ["height", "width", "channels"],
        },
    }
    written = LeRobotDataset.create(
        "local/theirs", FPS, features, root=tmp_path / "theirs", use_videos=True, vcodec="h264"
    )
    lengths = (8, 5)
    for number, length in enumerate(lengths):
        for t in range(length):
            written.add_frame(
                {
                    "observation.state": np.array([number, t], np.float32),
                    "action": np.array([t / 10], np.float32),
                    "observation.images.top": np.full((SIZE, SIZE, 3), 30 + 60 * number + 10 * t, np.uint8),
                    "task": f"be bright {number}",
                }
            )
        written.save_episode()
    written.finalize()
    dataset = open_dataset(str(tmp_path / "theirs"))
    assert len(dataset) == 2
    for number, length in enumerate(lengths):
        one = dataset.episode(number)
        one.check()
        assert (one.length, one.text) == (length - 1, f"be bright {number}")
        assert one.observations.tolist() == [[number, t] for t in range(length)]
        np.testing.assert_allclose(one.actions.reshape(-1), np.arange(length - 1) / 10, rtol=1e-6)
        shades = [float(np.asarray(frame).mean()) for frame in one.frames["top"]]
        np.testing.assert_allclose(shades, [30 + 60 * number + 10 * t for t in range(length)], atol=3)


def test_lerobots_weights_follow_the_table_that_relabel_writes(tmp_path: Path) -> None:
    root = write("lerobot", tmp_path / "mine", [episode(0, 8), episode(1, 8)])
    table = root / "sarm_progress.parquet"  # where LeRobot looks for it
    asked = [f"dataset={root}", "reward=ground_truth", f"out={table}", f"run_dir={tmp_path / 'run'}"]
    relabel(relabel_settings(plain(compose("relabel", for_hydra(asked)))))
    weights = RABCWeights(table, chunk_size=2, device=torch.device("cpu"))
    recorded = {9 * number + t: (t - 1) / 8 + number if t else 0.0 for number in (0, 1) for t in range(9)}
    assert weights.progress_lookup == pytest.approx(recorded)
    assert weights.episode_boundaries == {0: {"start": 0, "end": 9}, 1: {"start": 9, "end": 18}}
    given, _ = weights.compute_batch_weights({"index": torch.arange(18)})
    assert torch.isfinite(given).all() and (given >= 0).all() and float(given.mean()) == pytest.approx(1.0, rel=1e-3)
