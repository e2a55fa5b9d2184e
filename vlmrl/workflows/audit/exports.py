"""Values of recorded clips for other tools: LeRobot's progress table, and rerun's recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmrl.datasets.base import Dataset
from vlmrl.datasets.lerobot import LeRobotDataset
from vlmrl.errors import require
from vlmrl.workflows.audit.clips import Clip


def progress_scale(clips: Sequence[Clip], curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the values that count as progress 0 and 1: the medians of first and last values of successful clips.

    One scale for all clips. Scaled by its own least and greatest value, every failed clip would reach 1.
    """
    wins = [curve for clip, curve in zip(clips, curves, strict=True) if clip.label.success is not False]
    return float(np.median([curve[0] for curve in wins])), float(np.median([curve[-1] for curve in wins]))


def write_progress_table(
    folder: Path, name: str, clips: Sequence[Clip], curves: Sequence[np.ndarray], dataset: Dataset
) -> Path:
    """Write `<name>_progress.parquet` as LeRobot's reward models do: a line a frame.

    Columns: index (int64, see below), episode_index, frame_index (int64), progress_sparse (float32, 0 to 1, see
    `progress_scale`), value (float32, unscaled). Equal values make equal bytes.

    Args:
        folder: Where it goes.
        name: Name of the reward.
        clips: The clips that could be read.
        curves: Their values, one a frame.
        dataset: Where they come from. A LeRobot dataset numbers all its frames, and `index` is that number, so an
            episode that was left out leaves a gap; other datasets have no such number, and the frames of the clips
            are counted.

    Raises:
        UserError: pyarrow is not installed.
    """
    require("pyarrow", extra="robotics")
    import pyarrow as pa
    import pyarrow.parquet as parquet

    zero, one = progress_scale(clips, curves)
    span = one - zero or 1.0
    values = np.concatenate(curves).astype(np.float32)
    lengths = [len(curve) for curve in curves]
    numbers = [clip.number for clip in clips]
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    if isinstance(dataset, LeRobotDataset):
        firsts = [dataset.first_index(i) for i in numbers]
        numbers = [dataset.number(i) for i in numbers]
    frames = [np.arange(n, dtype=np.int64) for n in lengths]
    table = pa.table(
        {
            "index": np.concatenate([first + own for first, own in zip(firsts, frames, strict=True)]),
            "episode_index": np.repeat(numbers, lengths).astype(np.int64),
            "frame_index": np.concatenate(frames),
            "progress_sparse": np.clip((values - zero) / span, 0, 1).astype(np.float32),
            "value": values,
        }
    )
    path = folder / f"{name}_progress.parquet"
    parquet.write_table(table.replace_schema_metadata({"reward_model_path": name}), path)
    return path


def write_rrd(path: Path, clips: Sequence[Clip], curves: Sequence[np.ndarray]) -> Path:
    """Write curves and film strips for rerun's viewer, a folder a clip, over the frames' numbers.

    Raises:
        UserError: rerun is not installed.
    """
    rerun = require("rerun", extra="rerun")
    recording = rerun.RecordingStream("vlmrl_audit")
    recording.save(str(path))
    for clip, curve in zip(clips, curves, strict=True):
        name = f"{clip.number:04d}_{Path(clip.name).name}"
        for frame, value in enumerate(curve):
            recording.set_time("frame_index", sequence=frame)
            recording.log(f"{name}/value", rerun.Scalars(float(value)))
        for frame, picture in clip.strip:
            recording.set_time("frame_index", sequence=frame)
            recording.log(f"{name}/observation.images", rerun.Image(picture))
    recording.flush()
    return path
