"""Films, read and written frame by frame with PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from vlmrl.datasets.base import CorruptEpisode
from vlmrl.errors import UserError, require

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
CRF = 18  # x264's scale of quality, 0 lossless to 51; 18 looks like the original to the eye


def read_video(path: Path, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """Yield the frames of a film, or of a part of it, one by one.

    Args:
        path: The file.
        start: Seconds at which the first frame is shown.
        end: Seconds at which the first frame after the part is shown; None takes all.

    Yields:
        (H, W, 3) uint8 RGB.

    Raises:
        CorruptEpisode: The file is missing, or cannot be decoded.
    """
    av = require("av", extra="robotics")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise CorruptEpisode(f"has no pictures in '{path}'")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            # Timestamps were rounded somewhere: a frame counts to the part that most of it lies in.
            half = 0.5 / float(stream.average_rate or 30)
            if start > 0:  # to the last frame before it that can be decoded by itself
                container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                shown = float(frame.pts * stream.time_base)
                if shown < start - half:
                    continue
                if end is not None and shown >= end - half:
                    return
                yield frame.to_ndarray(format="rgb24")
    except (OSError, av.FFmpegError) as error:  # a missing file is both
        raise CorruptEpisode(_unreadable(path, error)) from error


def count_frames(path: Path) -> tuple[int, float]:
    """Return the number of frames of a film and its frames a second.

    The file's own count is taken where it has one; else its packets are counted, without decoding them.

    Raises:
        CorruptEpisode: It cannot be read.
    """
    av = require("av", extra="robotics")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise CorruptEpisode(f"has no pictures in '{path}'")
            stream = container.streams.video[0]
            count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            return count, float(stream.average_rate or 30)
    except (OSError, av.FFmpegError) as error:
        raise CorruptEpisode(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error  # the whole of it repeats the path, behind a number
    return f"has a film that cannot be read ('{path}': {reason})"


def check_size(size: tuple[int, int] | None) -> None:
    """Refuse pictures that `write_video` cannot keep, as soon as their size is known.

    Args:
        size: Height and width in pixels; None where nobody knows yet.

    Raises:
        UserError: One of them is odd, which H.264 cannot keep in its usual form.
    """
    if size is not None and (size[0] % 2 or size[1] % 2):
        even = [number + number % 2 for number in size]
        raise UserError(
            f"The pictures are {size[0]} x {size[1]}, and a film (H.264) has an even height and width. "
            f"{even[0]} x {even[1]} would do: env.height={even[0]} env.width={even[1]}; or format=minari, which keeps "
            "pictures of any size without loss."
        )


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write a film, H.264 for every player; the same frames give the same bytes.

    Args:
        path: The file, mp4; its folder is there.
        frames: (H, W, 3) uint8 RGB, H and W even, taken one by one; at least one.
        fps: Frames a second.

    Returns:
        Number of frames.

    Raises:
        UserError: See `check_size`.
        ValueError: There is no frame.
    """
    av = require("av", extra="robotics")
    rate = Fraction(fps).limit_denominator(1001)
    count = 0
    # One thread: with several, x264 cuts pictures into slices by their number, and bytes depend on the machine.
    options = {"crf": str(CRF), "threads": "1"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for image in frames:
            if count == 0:
                stream.height, stream.width = image.shape[:2]
                check_size((stream.height, stream.width))
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
            count += 1
        if count == 0:
            raise ValueError("A film needs a frame.")
        for packet in stream.encode(None):
            container.mux(packet)
    return count
