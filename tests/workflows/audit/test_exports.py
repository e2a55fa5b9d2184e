"""Tables of values for other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from tests.datasets.recordings import shared_film
from tests.workflows.audit.test_recordings import clip
from vlmrl.datasets.base import open_dataset
from vlmrl.workflows.audit.exports import write_progress_table


def test_the_progress_table_counts_the_frames_of_episodes_that_were_left_out(tmp_path: Path) -> None:
    """LeRobot looks a frame up by its number among all frames of the dataset."""
    root = shared_film(tmp_path / "shared", (2, 4, 1))
    dataset = open_dataset(str(root))
    clips = [clip(i, np.linspace(0, 1, dataset.rows(i))) for i in (0, 2)]  # 1 is corrupt
    curves = [own.embeddings["front"][:, 0] for own in clips]
    columns = parquet.read_table(write_progress_table(tmp_path, "liv", clips, curves, dataset)).to_pydict()
    assert columns["index"] == [0, 1, 2, 8, 9] and columns["episode_index"] == [0, 0, 0, 2, 2]
    assert columns["frame_index"] == [0, 1, 2, 0, 1]
