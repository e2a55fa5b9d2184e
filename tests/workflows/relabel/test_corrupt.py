"""Corrupt episodes are named, and refused or skipped as the user says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

from tests.datasets.recordings import episode, pictures, write
from tests.workflows.relabel.toys import Counting, bright, killed_at, settings
from vlmrl.datasets.base import CorruptEpisode, Frames, open_dataset
from vlmrl.errors import UserError
from vlmrl.workflows.relabel.run import relabel


def broken() -> list[Any]:
    nan = episode(2)
    nan.actions[1] = np.nan
    return [episode(0), nan, episode(3), episode(4)]


def test_a_corrupt_episode_is_refused_before_anything_is_scored() -> None:
    write("minari", "a-v0", broken())
    with pytest.raises(UserError, match=r"episode 1 actions at step 1 are not finite.*on_error=skip"):
        relabel(settings("dataset=a-v0", "out=b-v0"))
    assert Counting.seen == 0


def clips_of_which_two_are_missing(folder: Path) -> Path:
    made = write("clips", folder, [episode(number) for number in range(4)])
    for number in (1, 3):
        (made / "front" / f"00000{number}.mp4").unlink()
    return made


def test_corrupt_episodes_are_refused_together_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = clips_of_which_two_are_missing(tmp_path / "clips")
    with pytest.raises(UserError) as refusal:
        relabel(settings(f"dataset={folder}", "out=./data/b-v0"))
    why = "has no film: it is in steps.csv, and there is no such clip in the folder"
    assert str(refusal.value) == (
        f"dataset={folder}: 2 of 4 episodes are corrupt: episode 1 (000001) {why}; episode 3 (000003) {why}. "
        "on_error=skip leaves such episodes out, each named."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]


def test_of_many_corrupt_episodes_the_first_are_named_and_the_others_counted() -> None:
    nan = [episode(number) for number in range(5)]
    for one in nan[1:]:
        one.actions[1] = np.nan
    write("minari", "a-v0", nan)
    with pytest.raises(
        UserError, match=r": 4 of 5 episodes are corrupt: episode 1 .*; episode 3 .*; and 1 more\. on_err"
    ):
        relabel(settings("dataset=a-v0", "out=b-v0"))


def test_clips_without_a_film_are_skipped_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clips_of_which_two_are_missing(tmp_path / "clips")
    asked = settings(f"dataset={folder}", "out=b-v0", "on_error=skip")
    killed_at(monkeypatch, "vlmrl.workflows.relabel.write:NewDataset.write", 1)
    for kill in (True, False):  # what an earlier run has skipped is named again
        if kill:
            with pytest.raises(SystemExit, match="killed"):
                relabel(asked)
        else:
            relabel(replace(asked, run_dir="runs/again"))
        printed = capsys.readouterr().out.splitlines()
        sentences = [line for line in printed if "has no film" in line]
        assert [line.split(" has ")[0] for line in sentences] == [
            "skipped: episode 1 (000001)",
            "skipped: episode 3 (000003)",
        ]
    assert "skipped 2 episodes: 000001, 000003" in printed
    assert len(open_dataset("b-v0")) == 2


def test_many_skipped_episodes_are_named_in_short_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    nan = [replace(episode(0), id=number, actions=episode(0).actions.copy()) for number in range(13)]
    for one in nan[1:]:
        one.actions[1] = np.nan
    write("minari", "a-v0", nan)
    relabel(settings("dataset=a-v0", "out=b-v0", "on_error=skip"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "skipped 12 episodes: episode 1, episode 2, " in printed and "episode 10 and 2 more" in printed


def test_where_no_episode_can_be_read_nobody_says_that_there_are_no_pictures(tmp_path: Path) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0)])
    (folder / "front" / "000000.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"No episode of .* can be read: episode 0 has a film that cannot be read"):
        relabel(settings(f"dataset={folder}", "out=b-v0", "on_error=skip"))


def test_a_refusal_in_the_middle_says_where_what_is_done_is_kept(tmp_path: Path) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0), episode(1), episode(2)])
    asked = settings(f"dataset={folder}", "out=./data/b-v0")
    films = [folder / "front" / f"00000{number}.mp4" for number in range(3)]
    ledger = Path("data/.b-v0.rewards")
    for film, places in ((films[1], f"{ledger} and .clips.embeddings"), (films[0], ".clips.embeddings")):
        film.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])
        with pytest.raises(UserError, match=f"each named. What is done is kept in {places}, and the same command goes"):
            relabel(replace(asked, run_dir=f"runs/{film.stem}"))
        assert ledger.exists() == (film == films[1])


def test_corrupt_episodes_are_skipped_named_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("minari", "a-v0", broken())
    source = type(open_dataset("a-v0"))
    whole = source.episode

    def episode_with_bad_pictures(self: Any, i: int) -> Any:
        one = whole(self, i)
        if i != 2:
            return one

        def pictures_that_stop() -> Iterator[np.ndarray]:
            yield from pictures(3, 1)
            raise CorruptEpisode("has a film that cannot be read")

        return replace(one, frames={"front": Frames(6, pictures_that_stop)})

    monkeypatch.setattr(source, "episode", episode_with_bad_pictures)
    relabel(settings("dataset=a-v0", "out=b-v0", "on_error=skip"))
    new = minari.load_dataset("b-v0")
    assert new.total_episodes == 2
    np.testing.assert_allclose(new[1].rewards, bright(4), atol=0.01)
    assert [entry["episode"] for entry in open_dataset("b-v0").metadata["vlmrl"]["relabel"]["skipped"]] == [
        "episode 1",
        "episode 2",
    ]
    printed = capsys.readouterr().out
    assert "skipped 2 episodes" in printed
    assert "episode 1 actions at step 1 are not finite ([nan])" in printed
    assert printed.count("episode 2 has a film that cannot be read") == 1


def test_what_an_earlier_run_was_to_skip_is_refused_if_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    write("minari", "a-v0", broken())
    killed_at(monkeypatch, "vlmrl.workflows.relabel.write:NewDataset.write", 1)
    with pytest.raises(SystemExit, match="killed"):
        relabel(settings("dataset=a-v0", "out=b-v0", "on_error=skip"))
    with pytest.raises(UserError, match=r"episode 1 .*not finite.*on_error=skip leaves"):
        relabel(settings("dataset=a-v0", "out=b-v0"))


@pytest.mark.parametrize("how", ["keep_frames=true", "observe=embeddings"])
def test_pictures_that_only_the_new_dataset_needs_are_looked_at_in_time(tmp_path: Path, how: str) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0), episode(1), episode(2)])
    film = folder / "front" / "000001.mp4"
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])
    asked = (f"dataset={folder}", "reward=ground_truth", "goal=null", how)
    with pytest.raises(UserError, match="episode 1 .*on_error=skip leaves"):
        relabel(settings(*asked, "out=b-v0"))
    relabel(settings(*asked, "out=c-v0", "on_error=skip"))
    new = open_dataset("c-v0")
    assert len(new) == 2 and len(new.metadata["vlmrl"]["relabel"]["skipped"]) == 1


def test_a_dataset_of_which_nothing_is_left_is_refused() -> None:
    bad = episode(0)
    bad.observations[0] = np.nan
    write("minari", "a-v0", [bad])
    with pytest.raises(UserError, match=r"No episode of 'a-v0' can have rewards: episode 0 observations"):
        relabel(settings("dataset=a-v0", "out=b-v0", "on_error=skip"))
