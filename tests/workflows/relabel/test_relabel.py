from __future__ import annotations

import csv
import hashlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import minari
import numpy as np
import pyarrow.parquet as pq
import pytest

import vlmrl
from tests.datasets.recordings import brightness, episode, pictures, shared_film, write
from tests.patience import PATIENCE
from tests.toys import BrightnessEncoder, PixelReward
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.datasets.base import CorruptEpisode, Frames, open_dataset, transitions
from vlmrl.encoders import ENCODERS
from vlmrl.errors import UserError
from vlmrl.reward_models import REWARDS
from vlmrl.workflows.config.relabel import RelabelConfig, relabel_settings
from vlmrl.workflows.relabel.run import relabel


class Counting(BrightnessEncoder):
    """Says how many pictures it has looked at, all of them together.

    As with real ones, last digits depend on how many it is given at once.
    """

    seen: ClassVar[int] = 0

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        Counting.seen += len(frames)
        time.sleep(float(os.environ.get("TEST_SECONDS_A_BATCH", "0")))
        x, y = super().encode_images(frames).astype(np.float64).T
        angle = np.arctan2(y, x) + 5e-7 * len(frames)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class CountingConfig:
    """Settings of `Counting`."""

    path: str = ""
    any_env: bool = False
    precision: str = "fp32"
    batch_size: int = 64

    def build(self, device: str) -> Counting:
        return Counting()


@dataclass(frozen=True)
class PixelConfig:
    """Settings of a `PixelReward`, with the keys of reward=clip."""

    alpha: float = 0.0
    views: str = "mean"
    weights: str = ""

    uses_encoder: ClassVar[bool] = True

    def build(self, words: Any, encoder: Any) -> PixelReward:
        model = PixelReward(context=int("change" in words.goal[0]))
        model.words = words  # type: ignore[attr-defined]
        return model


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reward of a picture is the value of its pixels."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENCODERS._entries, "mini", f"{__name__}:CountingConfig")
    monkeypatch.setitem(REWARDS._entries, "clip", f"{__name__}:PixelConfig")
    Counting.seen = 0
    yield


def settings(*overrides: str, **changes: Any) -> RelabelConfig:
    arguments = for_hydra(["progress_bar=false", "goal=be bright", *overrides])
    values = plain(compose("relabel", arguments))
    number = len(list(Path("runs").glob("*"))) if Path("runs").is_dir() else 0
    given = [override.partition("=")[0] for override in arguments]
    return replace(relabel_settings({**values, "run_dir": f"runs/{number}"}, given), **changes)


def bright(number: int, length: int = 5) -> list[int]:
    return [brightness(number, t) for t in range(1, length + 1)]


def test_a_reward_is_that_of_the_row_that_a_step_leads_to() -> None:
    write("minari", "a-v0", [episode(0), episode(1, 3)])
    relabel(settings("dataset=a-v0", "out=b-v0"))
    new = minari.load_dataset("b-v0")
    np.testing.assert_allclose(new[0].rewards, bright(0), atol=0.01)
    np.testing.assert_allclose(new[1].rewards, bright(1, 3), atol=0.01)  # not the first picture, and the last one too
    np.testing.assert_array_equal(new[0].infos["original_reward"], episode(0).rewards)
    assert Counting.seen == 8  # the first picture of an episode is not looked at


@pytest.mark.parametrize(("env", "said"), [("none", "pictures from elsewhere"), ("humanoid", "humanoid")])
def test_an_encoder_is_told_what_the_pictures_show(env: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Counting, place: str) -> None:
        raise UserError(f"This is '{place}'.")

    monkeypatch.setattr(Counting, "check_env", refuse)
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match=f"This is '{said}'"):
        relabel(settings("dataset=a-v0", "out=b-v0", f"env={env}", "reward=clip"))


def test_where_rewards_come_from_is_written_down() -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0"))
    said = open_dataset("b-v0").metadata["vlmrl"]["relabel"]
    assert (said["source"], said["goal"], said["cameras"]) == ("a-v0", ["be bright"], ["front"])
    assert said["encoder"] == {"name": "brightness", "fingerprint": "0"}
    assert said["reward"] == {"name": "clip", "alpha": 0.0, "views": "mean", "weights": ""} and said["files"] == {}
    assert said["skipped"] == []


def test_a_second_prompt_costs_no_image_pass() -> None:
    write("minari", "a-v0", [episode(0), episode(1)])
    relabel(settings("dataset=a-v0", "out=b-v0"))
    before = Counting.seen
    relabel(settings("dataset=a-v0", "out=c-v0", "goal=be very bright"))
    assert (before, Counting.seen) == (10, 10)
    assert list(minari.list_local_datasets()) == ["a-v0", "b-v0", "c-v0"]  # the store is no dataset


@pytest.mark.parametrize("how", [["score_every=1"], ["score_every=2", "between=interpolate"], ["goal=change"]])
def test_a_second_prompt_decodes_no_picture(how: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write("minari", "a-v0", [episode(0), episode(1, 3)])
    relabel(settings("dataset=a-v0", "out=b-v0", *how))
    decoded: list[int] = []
    plainly = Frames.__iter__
    monkeypatch.setattr(Frames, "__iter__", lambda self: (decoded.append(1), plainly(self))[1])
    relabel(settings("dataset=a-v0", "out=c-v0", *how))
    assert not decoded
    for one, other in zip(minari.load_dataset("b-v0"), minari.load_dataset("c-v0"), strict=True):
        np.testing.assert_array_equal(one.rewards, other.rewards)
    next(Path("minari/a-v0/data").glob("*.hdf5")).touch()  # these may be other pictures
    relabel(settings("dataset=a-v0", "out=d-v0", *how))
    assert len(decoded) == 2  # one an episode


def test_pictures_that_were_left_out_are_looked_at_when_they_are_wanted() -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0", "score_every=2"))
    relabel(settings("dataset=a-v0", "out=c-v0"))
    np.testing.assert_allclose(minari.load_dataset("c-v0")[0].rewards, bright(0), atol=0.01)
    assert Counting.seen == 5


def test_a_model_that_compares_steps_sees_the_first_picture() -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0", "goal=change"))
    np.testing.assert_allclose(minari.load_dataset("b-v0")[0].rewards, [4.0] * 5, atol=0.01)


@pytest.mark.parametrize(
    ("between", "expected"), [("hold", [24, 24, 32, 32, 40]), ("interpolate", [24, 28, 32, 36, 40])]
)
def test_every_kth_picture_will_do(between: str, expected: list[int]) -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0", "score_every=2", f"between={between}"))
    np.testing.assert_allclose(minari.load_dataset("b-v0")[0].rewards, expected, atol=0.01)
    assert Counting.seen == 3


def test_as_a_potential_it_shapes_what_was_recorded() -> None:
    write("minari", "a-v0", [episode(1)])
    relabel(settings("dataset=a-v0", "out=b-v0", "use_as=potential", "gamma=0.5"))
    phi = np.array([brightness(0, t) for t in range(6)])
    expected = episode(1).rewards + 0.5 * (30 + phi[1:]) - (30 + phi[:-1])
    made = minari.load_dataset("b-v0")[0].rewards
    np.testing.assert_allclose(made - made[0], expected - expected[0], atol=0.05)


@pytest.mark.parametrize("scorer", ["thread", "process"])
def test_it_does_not_matter_where_the_encoder_runs(scorer: str) -> None:
    write("minari", "a-v0", [episode(0), episode(1)])
    relabel(settings("dataset=a-v0", "out=b-v0", "scorer.batch_size=2"))
    relabel(settings("dataset=a-v0", "out=c-v0", f"scorer={scorer}", "scorer.batch_size=2", "scorer.store=elsewhere"))
    for one, other in zip(minari.load_dataset("b-v0"), minari.load_dataset("c-v0"), strict=True):
        np.testing.assert_array_equal(one.rewards, other.rewards)


@pytest.mark.parametrize("module", ["ray", "pandas"])
def test_without_ray_data_it_says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("minari", "a-v0", [episode(0)])
    monkeypatch.setitem(sys.modules, "ray", object())
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(UserError, match=rf"package '{module}'.*pip install 'vlmrl\[ray\]'"):
        relabel(settings("dataset=a-v0", "out=b-v0", "scorer=ray"))
    assert Counting.seen == 0


def darker(one: Any, camera: str, by: int) -> Any:
    dark = [picture - by for picture in pictures(one.id, one.length)]
    return replace(one, frames={**one.frames, camera: Frames(len(dark), lambda: iter(dark))})


def test_one_camera_of_several_can_be_chosen() -> None:
    write("minari", "a-v0", [darker(episode(0), "side", 10)])
    relabel(settings("dataset=a-v0", "out=b-v0", "cameras=side"))
    np.testing.assert_allclose(minari.load_dataset("b-v0")[0].rewards, np.array(bright(0)) - 10, atol=0.01)
    with pytest.raises(UserError, match=r"has no top. It has front, side"):
        relabel(settings("dataset=a-v0", "out=c-v0", "cameras=top"))


def test_several_cameras_are_fused_as_the_reward_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS._entries, "clip", "vlmrl.reward_models.clip:ClipConfig")
    write("minari", "a-v0", [darker(episode(0), "side", 15)])
    made = {}
    for name, overrides in {
        "front": ["cameras=front"],
        "side": ["cameras=side"],
        "mean": ["reward.views=mean"],
        "min": ["reward.views=min"],
    }.items():
        relabel(settings("dataset=a-v0", f"out={name}-v0", *overrides))
        made[name] = minari.load_dataset(f"{name}-v0")[0].rewards
    np.testing.assert_allclose(made["mean"], (made["front"] + made["side"]) / 2, atol=1e-6)
    np.testing.assert_array_equal(made["min"], np.minimum(made["front"], made["side"]))
    assert not np.allclose(made["front"], made["side"])


def test_ground_truth_is_read_from_state() -> None:
    state = {
        "x": np.zeros(4, np.float32),
        "angle": np.array([0, 0, 0.1, np.pi], np.float32),
        "speed": np.zeros(4, np.float32),
        "angular_speed": np.zeros(4, np.float32),
    }
    write("minari", "a-v0", [episode(0, 3, infos={"state": state})])
    relabel(settings("dataset=a-v0", "out=b-v0", "env=cartpole", "task=balance", "goal=null", "reward=ground_truth"))
    from vlmrl.envs.cartpole_tasks import balance
    from vlmrl.envs.tasks import dense_reward

    expected = [dense_reward(balance({name: values[t] for name, values in state.items()})) for t in (1, 2, 3)]
    assert expected[0] == 1 and expected[2] < 0.5
    np.testing.assert_allclose(minari.load_dataset("b-v0")[0].rewards, expected, rtol=1e-6)
    assert Counting.seen == 0


def test_without_a_task_ground_truth_is_what_was_recorded() -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0"))
    relabel(settings("dataset=b-v0", "out=c-v0", "reward=ground_truth", "goal=null"))  # the truth, not the model's
    np.testing.assert_array_equal(minari.load_dataset("c-v0")[0].rewards, episode(0).rewards)


def test_a_sentence_that_no_reward_reads_is_refused() -> None:
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match=r"reward=ground_truth reads none.*reward=clip"):
        settings("dataset=a-v0", "out=b-v0", "reward=ground_truth", "goal=be bright")


def test_episodes_with_sentences_of_their_own_need_no_goal(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "robot", (4, 3), text="the change of brightness")
    relabel(settings("goal=null", f"dataset={root}", "out=b-v0"))
    np.testing.assert_allclose(minari.load_dataset("b-v0")[0].rewards, [4.0] * 4, atol=3)  # H.264's loss


def test_lerobot_gets_the_table_that_its_loader_reads(tmp_path: Path) -> None:
    root = shared_film(tmp_path / "robot", (4, 6, 3))
    for name in ("a", "b"):
        relabel(settings(f"dataset={root}", f"out={root}/{name}_progress.parquet"))
    table = pq.read_table(root / "a_progress.parquet")
    assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "int64", "float"]
    assert table["index"].to_pylist() == list(range(16))
    assert table["episode_index"].to_pylist() == [0] * 5 + [1] * 7 + [2] * 4
    assert table["frame_index"].to_pylist() == [*range(5), *range(7), *range(4)]
    expected = [brightness(number, t) for number, length in enumerate((4, 6, 3)) for t in range(length + 1)]
    np.testing.assert_allclose(table["progress_sparse"].to_numpy(), expected, atol=2)  # every picture, the first too
    assert table.schema.metadata[b"reward_model_path"] == b"vlmrl:clip"
    assert (root / "a_progress.parquet").read_bytes() == (root / "b_progress.parquet").read_bytes()


def test_clips_without_actions_get_a_table(tmp_path: Path) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0), episode(1, 3)], action_space=None)
    (folder / "steps.csv").unlink()
    relabel(settings(f"dataset={folder}", "out=rewards.csv"))
    with Path("rewards.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["episode"], line["frame"]) for line in lines][5:8] == [
        ("000000", "5"),
        ("000001", "0"),
        ("000001", "1"),
    ]
    np.testing.assert_allclose(
        [float(line["reward"]) for line in lines[:6]], [brightness(0, t) for t in range(6)], atol=2
    )
    assert json.loads(Path("rewards.csv.json").read_text())["relabel"]["goal"] == ["be bright"]
    with pytest.raises(UserError, match="has no actions"):
        relabel(settings(f"dataset={folder}", "out=b-v0"))


def test_policies_can_see_embeddings(tmp_path: Path) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0)], observation_space=None)
    for name in ("b-v0", "c-v0"):
        relabel(settings(f"dataset={folder}", f"out={name}", "observe=embeddings"))
    steps = transitions(open_dataset("b-v0"))
    assert steps.observations.shape == (5, 2)
    seen = np.arctan2(steps.next_observations[:, 1], steps.next_observations[:, 0]) * 2 / np.pi * 255
    np.testing.assert_allclose(seen, bright(0), atol=2)
    np.testing.assert_allclose(seen, steps.rewards, atol=0.01)


def test_embeddings_that_policies_see_are_not_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("clips", tmp_path / "clips", [episode(0), episode(1)], observation_space=None)
    asked = [f"dataset={folder}", "observe=embeddings", "keep_frames=false"]
    relabel(
        settings(*asked, "out=b-v0", "score_every=2")
    )  # the reward looks at every second picture, the policy at all

    decoded: list[int] = []
    plainly = Frames.__iter__
    monkeypatch.setattr(Frames, "__iter__", lambda self: (decoded.append(1), plainly(self))[1])
    relabel(settings(*asked, "out=c-v0", "goal=be very bright"))
    assert not decoded
    np.testing.assert_array_equal(
        transitions(open_dataset("b-v0")).observations, transitions(open_dataset("c-v0")).observations
    )


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


@pytest.mark.parametrize("baseline", ["", "a dark room"])
def test_a_baseline_is_printed_where_there_is_one(baseline: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0", *([f"baseline={baseline}"] if baseline else [])))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("goal: ")]
    assert line == "goal: 'be bright'" + (f"  baseline: '{baseline}'" if baseline else "")


def test_help_names_the_same_algorithms_wherever_policies_come_from_outside() -> None:
    configs = Path(vlmrl.__file__).parent / "configs"
    lines = [
        next(line for line in (configs / name).read_text().splitlines() if line.startswith("algorithm: "))
        for name in ("collect.yaml", "evaluate.yaml")
    ]
    assert lines[0] == lines[1]


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


def killed_at(monkeypatch: pytest.MonkeyPatch, where: str, count: int) -> None:
    """Let the next run end at the call of this number of a function, as if it had been killed."""
    module, _, name = where.rpartition(".")
    owner = pkgutil.resolve_name(module)
    plainly, calls = getattr(owner, name), []

    def kill(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            monkeypatch.setattr(owner, name, plainly)
            raise SystemExit("killed")
        return plainly(*arguments, **named)

    monkeypatch.setattr(owner, name, kill)


def test_other_weights_under_the_same_path_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("minari", "a-v0", [episode(0), episode(1), episode(2)])
    learned = tmp_path / "learned.safetensors"
    learned.write_bytes(b"one")
    asked = ("dataset=a-v0", "out=b-v0", "+reward.weights=learned.safetensors")
    for _ in range(2):
        killed_at(monkeypatch, "vlmrl.workflows.relabel.ledger:Ledger.put", 2)
        with pytest.raises(SystemExit, match="killed"):
            relabel(settings(*asked))
    assert "going on: 1 episode done" in capsys.readouterr().out
    learned.write_bytes(b"two")
    relabel(settings(*asked))
    assert "going on" not in capsys.readouterr().out
    said = open_dataset("b-v0").metadata["vlmrl"]["relabel"]
    assert said["files"] == {"weights": hashlib.sha256(b"two").hexdigest()}


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


def test_a_table_beside_recordings_changes_nothing_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shared_film(tmp_path / "robot")
    relabel(settings(f"dataset={root}", f"out={root}/sarm_progress.parquet"))
    monkeypatch.setattr(Frames, "__iter__", lambda self: pytest.fail("a picture was decoded"))
    relabel(settings(f"dataset={root}", "out=again.parquet", "goal=be very bright"))


def test_a_dataset_of_which_nothing_is_left_is_refused() -> None:
    bad = episode(0)
    bad.observations[0] = np.nan
    write("minari", "a-v0", [bad])
    with pytest.raises(UserError, match=r"No episode of 'a-v0' can have rewards: episode 0 observations"):
        relabel(settings("dataset=a-v0", "out=b-v0", "on_error=skip"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["out=b-v0"], "dataset is empty"),
        (["dataset=a-v0"], "out is empty"),
        (["dataset=a-v0", "out=b-v0", "agent=ppo"], "nothing is trained here"),
        (["dataset=a-v0", "out=x.csv", "observe=embeddings"], "leave it out"),
        (["dataset=a-v0", "out=x.csv", "use_as=potential"], "leave it out"),
        (["dataset=none-v0", "out=b-v0"], "is no dataset"),
    ],
)
def test_mistakes_are_said_at_start(overrides: list[str], text: str) -> None:
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match=text):
        settings(*overrides)


@pytest.mark.parametrize(
    ("out", "text"), [("a-v0", "never written over"), ("b", "ends with its version"), ("b.parquet", "is none")]
)
def test_a_bad_name_is_said_before_anything_is_scored(out: str, text: str) -> None:
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match=text):
        relabel(settings("dataset=a-v0", f"out={out}"))
    assert Counting.seen == 0


KILLED = """
import sys
from tests.workflows.relabel import test_relabel as toys
toys.ENCODERS._entries["mini"] = "tests.workflows.relabel.test_relabel:CountingConfig"
toys.REWARDS._entries["clip"] = "tests.workflows.relabel.test_relabel:PixelConfig"
toys.relabel(toys.settings("dataset=a-v0", f"out={sys.argv[1]}", f"scorer.store={sys.argv[2]}", "scorer.batch_size=2"))
"""


def with_still_pictures(number: int) -> Any:
    """An episode some of whose pictures come again, at once or later, in it and in others."""
    images = [np.full((32, 32, 3), 20 + 5 * number + (t // 2) % 7, dtype=np.uint8) for t in range(21)]
    return episode(number, 20, frames={"front": Frames(21, lambda: iter(images))})


def test_killed_and_started_again_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    write("minari", "a-v0", [with_still_pictures(number) for number in range(6)])
    command = [sys.executable, "-c", KILLED, "b-v0", "store"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TEST_SECONDS_A_BATCH": "0.1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    ledger = tmp_path / "minari" / ".b-v0.rewards"
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline and done(ledger) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = done(ledger)
    assert 2 <= before < 6
    assert not (tmp_path / "minari" / "b-v0").exists()
    relabel(settings("dataset=a-v0", "out=b-v0", "scorer.store=store", "scorer.batch_size=2"))
    assert Counting.seen <= (6 - before) * 20  # what was done is not done again
    relabel(settings("dataset=a-v0", "out=c-v0", "scorer.store=fresh", "scorer.batch_size=2"))
    digests = [
        hashlib.sha256((tmp_path / "minari" / name / "data" / "main_data.hdf5").read_bytes()).hexdigest()
        for name in ("b-v0", "c-v0")
    ]
    assert digests[0] == digests[1]
    assert not ledger.exists()


def done(ledger: Path) -> int:
    import sqlite3

    if not ledger.exists():
        return 0
    with sqlite3.connect(ledger) as database:
        try:
            return int(database.execute("SELECT COUNT(*) FROM episodes").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
