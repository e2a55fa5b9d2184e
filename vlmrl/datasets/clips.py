"""Folders of clips or of pictures, with an optional table of what was done, and one of what each shows.

    folder/<episode>.mp4               one camera          folder/<episode>/<picture>.png     pictures in order of name
    folder/<camera>/<episode>.mp4      several             folder/steps.csv                   a line a frame, optional
                                                           folder/captions.csv                a line a clip, optional

`steps.csv` has a column `episode`, the name of the clip or folder of pictures, and a line for each of its frames, in
order. Its other columns are optional: `action`, or `action_0`, `action_1`, …: what was done at that frame (the last
frame's is not read); `observation_0`, …: what else was known there, such as joint angles; `reward`, `terminated`,
`truncated`, `success`: what came of arriving at that frame (the first frame's is not read); `text`: what should be
done. A column `action` of whole numbers is a choice among several, any others are numbers of a box.

`captions.csv` has the columns `episode`, the name of a clip, with or without its ending, and `text`, what it shows or
what should be done in it: for clips of which no more is known.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets import video
from vlmrl.datasets.base import CorruptEpisode, Episode, Frames
from vlmrl.errors import UserError, unknown

PICTURES = (".jpeg", ".jpg", ".png")
TABLE = "steps.csv"
CAPTIONS = "captions.csv"
CARD = "recording.json"  # what `ClipWriter` says of the whole
CAMERA = "front"  # what the one camera is called
FLAGS = ("terminated", "truncated", "success")
YES, NO = ("1", "true", "yes"), ("", "0", "false", "no")


class ClipFolder:
    """A folder of clips or pictures; `open` makes one.

    Args:
        spec: The folder.

    Raises:
        UserError: It holds neither, or its table cannot be read.
    """

    format = "clips"

    def __init__(self, spec: str):
        self.spec = spec
        self.path = folder = Path(spec)
        if not folder.is_dir():
            raise UserError(f"dataset={spec}: there is no such folder.")
        self._files = _find(folder)
        if not self._files:
            raise UserError(
                f"dataset={spec}: the folder holds neither clips ({', '.join(video.SUFFIXES)}) nor folders of pictures "
                f"({', '.join(PICTURES)})."
            )
        self.names = sorted({name for episodes in self._files.values() for name in episodes})
        card = folder / CARD
        self.metadata: dict[str, Any] = {"vlmrl": json.loads(card.read_text())} if card.is_file() else {}
        table = folder / TABLE
        self._lines = _read_table(table) if table.is_file() else {}
        for name in self._lines:
            if name not in self.names:
                raise unknown(f"episode in '{table}':", name, self.names)
        columns = next(iter(self._lines.values()), {})
        captions = folder / CAPTIONS
        self._captions = _read_captions(captions, self.names) if captions.is_file() else {}
        if self._captions and "text" in columns:
            raise UserError(f"dataset={spec}: {TABLE} and {CAPTIONS} both have texts; leave one of them out.")
        self.observation_space: gym.Space | None = None
        self.action_space: gym.Space | None = None
        if "observation" in columns:
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, columns["observation"].shape[1:], np.float32)
        if "action" in columns:
            self.action_space = _action_space([lines["action"][:-1] for lines in self._lines.values()])

    @classmethod
    def recognises(cls, spec: str) -> bool:
        """See `DatasetFormat`."""
        folder = Path(spec)
        return folder.is_dir() and not (folder / "meta" / "info.json").is_file() and bool(_find(folder))

    @classmethod
    def open(cls, spec: str) -> ClipFolder:
        """See `DatasetFormat`."""
        return cls(spec)

    def __len__(self) -> int:
        return len(self.names)

    def episode(self, i: int) -> Episode:
        """See `Dataset`."""
        name = self.names[i]
        frames, fps = {}, None
        for camera, episodes in self._files.items():
            if name not in episodes:
                raise CorruptEpisode(f"has no file of camera {camera}")
            frames[camera], fps = _frames(episodes[name])
        length = len(next(iter(frames.values()))) - 1
        if self._lines and name not in self._lines:
            raise CorruptEpisode(f"is not in {TABLE}")
        lines = self._lines.get(name, {})
        for column, values in lines.items():
            if len(values) != length + 1:
                raise CorruptEpisode(f"has {length + 1} frames and {len(values)} lines in {TABLE} ({column})")
        ends = np.arange(length) == length - 1
        terminations = lines["terminated"][1:] if "terminated" in lines else np.zeros(length, dtype=bool)
        truncations = lines["truncated"][1:] if "truncated" in lines else ends & ~terminations
        actions = lines["action"][:-1] if "action" in lines else None
        if actions is not None and self.action_space is not None:
            actions = actions.astype(self.action_space.dtype)
        return Episode(
            id=i,
            length=length,
            observations=lines["observation"].astype(np.float32) if "observation" in lines else None,
            actions=actions,
            rewards=lines["reward"][1:] if "reward" in lines else None,
            terminations=terminations,
            truncations=truncations,
            infos={"success": lines["success"][1:]} if "success" in lines else {},
            frames=frames,
            text=str(lines["text"][0]) if "text" in lines else self._captions.get(name, ""),
            fps=fps,
            name=name,
        )

    def episodes(self) -> Iterator[Episode]:
        """See `Dataset`."""
        return map(self.episode, range(len(self)))

    def recover_environment(self) -> gym.Env:
        """Refuse: clips do not say what they were filmed in."""
        raise UserError(
            f"The clips in '{self.spec}' do not say in which environment they were filmed. Name it: env=..."
        )


def _find(folder: Path) -> dict[str, dict[str, Path]]:
    """Return {camera: {episode: clip, or folder of pictures}}; empty where there are none."""
    clips = _clips(folder)
    if clips:
        return {CAMERA: clips}
    below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    cameras = {entry.name: clips for entry in below if (clips := _clips(entry))}
    if cameras:
        return cameras
    pictures = {entry.name: entry for entry in below if _pictures(entry)}
    return {CAMERA: pictures} if pictures else {}


def _clips(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in video.SUFFIXES}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _frames(path: Path) -> tuple[Frames, float | None]:
    """Return the frames of a clip or folder of pictures, and its frames a second where it says so."""
    if path.is_dir():
        pictures = _pictures(path)
        return Frames(len(pictures), lambda: map(_read_picture, pictures)), None
    count, fps = video.count_frames(path)
    return Frames(count, lambda: video.read_video(path)), fps


def _read_picture(path: Path) -> np.ndarray:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise CorruptEpisode(f"has a picture that cannot be read ('{path}')")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _read_captions(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return {episode: what it shows} of `captions.csv`.

    Raises:
        UserError: A column is missing, or a clip is unknown or named twice.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if not {"episode", "text"} <= set(table.fieldnames or ()):
            raise UserError(
                f"'{path}' has the columns {', '.join(table.fieldnames or ()) or 'none'}; it needs episode, the name "
                "of a clip, and text, what it shows. Put a text with commas between double quotes."
            )
        found: dict[str, str] = {}
        for line in table:
            given = (line["episode"] or "").strip()
            name = given if given in names else Path(given).stem
            if name not in names:
                raise unknown(f"episode in '{path}':", given, names)
            if name in found:
                raise UserError(f"'{path}', line {table.line_num}: {name} is there twice; a clip has one caption.")
            if None in line:
                raise UserError(
                    f"'{path}', line {table.line_num}: more values than columns. Put a text with commas between double "
                    "quotes."
                )
            found[name] = (line["text"] or "").strip()
    return found


def _read_table(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return {episode: {column: (n, ...) array}} of `steps.csv`; `action_0`, … and `observation_0`, … are joined.

    Raises:
        UserError: A column is missing or unknown, or holds what it should not.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    if not lines or "episode" not in lines[0]:
        raise UserError(f"'{path}' needs a line of names, one of them 'episode', and a line for each frame.")
    columns = [name for name in lines[0] if name is not None]
    groups: dict[str, list[str]] = {}
    for name in columns:
        group = name.rpartition("_")[0] if name.rpartition("_")[2].isdigit() else name
        if group not in ("episode", "action", "observation", "reward", "text", *FLAGS):
            raise unknown(
                f"column in '{path}':",
                name,
                ["episode", "action", "action_0", "observation_0", "reward", "text", *FLAGS],
            )
        groups.setdefault(group, []).append(name)
    by_episode: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, line in enumerate(lines, start=2):  # as editors count them
        by_episode.setdefault(line["episode"], []).append((number, line))
    return {
        episode: {
            group: _column(path, group, names, own) for group, names in groups.items() if group != "episode"
        }
        for episode, own in by_episode.items()
    }  # fmt: skip


def _column(path: Path, group: str, names: list[str], lines: list[tuple[int, dict[str, str]]]) -> np.ndarray:
    """Return one column of one episode, (n,), or several that belong together, (n, k)."""
    if group == "text":
        return np.array([line[names[0]] for _, line in lines])
    if group in FLAGS:
        return np.array([_flag(path, group, number, line[names[0]]) for number, line in lines])
    names = sorted(names, key=lambda name: int(name.rpartition("_")[2]) if name != group else 0)
    rows = []
    for i, (number, line) in enumerate(lines):
        # What is not read may be left out: the last action, the first reward.
        unread = (group == "action" and i == len(lines) - 1) or (group == "reward" and i == 0)
        try:
            rows.append([0.0 if unread and not line[name] else float(line[name]) for name in names])
        except (TypeError, ValueError):
            raise UserError(f"'{path}', line {number}: {group} is not a number.") from None
    array = np.array(rows, dtype=np.float64)
    return array[:, 0] if names == [group] else array


def _flag(path: Path, group: str, number: int, value: str | None) -> bool:
    text = (value or "").strip().lower()
    if text not in (*YES, *NO):
        raise UserError(f"'{path}', line {number}: {group} is '{value}'; it must be true or false.")
    return text in YES


def _action_space(actions: list[np.ndarray]) -> gym.Space:
    """Return the space that all actions lie in: whole numbers of one column are choices, all others lie in a box."""
    together = np.concatenate(actions)
    if together.ndim == 1 and len(together) and (together == np.round(together)).all() and together.min() >= 0:
        return gym.spaces.Discrete(int(together.max()) + 1)
    together = together.reshape(len(together), -1)
    finite = np.where(np.isfinite(together), together, 0)
    # Where all stay within [-1, 1], as scaled actions do, that is the box; else what was seen.
    low = np.minimum(finite.min(axis=0, initial=0), -1).astype(np.float32)
    high = np.maximum(finite.max(axis=0, initial=0), 1).astype(np.float32)
    return gym.spaces.Box(low, high, dtype=np.float32)
