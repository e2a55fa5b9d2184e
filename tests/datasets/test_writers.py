"""What all writers promise: an episode is written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import h5py
import numpy as np
import pytest

from tests.datasets.recordings import ACTIONS, OBSERVATIONS, SIDE, episode, pictures, write
from vlmrl.datasets.base import Frames, open_dataset, transitions
from vlmrl.datasets.writers import WRITERS, Recording, Writer
from vlmrl.errors import UserError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def started(kind: str, out: Path) -> Writer:
    writer: Writer = WRITERS.load(kind)(str(out))
    writer.start(Recording(OBSERVATIONS, ACTIONS, fps=10.0, text="be bright"))
    return writer


def interrupted() -> Iterator[np.ndarray]:
    """Yield pictures until Ctrl-C; the encoder of films writes nothing before it has seen some dozens."""
    yield from pictures(1, 0) * 90
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, Any]:
    """Return all files; of HDF5, where space stays free that something was removed from, what is in it."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".hdf5":
            with h5py.File(path) as file:
                file.visit(found.setdefault(path.name, []).append)
                found["rewards"] = [group["rewards"][()].tolist() for group in file.values()]
        elif path.name != "metadata.json":  # has the size of that file
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize("place", range(3))
def test_an_interrupted_episode_leaves_nothing_behind(kind: str, place: int, tmp_path: Path) -> None:
    writer = started(kind, tmp_path / "a" / "mine-v0")
    for i, one in enumerate((episode(0), episode(2, 4), None)):
        if i == place:
            frames = {"front": Frames(100, interrupted)}
            with pytest.raises(KeyboardInterrupt):
                writer.add(episode(1, text="be dark", rewards=np.full(5, 99.0), frames=frames))
        if one is not None:
            writer.add(one)
    writer.finish()
    whole = write(kind, tmp_path / "b" / "mine-v0", [episode(0), episode(2, 4)])
    assert contents(writer.path) == contents(whole)
    assert len(transitions(open_dataset(str(writer.path)))) == 9


LATE = {
    "clips": "vlmrl.datasets.clips_writer._numbers",
    "lerobot": "vlmrl.datasets.lerobot_writer._write_table",
    "minari": "minari.dataset._storages.hdf5_storage.HDF5Storage.update_metadata",
}


@pytest.mark.parametrize("kind", sorted(LATE))
def test_one_that_is_interrupted_among_its_numbers_leaves_nothing_either(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = started(kind, tmp_path / "a" / "mine-v0")
    writer.add(episode(0))
    with monkeypatch.context() as patch:
        original, calls = resolve_name(LATE[kind]), []

        def stops(*arguments: Any, **named: Any) -> Any:
            calls.append(original(*arguments, **named))
            if kind != "clips" or len(calls) == 5:  # a line has two calls
                raise KeyboardInterrupt
            return calls[-1]

        patch.setattr(LATE[kind], stops)
        with pytest.raises(KeyboardInterrupt):
            writer.add(episode(1))
    writer.add(episode(2, 4))
    writer.finish()
    whole = write(kind, tmp_path / "b" / "mine-v0", [episode(0), episode(2, 4)])
    assert contents(writer.path) == contents(whole)


@pytest.mark.parametrize("kind", ["clips", "lerobot"])
def test_pictures_of_odd_size_are_refused_with_what_would_do(kind: str, tmp_path: Path) -> None:
    writer: Writer = WRITERS.load(kind)(str(tmp_path / "mine"))
    with pytest.raises(UserError, match=r"32 x 33.*32 x 34 would do"):
        writer.start(Recording(OBSERVATIONS, ACTIONS, frame_size=(SIDE, SIDE + 1)))
    writer.start(Recording(OBSERVATIONS, ACTIONS))
    odd = [np.zeros((SIDE - 1, SIDE, 3), np.uint8)] * 6
    with pytest.raises(UserError, match=r"31 x 32.*format=minari"):
        writer.add(episode(0, frames={"front": Frames(6, lambda: iter(odd))}))
    assert not list(tmp_path.rglob("*.mp4"))
