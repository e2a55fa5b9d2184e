from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest

from tests.datasets.recordings import ACTIONS, OBSERVATIONS, brightness, episode, pictures, write
from tests.datasets.test_lerobot import shades
from vlmrl.datasets.base import CorruptEpisode, open_dataset
from vlmrl.datasets.clips import ClipFolder, _read_table
from vlmrl.datasets.video import read_video, write_video
from vlmrl.errors import UserError


def test_clips_alone_are_a_dataset(tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / f"take_{number}.mp4", pictures(number, 4), fps=12)
    dataset = open_dataset(str(tmp_path))
    assert (dataset.format, len(dataset), dataset.action_space) == ("clips", 2, None)
    one = dataset.episode(1)
    one.check()
    assert (one.name, one.length, one.fps) == ("take_1", 4, 12.0)
    np.testing.assert_allclose(shades(one.frames["front"]), [brightness(1, t) for t in range(5)], atol=2)
    assert one.truncations.tolist() == [False, False, False, True]


def test_folders_of_pictures_are_a_dataset(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"e{number}").mkdir()
        for t, picture in enumerate(pictures(number, 3)):
            picture[:, :, 0] = 250  # red, so that swapped channels would be seen
            cv2.imwrite(str(tmp_path / f"e{number}" / f"{t:03d}.png"), picture[:, :, ::-1])
    one = open_dataset(str(tmp_path)).episode(1)
    seen = np.asarray(one.frames["front"])
    assert seen[2, 0, 0].tolist() == [250, brightness(1, 2), brightness(1, 2)]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = write(
        "clips", tmp_path / "mine", [episode(0, cameras=("front", "side")), episode(1, 3, cameras=("front", "side"))]
    )
    dataset = open_dataset(str(path))
    assert (dataset.observation_space, dataset.action_space) == (OBSERVATIONS, ACTIONS)
    for one, made in zip(dataset.episodes(), (episode(0), episode(1, 3)), strict=True):
        one.check()
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(made, name))
        assert sorted(one.frames) == ["front", "side"]


def test_a_table_that_was_changed_since_says_itself_what_it_holds(tmp_path: Path) -> None:
    path = write("clips", tmp_path / "mine", [episode(0)], action_space=gym.spaces.Discrete(2), observation_space=None)
    lines = [f"000000,{action}" for action in (0, 1, 2, 0, 1, "")]
    (path / "steps.csv").write_text("\n".join(["episode,action", *lines]))
    assert open_dataset(str(path)).action_space == gym.spaces.Discrete(3)


def test_names_are_ordered_as_people_count(tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"take_{number}").mkdir()
        for t, picture in enumerate(pictures(0, 11)):
            cv2.imwrite(str(tmp_path / f"take_{number}" / f"frame_{t}.png"), picture)
    dataset = open_dataset(str(tmp_path))
    assert [one.name for one in dataset.episodes()] == ["take_2", "take_10"]
    assert shades(dataset.episode(0).frames["front"]) == [brightness(0, t) for t in range(12)]


def test_two_clips_of_one_name_are_one_too_many(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv"):
        write_video(tmp_path / f"000000.{ending}", pictures(0, 2), fps=10)
    with pytest.raises(UserError, match=r"000000\.mkv' and '.*000000\.mp4' are both the clip 000000"):
        open_dataset(str(tmp_path))


def test_a_table_takes_the_memory_of_its_numbers(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pictures(0, 2), fps=10)
    n = 10_000
    with (tmp_path / "steps.csv").open("w") as file:
        file.write("episode,action_0,action_1,reward,text\n")
        file.writelines(f"a,0.125,{t / n},{t},push the drawer until it is shut\n" for t in range(n))
    tracemalloc.start()
    lines = _read_table(tmp_path / "steps.csv")["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns = lines.columns()
    assert (lines.count, lines.text, columns["action"].shape) == (n, "push the drawer until it is shut", (n, 2))
    np.testing.assert_array_equal(columns["reward"], np.arange(n))
    assert peak < 3 * n * 3 * 8  # three columns of float64, and what it takes to let them grow


def table(folder: Path, text: str) -> str:
    write_video(folder / "a.mp4", pictures(0, 2), fps=10)
    (folder / "steps.csv").write_text(text)
    return str(folder)


def test_whole_numbers_in_one_column_are_choices(tmp_path: Path) -> None:
    dataset = open_dataset(table(tmp_path, "episode,action,text\na,0,go\na,2,go\na,,go\n"))
    assert dataset.action_space == gym.spaces.Discrete(3)
    one = dataset.episode(0)
    assert one.actions.tolist() == [0, 2]
    assert one.text == "go"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("episode,acton\na,1\n", "Unknown column"),
        ("episode,action\nb,1\n", "Unknown episode in"),
        ("episode,action\na,left\na,1\na,\n", "line 2: action is not a number"),
        ("episode,action\na,\na,1\na,\n", "line 2: action is not a number"),
        ("episode,action,reward\na,,\na,1,1\na,,1\n", "line 2: action is not a number"),
        ("episode,reward\na,\na,\na,1\n", "line 3: reward is not a number"),
        ("episode,action_0,action_1\na,1,2\na,1\na,,\n", "line 3: action is not a number"),
        ("episode,terminated\na,perhaps\n", "line 2: terminated is 'perhaps'"),
        ("action\n1\n", "one of them 'episode'"),
        ("episode,action\na,1\n,1\n", "line 3: episode is empty"),
    ],
)
def test_a_table_that_cannot_be_read_is_said_so(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(table(tmp_path, text))


def test_a_table_of_another_length_is_named(tmp_path: Path) -> None:
    dataset = open_dataset(table(tmp_path, "episode,action\na,1\na,0\n"))
    with pytest.raises(CorruptEpisode, match=r"has 3 frames and 2 lines in steps.csv"):
        dataset.episode(0)


def test_a_broken_clip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(CorruptEpisode) as said:
        open_dataset(str(tmp_path)).episode(0)
    path = tmp_path / "a.mp4"
    assert str(said.value) == f"has a film that cannot be read ('{path}': Invalid data found when processing input)"
    with pytest.raises(CorruptEpisode, match=r"cannot be read \('[^']*b.mp4': No such file or directory\)$"):
        next(read_video(tmp_path / "b.mp4"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps.csv", "episode,action\n" + "b,1\n" * 3 + "a,0\n" * 3),
        ("captions.csv", "episode,text\nb,up\na,down\n"),
        ("captions.csv", "episode,text\na.mp4,up\nb.mp4,down\n"),
    ],
)
def test_a_clip_that_is_in_a_table_alone_is_an_episode_that_cannot_be_read(
    tmp_path: Path, name: str, text: str
) -> None:
    for clip in ("a", "c"):
        write_video(tmp_path / f"{clip}.mp4", pictures(0, 2), fps=10)
    (tmp_path / name).write_text(text)
    dataset = open_dataset(str(tmp_path))
    assert isinstance(dataset, ClipFolder) and dataset.names == ["a", "b", "c"]
    dataset.episode(0).check()
    with pytest.raises(
        CorruptEpisode, match=f"^has no film: it is in {name}, and there is no such clip in the folder$"
    ):
        dataset.episode(1)


def test_pictures_that_are_in_a_table_alone_are_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for t, picture in enumerate(pictures(0, 2)):
        cv2.imwrite(str(tmp_path / "a" / f"{t}.png"), picture)
    (tmp_path / "captions.csv").write_text("episode,text\na,up\nb,down\n")
    with pytest.raises(CorruptEpisode, match=r"has no pictures: it is in captions.csv, and there is no such folder of"):
        open_dataset(str(tmp_path)).episode(1)


def captioned(folder: Path, text: str) -> str:
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", pictures(0, 2), fps=10)
    (folder / "captions.csv").write_text(text)
    return str(folder)


def test_captions_say_what_clips_show_a_line_a_clip(tmp_path: Path) -> None:
    dataset = open_dataset(captioned(tmp_path, 'episode,text\nb.mp4,"up, and away"\na, down \n'))
    assert [dataset.episode(i).text for i in range(2)] == ["down", "up, and away"]
    assert open_dataset(captioned(tmp_path, "episode,text\na,down\n")).episode(1).text == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clip,caption\na,x\n", "has the columns clip, caption; it needs episode"),
        ("episode,text\nc,x\n", "Unknown episode in .* 'c'"),
        ("episode,text\na,x\na.mp4,y\n", "line 3: a is there twice"),
        ("episode,text\na,x\n,y\n", "line 3: episode is empty"),
        ("episode,text\na,up, and away\n", "line 2: more values than columns"),
    ],
)
def test_captions_that_cannot_be_read_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_dataset(captioned(tmp_path, text))


def test_two_tables_of_texts_are_one_too_many(tmp_path: Path) -> None:
    captioned(tmp_path, "episode,text\na,x\n")
    (tmp_path / "steps.csv").write_text("episode,text\n" + "a,x\n" * 3)
    with pytest.raises(UserError, match="steps.csv and captions.csv both have texts"):
        open_dataset(str(tmp_path))


def test_the_colours_of_a_film_are_red_green_and_blue(tmp_path: Path) -> None:
    red = np.zeros((4, 32, 32, 3), np.uint8)
    red[..., 0] = 220
    write_video(tmp_path / "a.mp4", red, fps=10)
    seen = np.asarray(open_dataset(str(tmp_path)).episode(0).frames["front"])
    assert (seen[..., 0] > 200).all() and (seen[..., 1:] < 40).all()
