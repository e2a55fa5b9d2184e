"""States: drawn by kind and source, labelled by the predicate, the same for the same seed; and a person's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.toys import BrightnessEncoder
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.tasks import PREDICATES, Condition, Task, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.workflows.audit import sources as audit_sources
from vlmrl.workflows.audit.folder import read_frames
from vlmrl.workflows.audit.sources import PUT_UP
from vlmrl.workflows.audit.states import LabelledStates, counts, draw_states

IDS = {
    "humanoid": "Humanoid",
    "cartpole": "CartPole",
    "mountaincar": "MountainCar",
    "ant": "Ant",
    "hopper": "Hopper",
    "walker2d": "Walker2d",
    "halfcheetah": "HalfCheetah",
}


def settings(entry: str) -> EnvSettings:
    env, task = entry.split("/")
    camera = "front" if env in ("humanoid", "cartpole", "mountaincar") else "side"
    predicate = PREDICATES.load(entry)
    return EnvSettings(
        f"vlmrl/{IDS[env]}-v0", Task(task, "x", "y", cameras=(camera,), predicate=predicate), height=32, width=32
    )


QUICK = ("cartpole/balance", "hopper/flip", "humanoid/kneeling", "mountaincar/climb")


@pytest.mark.parametrize(
    "entry", [pytest.param(entry, marks=[] if entry in QUICK else pytest.mark.slow) for entry in PREDICATES]
)
def test_every_task_of_the_suite_has_states_of_every_kind(entry: str) -> None:
    if entry.split("/")[0] not in IDS:
        pytest.skip("registered by another test")
    states = draw_states(settings(entry), 50, 0, pictures=False)
    kinds = dict(zip(*np.unique(states.kind, return_counts=True), strict=True))
    assert kinds == {"done": 20, "nearly": 15, "not done": 15}
    assert "random policy" in states.source and len(set(states.source)) >= 2
    predicate = PREDICATES.load(entry)
    for i in range(0, 50, 7):
        conditions = predicate({name: values[i] for name, values in states.state.items()})
        assert holds(conditions) == states.done[i]
        assert dense_reward(conditions) == pytest.approx(states.truth[i], abs=1e-5)


def test_the_same_seed_gives_the_same_states_and_nothing_else_is_drawn_from() -> None:
    before = np.random.get_state()[1].copy()
    first, again, other = (draw_states(settings("cartpole/balance"), 60, seed, True) for seed in (3, 3, 4))
    assert (np.random.get_state()[1] == before).all()
    assert (first.frames["front"] == again.frames["front"]).all() and (first.group == again.group).all()
    assert not np.array_equal(first.state["angle"], other.state["angle"])


def test_pictures_show_the_states_that_are_labelled() -> None:
    states = draw_states(settings("humanoid/kneeling"), 40, 0, pictures=True)
    assert states.frames["front"].shape == (40, 32, 32, 3)
    # The robot is brighter than the sky behind it: where its head is high, the upper half is brighter.
    upper = states.frames["front"][:, 8:14, 12:20].astype(float).max(axis=(1, 2, 3))
    head = states.state["head"][:, 2]
    assert upper[head > 1.2].mean() > upper[head < 0.6].mean() + 10


def test_a_camera_that_the_environment_has_not_is_said() -> None:
    one = settings("cartpole/balance")
    with pytest.raises(UserError, match="Unknown camera 'side'"):
        draw_states(replace(one, task=replace(one.task, cameras=("front", "side"))), 40, 0, pictures=True)


def test_counts_add_up() -> None:
    states = draw_states(settings("cartpole/balance"), 60, 0, pictures=False)
    assert sum(sum(kinds.values()) for kinds in counts(states).values()) == len(states)


def test_states_that_are_never_done_are_refused() -> None:
    task = Task("never", "x", "y", predicate=lambda state: {"no": Condition(-1.0, 2.0)})
    with pytest.raises(UserError, match="the task is done in 0, of 0 episodes"):
        draw_states(EnvSettings("vlmrl/CartPole-v0", task), 40, 0, pictures=False)


def test_a_source_that_gives_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that always passes through itself, as one of a plugin may, is put up in vain and drawn no more."""
    tries = []

    def itself(scene: object) -> bool:
        tries.append(scene)
        if len(tries) > 2 * PUT_UP:
            raise AssertionError("it is drawn for ever")
        return True

    monkeypatch.setattr(audit_sources, "passes_through_itself", itself)
    with pytest.raises(UserError, match="states drawn from random policy, fallen, any body the task is done in 0"):
        draw_states(settings("hopper/flip"), 40, 0, pictures=False)
    assert len(tries) == PUT_UP


def test_pictures_of_several_sizes_are_encoded_in_order() -> None:
    pictures = [np.full((8 + i % 3, 8, 3), 10 * i, dtype=np.uint8) for i in range(12)]
    done = np.arange(12) < 6
    states = LabelledStates({"front": pictures}, done, done.astype(np.float32), ("x",) * 12, np.arange(12), {})
    (embeddings,) = states.embed(BrightnessEncoder(), progress=False).values()  # type: ignore[arg-type]
    brightness = np.arctan2(embeddings[:, 1], embeddings[:, 0]) * 2 / np.pi * 255
    assert brightness == pytest.approx(10 * np.arange(12), abs=0.1)


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((6, 7, 3), (value, 0, 0), dtype=np.uint8))  # OpenCV writes BGR


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        write(tmp_path / "frames" / "true" / f"clip{i // 4}" / f"{i}.png", 200)
        write(tmp_path / "frames" / "false" / f"{i}.png", 10)
    return tmp_path / "frames"


def test_a_folder_of_true_and_false(folder: Path) -> None:
    states = read_frames(str(folder), "front")
    assert states.frames["front"].shape == (24, 6, 7, 3)
    assert (states.frames["front"][..., 2] == np.where(states.done, 200, 10)[:, None, None]).all()  # RGB
    assert states.done.sum() == 12
    assert len(np.unique(states.group[states.done])) == 3 and len(np.unique(states.group[~states.done])) == 12
    assert not set(states.group[states.done]) & set(states.group[~states.done])


def test_a_table_of_paths_labels_and_groups(folder: Path, tmp_path: Path) -> None:
    lines = ["path,label,group"]
    lines += [f"frames/true/clip{i // 4}/{i}.png,True,c{i // 4}" for i in range(12)]
    lines += [f"{folder}/false/{i}.png,0," for i in range(12)]
    tmp_path.joinpath("labels.csv").write_text("\n".join(lines))
    states = read_frames(str(tmp_path / "labels.csv"), "front")
    assert states.done.tolist() == [True] * 12 + [False] * 12
    assert len(np.unique(states.group)) == 15


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nowhere", None, "there is no folder or file"),
        (".", None, "has no subfolder true and no subfolder false"),
        ("a.csv", "path,lable\nx,1", "has no column label"),
        ("a.csv", "path,label\nx.png,maybe", "line 2 of .* has label 'maybe'; it must be true or false"),
        ("a.csv", "path,label\nx.png,true", "x.png' does not exist"),
        ("a.csv", "path,label\na.csv,true", "a.csv' is not a picture"),
        ("a.csv", "path,label\n", "holds no pictures"),
    ],
)
def test_what_is_no_set_of_frames_says_why(name: str, content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        tmp_path.joinpath(name).write_text(content)
    with pytest.raises(UserError, match=says):
        read_frames(str(tmp_path / name), "front")


def test_too_few_of_a_label_are_refused(folder: Path) -> None:
    for i in range(5):
        (folder / "false" / f"{i}.png").unlink()
    with pytest.raises(UserError, match="is not done in 7, of 7 episodes or clips; an audit needs 10"):
        read_frames(str(folder), "front")
