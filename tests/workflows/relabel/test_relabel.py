from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.datasets.recordings import brightness, episode, pictures, shared_film, write
from tests.patience import PATIENCE
from tests.workflows.relabel.toys import Counting, bright, killed_at, settings, with_still_pictures
from vlmrl.datasets.base import Frames, open_dataset, transitions
from vlmrl.errors import UserError
from vlmrl.reward_models import REWARDS
from vlmrl.workflows.relabel.run import relabel


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


@pytest.mark.parametrize("baseline", ["", "a dark room"])
def test_a_baseline_is_printed_where_there_is_one(baseline: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("minari", "a-v0", [episode(0)])
    relabel(settings("dataset=a-v0", "out=b-v0", *([f"baseline={baseline}"] if baseline else [])))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("goal: ")]
    assert line == "goal: 'be bright'" + (f"  baseline: '{baseline}'" if baseline else "")


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


def test_a_table_beside_recordings_changes_nothing_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shared_film(tmp_path / "robot")
    relabel(settings(f"dataset={root}", f"out={root}/sarm_progress.parquet"))
    monkeypatch.setattr(Frames, "__iter__", lambda self: pytest.fail("a picture was decoded"))
    relabel(settings(f"dataset={root}", "out=again.parquet", "goal=be very bright"))


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
from tests.workflows.relabel import toys
from vlmrl.encoders import ENCODERS
from vlmrl.reward_models import REWARDS
from vlmrl.workflows.relabel.run import relabel
ENCODERS._entries["mini"] = "tests.workflows.relabel.toys:CountingConfig"
REWARDS._entries["clip"] = "tests.workflows.relabel.toys:PixelConfig"
relabel(toys.settings("dataset=a-v0", f"out={sys.argv[1]}", f"scorer.store={sys.argv[2]}", "scorer.batch_size=2"))
"""


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
