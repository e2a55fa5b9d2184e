"""Recorded clips that an audit looks at: embeddings of every frame, a film strip, what people know of the outcome."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vlmrl.datasets.base import CorruptEpisode, Dataset, Episode
from vlmrl.errors import UserError, unknown
from vlmrl.serving.settings import Service
from vlmrl.workflows.report import tracked

AT_ONCE = 64  # frames in memory
STRIP, THUMB = 8, 88  # pictures in a film strip, and their height in pixels
YES, NO = ("true", "1", "yes", "s", "success"), ("false", "0", "no", "f", "failure")
FORM = (
    "It is a csv file with a column episode (name or number) and one or more of success (true or false), done_at "
    "(number of the frame at which the task is first done) and, with a line for each frame, frame and progress (0 to 1)"
)


@dataclass(frozen=True)
class Label:
    """What people know of a clip.

    Attributes:
        success: Whether the task is done at its end; None where nobody knows.
        done_at: Number of the frame at which it is first done; None where nobody knows, or it never is.
        progress: {frame: share of the task that is done, 0 to 1}.
    """

    success: bool | None = None
    done_at: int | None = None
    progress: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """One recorded episode of n frames, n >= 2.

    Attributes:
        number: Its number in the dataset.
        name: What a person finds it by.
        text: What should be done, in its own words; empty where it does not say.
        embeddings: {camera: (n, E) float32}, unit vectors.
        strip: Frame numbers and their pictures, (THUMB, w, 3) uint8 RGB, evenly spread.
        label: What people know of it.
    """

    number: int
    name: str
    text: str
    embeddings: Mapping[str, np.ndarray]
    strip: Sequence[tuple[int, np.ndarray]]
    label: Label

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values())))

    @property
    def progress(self) -> np.ndarray | None:
        """(n,) float64, the share of the task that is done; NaN where it is not known, None where it never is."""
        if not self.label.progress:
            return None
        values = np.full(len(self), np.nan)
        for frame, share in self.label.progress.items():
            if 0 <= frame < len(self):
                values[frame] = share
        return values


def read_clips(
    dataset: Dataset,
    service: Service,
    cameras: Sequence[str],
    labels: Mapping[str, Label],
    problems: dict[str, str],
    progress: bool = False,
) -> Iterator[Clip]:
    """Read recorded episodes one after the other; of one, no more than `AT_ONCE` frames are in memory.

    Each frame is encoded once; what the service's store knows is not encoded again, so a run that was killed goes on.

    Args:
        dataset: Holds them.
        service: Where the encoder runs.
        cameras: Cameras to look through.
        labels: {name of an episode: what is known of it}, see `read_labels`; of the others what they say themselves.
        problems: Takes {name: what is wrong} of episodes that cannot be read.
        progress: Whether to show a progress bar.
    """
    scorer = service.scorer()
    bar = tracked(total=len(dataset), desc="reading clips", unit="clip", show=progress)
    try:
        for i in range(len(dataset)):
            name = str(i)
            try:
                episode = dataset.episode(i)
                name = episode.name or name
                episode.check()
                label = labels[name] if name in labels else _own_label(episode)
                embeddings, strip = {}, []
                for camera in cameras:
                    if camera not in episode.frames:
                        raise CorruptEpisode(f"has no pictures of camera {camera}")
                    frames, parts, start = episode.frames[camera], [], 0
                    wanted = set(np.linspace(0, len(frames) - 1, min(STRIP, len(frames))).round().astype(int).tolist())
                    for chunk in frames.chunks(AT_ONCE):
                        parts.append(scorer.collect(scorer.submit(chunk)))
                        if camera == cameras[0]:
                            strip += [(start + j, _thumb(chunk[j])) for j in range(len(chunk)) if start + j in wanted]
                        start += len(chunk)
                    embeddings[camera] = np.concatenate(parts)
                yield Clip(i, name, episode.text, embeddings, strip, label)
            except CorruptEpisode as error:
                problems[name] = str(error)
            bar.update()
    finally:
        bar.close()
        scorer.close()


def read_labels(given: str, dataset: Dataset) -> dict[str, Label]:
    """Read what people know of clips.

    Args:
        given: Path of a csv file; see `FORM`.
        dataset: The clips; a label of something else is a mistake.

    Returns:
        {name of an episode, as `read_clips` calls it: what is known of it}.

    Raises:
        UserError: The file is not there or has another form, or an episode in it is none of the dataset.
    """
    path = Path(given)
    if not path.is_file():
        raise UserError(f"labels: there is no file '{given}'. {FORM}.")
    found: dict[str, Label] = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        columns = set(table.fieldnames or ())
        allowed = {"episode", "success", "done_at", "frame", "progress"}
        if "episode" not in columns or len(columns) < 2 or ("progress" in columns) != ("frame" in columns):
            raise UserError(f"labels: '{given}' has the columns {', '.join(sorted(columns)) or 'none'}. {FORM}.")
        for column in columns - allowed:
            raise unknown(f"column of '{given}':", column, allowed)
        names = _names(dataset)
        for line in table:
            where = f"labels: line {table.line_num} of '{given}'"
            name = _episode_called((line["episode"] or "").strip(), names, given)
            before = found.get(name, Label())
            success = _flag(line.get("success"), where)
            done_at = _number(line.get("done_at"), where, "done_at")
            shares = dict(before.progress)
            frame, share = _number(line.get("frame"), where, "frame"), (line.get("progress") or "").strip()
            if frame is not None and share:
                shares[frame] = _share(share, where)
            found[name] = Label(
                before.success if success is None else success, before.done_at if done_at is None else done_at, shares
            )
    return found


def _names(dataset: Dataset) -> list[str]:
    """Return what each episode is called, in their order; one that has no name or cannot be read, by its number."""
    named: Sequence[str] | None = getattr(dataset, "names", None)
    if named is not None:
        return list(named)
    names = []
    for i in range(len(dataset)):
        try:
            names.append(dataset.episode(i).name or str(i))
        except CorruptEpisode:
            names.append(str(i))
    return names


def _episode_called(given: str, names: Sequence[str], file: str) -> str:
    """Return the name of the one episode that a person means.

    A name goes before a number: of clips that are called 1, 2 and 3, "2" is the second, and not the one with number 2.

    Raises:
        UserError: There is no such episode.
    """
    if given in names:
        return given
    if given.isdecimal() and int(given) < len(names):
        return names[int(given)]
    raise unknown(f"episode in '{file}':", given, names)


def _own_label(episode: Episode) -> Label:
    """Return what a recording says of itself: whether the task's check, or somebody, found it done, frame by frame."""
    for name in ("predicate", "success"):
        flags = episode.infos.get(name)
        if flags is not None:
            # Entry t belongs to the step to frame t + 1 where there are T of them.
            done = np.asarray(flags, dtype=bool).reshape(len(flags), -1)[:, -1]
            done = np.r_[False, done] if len(done) == episode.length else done
            shares = episode.infos.get("progress")
            known = {} if shares is None else dict(enumerate(map(float, np.r_[0.0, shares][-len(done) :])))
            return Label(bool(done[-1]), int(done.argmax()) if done[-1] else None, known)
    return Label()


def _thumb(frame: np.ndarray) -> np.ndarray:
    width = max(1, round(frame.shape[1] * THUMB / frame.shape[0]))
    return cv2.resize(frame, (width, THUMB), interpolation=cv2.INTER_AREA)


def _flag(text: str | None, where: str) -> bool | None:
    value = (text or "").strip().lower()
    if value not in ("", *YES, *NO):
        raise UserError(f"{where}: success is '{text}'; it must be true or false.")
    return None if not value else value in YES


def _number(text: str | None, where: str, column: str) -> int | None:
    value = (text or "").strip()
    if not value:
        return None
    if not value.isdigit():
        raise UserError(f"{where}: {column} is '{text}'; it must be the number of a frame, counted from 0.")
    return int(value)


def _share(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{where}: progress is '{text}'; it must be a number from 0 to 1.")
    return value
