"""Folders of clips or of pictures, with an optional table of what was done, and one of what each shows.

    folder/<episode>.mp4               one camera          folder/<episode>/<picture>.png     pictures in order of name
    folder/<camera>/<episode>.mp4      several             folder/steps.csv                   a line a frame, optional
                                                           folder/captions.csv                a line a clip, optional

`steps.csv` has a column `episode`, the name of the clip or folder of pictures, and a line for each of its frames, in
order. Its other columns are optional: `action`, or `action_0`, `action_1`, …: what was done at that frame (the last
frame's is not read); `observation_0`, …: what else was known there, such as joint angles; `reward`, `terminated`,
`truncated`, `success`: what came of arriving at that frame (the first frame's is not read); `text`: what should be
done. A column `action` of whole numbers is a choice among several, any others are numbers of a box.

Names are ordered as people count: `frame_2` comes before `frame_10`.

`captions.csv` has the columns `episode`, the name of a clip, with or without its ending, and `text`, what it shows or
what should be done in it: for clips of which no more is known.

A clip that a table names and the folder lacks is an episode like the others, one that cannot be read: so it is refused
by name, or skipped, as a film that is cut short is.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.datasets import video
from vlmrl.datasets.base import CorruptEpisode, Episode, Frames
from vlmrl.datasets.spaces import in_form, recorded
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
        known = {name for episodes in self._files.values() for name in episodes}
        card = folder / CARD
        self.metadata: dict[str, Any] = {"vlmrl": json.loads(card.read_text())} if card.is_file() else {}
        table = folder / TABLE
        self._lines = _read_table(table) if table.is_file() else {}
        _require_one_of(known, table, self._lines)
        captions = folder / CAPTIONS
        self._captions = _read_captions(captions, known) if captions.is_file() else {}
        self.names = sorted({*known, *self._lines, *self._captions}, key=_as_counted)
        if self._captions and any(lines.text is not None for lines in self._lines.values()):
            raise UserError(f"dataset={spec}: {TABLE} and {CAPTIONS} both have texts; leave one of them out.")
        self.observation_space, self.action_space = self._spaces()

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
        if all(name not in episodes for episodes in self._files.values()):
            table = TABLE if name in self._lines else CAPTIONS
            of_films = all(path.is_file() for path in next(iter(self._files.values())).values())
            what, kind = ("film", "clip") if of_films else ("pictures", "folder of pictures")
            raise CorruptEpisode(f"has no {what}: it is in {table}, and there is no such {kind} in the folder")
        frames, fps = {}, None
        for camera, episodes in self._files.items():
            if name not in episodes:
                raise CorruptEpisode(f"has no file of camera {camera}")
            frames[camera], fps = _frames(episodes[name])
        length = len(next(iter(frames.values()))) - 1
        if self._lines and name not in self._lines:
            raise CorruptEpisode(f"is not in {TABLE}")
        own = self._lines.get(name)
        if own is not None and own.count != length + 1:
            raise CorruptEpisode(f"has {length + 1} frames and {own.count} lines in {TABLE}")
        lines = own.columns() if own is not None else {}
        ends = np.arange(length) == length - 1
        terminations = lines["terminated"][1:] if "terminated" in lines else np.zeros(length, dtype=bool)
        truncations = lines["truncated"][1:] if "truncated" in lines else ends & ~terminations
        return Episode(
            id=i,
            length=length,
            observations=in_form(self.observation_space, lines["observation"]) if "observation" in lines else None,
            actions=in_form(self.action_space, lines["action"][:-1]) if "action" in lines else None,
            rewards=lines["reward"][1:] if "reward" in lines else None,
            terminations=terminations,
            truncations=truncations,
            infos={"success": lines["success"][1:]} if "success" in lines else {},
            frames=frames,
            text=self._captions.get(name, "") if own is None or own.text is None else own.text,
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

    def _spaces(self) -> tuple[gym.Space | None, gym.Space | None]:
        """Return the spaces of observations and actions; None where there are none."""
        columns = [lines.columns() for lines in self._lines.values()]
        together = {
            "observation": [own["observation"] for own in columns if "observation" in own],
            "action": [own["action"][:-1] for own in columns if "action" in own],
        }
        spaces: dict[str, gym.Space | None] = {}
        for group, parts in together.items():
            kept = recorded(self.metadata.get("vlmrl", {}), f"{group}s")
            if not parts:
                spaces[group] = None
            elif all(in_form(kept, part) is not None for part in parts):
                spaces[group] = kept
            elif group == "action":  # nothing was kept, or somebody has changed the table since
                spaces[group] = _action_space(parts)
            else:
                spaces[group] = gym.spaces.Box(-np.inf, np.inf, parts[0].shape[1:], np.float32)
        return spaces["observation"], spaces["action"]


def _find(folder: Path) -> dict[str, dict[str, Path]]:
    """Return {camera: {episode: clip, or folder of pictures}}; empty where there are none."""
    clips = _clips(folder)
    if clips:
        return {CAMERA: clips}
    below = _ordered(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    cameras = {entry.name: clips for entry in below if (clips := _clips(entry))}
    if cameras:
        return cameras
    pictures = {entry.name: entry for entry in below if _pictures(entry)}
    return {CAMERA: pictures} if pictures else {}


def _clips(folder: Path) -> dict[str, Path]:
    """Return {episode: clip} of one folder.

    Raises:
        UserError: Two clips have the same name but for the ending; one of them would be passed over.
    """
    found: dict[str, Path] = {}
    for path in _ordered(path for path in folder.iterdir() if path.suffix.lower() in video.SUFFIXES):
        if path.stem in found:
            raise UserError(
                f"'{found[path.stem]}' and '{path}' are both the clip {path.stem}: what is before the ending is an "
                "episode's name, and each has one. Rename or remove one of them."
            )
        found[path.stem] = path
    return found


def _pictures(folder: Path) -> list[Path]:
    return _ordered(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _ordered(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: _as_counted(path.name))


def _as_counted(name: str) -> tuple[list[str | int], str]:
    """Return what orders names as people count, `frame_2` before `frame_10`; `a_01` and `a_1` by their letters."""
    parts = re.split(r"(\d+)", name)  # every second one is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


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


def _require_one_of(known: set[str], path: Path, named: Collection[str]) -> None:
    """Refuse a table that names clips and none of those that are there: its names are meant in another way.

    Args:
        known: Names of the clips that are there.
        path: The table, for the message.
        named: Names in the table, in its order; there may be none.

    Raises:
        UserError: None of them is known.
    """
    first = next(iter(named), None)
    if first is not None and known.isdisjoint(named):
        raise unknown(f"episode in '{path}':", first, known)


def _read_captions(path: Path, names: set[str]) -> dict[str, str]:
    """Return {episode: what it shows} of `captions.csv`.

    Args:
        path: The table.
        names: Names of the clips that are there.

    Raises:
        UserError: A column is missing, a clip has no name or is named twice, or none of the clips is there.
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
            given = Path((line["episode"] or "").strip())
            ends = given.name not in names and (given.stem in names or given.suffix.lower() in video.SUFFIXES)
            name = given.stem if ends else given.name
            if not name:
                raise UserError(f"'{path}', line {table.line_num}: episode is empty; it is the name of a clip.")
            if name in found:
                raise UserError(f"'{path}', line {table.line_num}: {name} is there twice; a clip has one caption.")
            if None in line:
                raise UserError(
                    f"'{path}', line {table.line_num}: more values than columns. Put a text with commas between double "
                    "quotes."
                )
            found[name] = (line["text"] or "").strip()
    _require_one_of(names, path, found)
    return found


class _Lines:
    """The lines of one episode, taken in one by one: 8 bytes a number, and no cell's letters are kept.

    Args:
        path: The table, for messages.
        groups: See `_groups`.

    Attributes:
        count: Number of lines, n.
        text: What should be done, as the first line says; None where no column is about it.
    """

    def __init__(self, path: Path, groups: Mapping[str, Mapping[str, int]]):
        self._path, self._groups = path, groups
        self._values: dict[str, array[Any]] = {
            group: array("b" if group in FLAGS else "d") for group in groups if group != "text"
        }
        self._without_action = 0  # the line that has none, as the last one may; 0: there is no such line yet
        self.count = 0
        self.text: str | None = None

    def add(self, cells: Sequence[str], number: int) -> None:
        """Take in line `number` of the table.

        Raises:
            UserError: A cell holds what it should not.
        """
        if self._without_action:
            raise UserError(f"'{self._path}', line {self._without_action}: action is not a number.")
        for group, columns in self._groups.items():
            own = [cells[place] if place < len(cells) else "" for place in columns.values()]
            if group == "text":
                self.text = own[0] if self.text is None else self.text
            elif group in FLAGS:
                self._values[group].append(_flag(self._path, group, number, own[0]))
            else:
                self._values[group].extend(self._numbers(group, own, number))
        self.count += 1

    def columns(self) -> dict[str, np.ndarray]:
        """Return {group: (n,), or (n, k) where its columns are numbered}, float64 or, of flags, bool."""
        found = {}
        for group, values in self._values.items():
            column = np.frombuffer(values, dtype=bool if group in FLAGS else np.float64)
            found[group] = column if list(self._groups[group]) == [group] else column.reshape(self.count, -1)
        return found

    def _numbers(self, group: str, cells: list[str], number: int) -> list[float]:
        if "" in cells and (group == "action" or (group == "reward" and self.count == 0)):
            # What is not read may be left out: the first reward, the last action.
            self._without_action = number if group == "action" else self._without_action
            cells = [cell or "0" for cell in cells]
        try:
            return [float(cell) for cell in cells]
        except ValueError:
            raise UserError(f"'{self._path}', line {number}: {group} is not a number.") from None


def _read_table(path: Path) -> dict[str, _Lines]:
    """Return {episode: its lines} of `steps.csv`, which is read line by line.

    Raises:
        UserError: A column is missing or unknown, or holds what it should not.
    """
    found: dict[str, _Lines] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.reader(file)
        groups = _groups(path, next(table, []))
        episode = groups.pop("episode", {}).get("episode")
        for cells in table:
            if not cells or episode is None:
                continue
            name = cells[episode] if episode < len(cells) else ""
            if not name:
                raise UserError(f"'{path}', line {table.line_num}: episode is empty; it is the name of a clip.")
            if name not in found:
                found[name] = _Lines(path, groups)
            found[name].add(cells, table.line_num)
    if not found:
        raise UserError(f"'{path}' needs a line of names, one of them 'episode', and a line for each frame.")
    return found


def _groups(path: Path, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return {group: {column: its place in a line}}; `action_0`, `action_1`, … are one group, in that order.

    Raises:
        UserError: A column is unknown.
    """
    groups: dict[str, dict[str, int]] = {}
    for name in sorted(names, key=_as_counted):
        group = name.rpartition("_")[0] if name.rpartition("_")[2].isdigit() else name
        if group not in ("episode", "action", "observation", "reward", "text", *FLAGS):
            raise unknown(
                f"column in '{path}':",
                name,
                ["episode", "action", "action_0", "observation_0", "reward", "text", *FLAGS],
            )
        groups.setdefault(group, {})[name] = names.index(name)
    return groups


def _flag(path: Path, group: str, number: int, value: str) -> bool:
    text = value.strip().lower()
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
