"""Labels of other projects in, parquet out, preferences for imitation."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet
import pytest

from tests.judges.clips import clip, comparison
from vlmrl.errors import UserError
from vlmrl.judges.desk import Desk
from vlmrl.judges.exchange import (
    JudgePreferenceGatherer,
    Labelled,
    add_labels,
    export_parquet,
    read_numbers,
    read_uni_rlhf,
    verdicts,
)
from vlmrl.judges.ground_truth import GroundTruthConfig, GroundTruthJudge
from vlmrl.judges.replay import ReplayConfig
from vlmrl.judges.store import AnswerStore


def uni_rlhf(folder: Path, labels: Any) -> Path:
    for name, values in {"human_label": labels, "indices_1": np.array([0, 3, 5]), "indices_2": [8, 1, 2]}.items():
        (folder / f"{name}_domain_mujoco_env_x_num_3_len_2_abc.pkl").write_bytes(pickle.dumps(values))
    return folder


def test_the_same_number_means_opposite_things() -> None:
    assert verdicts([[0], [1], [-1]], "b_pref") == ["left", "right", "tie"]
    assert verdicts(np.array([0, 1, 0.5]), "imitation") == ["right", "left", "tie"]
    with pytest.raises(UserError, match=r"these have \[0.3\]"):
        verdicts([0.3], "imitation")
    with pytest.raises(UserError, match="Did you mean 'b_pref'"):
        verdicts([0], "bpref")  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [[0, 1, -1], np.array([0, 1, -1]), np.array([[0], [1], [-1]])])
def test_crowd_labels_go_into_the_store_and_come_out_of_replay(tmp_path: Path, store: AnswerStore, labels: Any) -> None:
    read = read_uni_rlhf(uni_rlhf(tmp_path, labels))
    assert read == [Labelled(0, 8, "left"), Labelled(3, 1, "right"), Labelled(5, 2, "tie")]
    segment = lambda start: clip(start / 10, 2)  # noqa: E731
    assert add_labels(store, "go", read, segment, "uni_rlhf") == 3
    assert add_labels(store, "go", read, segment, "uni_rlhf") == 0
    desk = ReplayConfig(source=str(store.path), judge="uni_rlhf").open_desk(None, "cpu", tmp_path / "b.sqlite")
    asked = [comparison(0.0, 0.8, "go", 2), comparison(0.1, 0.3, "go", 2)]
    assert [answer.verdict for answer in desk.ask(asked)] == [
        "left",
        "left",
    ]  # the second was asked the other way round
    desk.close()


def test_files_that_are_not_numbers_run_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(UserError, match="which is no number"):
        read_numbers(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()
    np.save(tmp_path / "good.npy", np.arange(3))
    assert read_numbers(tmp_path / "good.npy").tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"one file human_label_\*"):
        read_uni_rlhf(tmp_path)


def test_parquet_holds_everything(tmp_path: Path, store: AnswerStore) -> None:
    Desk(GroundTruthJudge(), store, keep_clips=True).ask([comparison(0.9, 0.1, frames=3)])
    Desk(GroundTruthJudge(GroundTruthConfig(seed=1)), store).ask([comparison(0.5, 0.6)])
    store.rate(store.questions()[0].key, "ann", "left", 1.0)
    assert export_parquet(store, tmp_path / "answers.parquet") == 2
    first, second = pyarrow.parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert (first["verdict"], second["verdict"], first["goal"]) == ("left", "right", "a red picture")
    assert first["ratings"] == '{"ann": "left"}'
    frames = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1] for png in first["left_frames"]]
    np.testing.assert_array_equal(frames, clip(0.9, 3))
    assert second["left_frames"] is None and len(second["left"]) == 64


def test_imitation_gets_the_probability_of_the_first(store: AnswerStore) -> None:
    def fragment(reds: list[float]) -> Any:
        infos = np.array([{"rendered_img": clip(red)[0]} for red in reds])
        return SimpleNamespace(infos=infos, rews=np.array(reds))

    gather = JudgePreferenceGatherer(Desk(GroundTruthJudge(GroundTruthConfig(skip_below=0.2)), store), "red")
    pairs = [([0.9, 0.9], [0.1, 0.1]), ([0.1], [0.9]), ([0.5], [0.5]), ([0.1], [0.0])]
    preferences = gather([(fragment(first), fragment(second)) for first, second in pairs])
    assert preferences.dtype == np.float32 and preferences.tolist() == [1, 0, 0.5, 0.5]
    with pytest.raises(UserError, match="hold no pictures"):
        gather([(SimpleNamespace(infos=None, rews=[0]), fragment([0.1]))])
