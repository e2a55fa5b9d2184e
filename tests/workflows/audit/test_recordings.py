"""Audits of clips: made clips whose truth is known, the clock, what is undefined or tied; the command end to end."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pyarrow.parquet as parquet
import pytest

import vlmrl  # noqa: F401  (registers environments)
from tests.datasets.recordings import episode, write
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.datasets.base import open_dataset
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.serving.local import LocalConfig
from vlmrl.stats import average_precision, kendall_tau_b, spearman
from vlmrl.workflows.audit.clips import THUMB, Clip, Label, read_clips, read_labels
from vlmrl.workflows.audit.detection import detect, fires
from vlmrl.workflows.audit.exports import write_progress_table
from vlmrl.workflows.audit.findings import examine
from vlmrl.workflows.audit.progress import clock, controls, correlations, in_order
from vlmrl.workflows.audit.recordings import audit_recordings
from vlmrl.workflows.audit.recordings_page import worst_first
from vlmrl.workflows.config.audit import AuditConfig, audit_settings


def clip(number: int, progress: Sequence[float], success: bool | None = True, done_at: int | None = None) -> Clip:
    """A clip whose one-dimensional embeddings are its true progress."""
    values = np.asarray(progress, dtype=np.float32)[:, None]
    return Clip(number, f"clip {number}", "", {"front": values}, [], Label(success, done_at))


def made(n: int, seed: int = 0) -> list[Clip]:
    """Successes that rise to 1 and failures that fall back, n of each."""
    rng = np.random.default_rng(seed)
    rise = [np.linspace(rng.uniform(0, 0.2), rng.uniform(0.9, 1), 20) for _ in range(n)]
    fall = [
        np.r_[np.linspace(0.1, rng.uniform(0.4, 0.8), 10), np.linspace(0.5, rng.uniform(0, 0.3), 10)] for _ in range(n)
    ]
    return [clip(i, own, True, 18) for i, own in enumerate(rise)] + [
        clip(n + i, own, False) for i, own in enumerate(fall)
    ]


def truth(clip: Clip, order: np.ndarray, wrong: bool) -> np.ndarray:
    return clip.embeddings["front"][order, 0] * (0.5 if wrong else 1)


def constant(clip: Clip, order: np.ndarray, wrong: bool) -> np.ndarray:
    return np.full(len(order), 0.3)


def test_the_truth_passes_and_a_clock_with_the_same_correlation_fails() -> None:
    clips = made(60)
    found, beside = examine("truth", clips, truth, True, 0), examine("clock", clips, clock, False, 0)
    assert (found.word, beside.word) == ("PASS", "FAIL")
    for entry in (found, beside):
        assert entry.correlations[0].name == "value-order correlation (Spearman) with time"
        assert entry.correlations[0].figure is not None and entry.correlations[0].figure.value == pytest.approx(1)
    assert [control.name for control in found.controls] == [
        "reversed", "frozen", "truncated", "shuffled", "wrong instruction",
    ]  # fmt: skip
    assert all(control.beaten for control in found.controls)
    assert "reversed, frozen, truncated or shuffled end as high" in beside.reason
    assert found.detection is not None and found.detection.auroc.value == 1
    assert beside.detection is not None and beside.detection.auroc.value == 0.5
    assert beside.controls[3].correlation == 1  # a shuffled clip is in order for it as well


def test_what_is_undefined_is_counted_and_never_zero() -> None:
    clips = [clip(0, [0, 0.5, 1]), clip(1, [0.4, 0.4, 0.4])]
    (rank, *_) = correlations(clips, [truth(own, in_order(own), False) for own in clips])
    assert (rank.clips, rank.undefined) == (2, 1) and rank.figure is not None and rank.figure.value == 1
    found = examine("constant", made(10), constant, False, 0)
    assert found.correlations[0].figure is None and found.correlations[0].undefined == 10
    assert found.word == "FAIL" and all(control.wins.value == 0.5 for control in found.controls)


def test_a_reward_that_looks_at_success_alone_has_no_chance_without_failures() -> None:
    found = examine("truth", [own for own in made(30) if own.label.success], truth, True, 0)
    assert found.word == "WEAK" and found.detection is None and "clips of both outcomes" in found.reason


def test_true_progress_is_compared_where_it_is_known() -> None:
    label = Label(True, None, {0: 0.0, 2: 0.3, 3: 1.0})
    known = Clip(0, "a", "", {"front": np.zeros((4, 1))}, [], label)
    found = correlations([known], [np.array([0.0, 9.0, 0.2, 0.4])])
    names = [entry.name for entry in found]
    assert "Kendall tau-b with true progress" in names
    assert found[names.index("value-order correlation (Spearman) with true progress")].figure.value == 1  # type: ignore[union-attr]


def test_ties_are_ties_whatever_the_order_of_the_list() -> None:
    clips = [clip(0, [0, 1]), clip(1, [0, 1])]
    for order in (clips, clips[::-1]):
        assert {control.wins.value for control in controls(order, constant, True, 0)} == {0.5}
    scores, positive = np.array([0.5, 0.5, 0.1]), np.array([True, False, False])
    assert average_precision(scores, positive)[0] == average_precision(scores[::-1], positive[::-1])[0] == 0.5
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, False, True]))[0] == pytest.approx((1 + 2 / 3) / 2)
    assert kendall_tau_b(np.array([1, 1, 2]), np.array([1, 2, 3])) == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(kendall_tau_b(np.ones(3), np.arange(3))) and math.isnan(spearman(np.ones(3), np.arange(3)))


def test_thresholds_come_from_other_clips_than_figures() -> None:
    clips = made(20)
    found = detect(clips, [truth(own, in_order(own), False) for own in clips], 0)
    assert found is not None
    assert set(found.chosen) | set(found.measured) == set(range(40)) and not set(found.chosen) & set(found.measured)
    assert 0.3 < found.threshold < 0.95 and found.f1.value == 1 and found.brier.value < 0.1
    assert sum(n for _, _, n in found.calibration) == len(found.measured)
    # Values that are noise: on the clips that chose the threshold they would look better than chance.
    rng = np.random.default_rng(1)
    areas = []
    for seed in range(10):
        noise = detect(clips, [rng.random(20) for _ in clips], seed)
        assert noise is not None
        areas.append(noise.auroc.value)
    assert 0.4 < np.mean(areas) < 0.6


def test_firing_wants_three_frames_in_a_row_and_has_a_delay() -> None:
    assert fires(np.array([0, 1, 0, 1, 1, 1, 0]), 0.5) == 5
    assert fires(np.array([1, 0, 1, 0, 1, 1]), 0.5) is None
    # The threshold lies near 0.5. Half of the successes are noticed two frames late, half of the failures fire falsely.
    late = [clip(i, [0] * 10 + [1] * 10, True, 10) for i in range(12)]
    false = [clip(12 + i, [0, 1, 1, 1, 1, 0] if i % 2 else [0] * 6, False) for i in range(12)]
    found = detect([*late, *false], [truth(own, in_order(own), False) for own in (*late, *false)], 0)
    assert found is not None and found.delay is not None and found.delay.value == 2
    assert found.early is not None and 0 < found.early.value < 0.5 and (found.missed, found.timed) == (0, 8)


def test_the_worst_come_first() -> None:
    clips = [
        clip(0, [0, 1]),
        clip(1, [0, 0.1]),
        clip(2, [0, 0.9], False),
        clip(3, [0, 0.05], False),
        clip(4, [0, 1], None),
    ]
    found = examine("truth", clips, truth, False, 0)
    assert set(worst_first(clips, found)[:2]) == {1, 2} and worst_first(clips, found)[-1] == 4


def test_one_scale_for_all_clips_in_the_progress_table(tmp_path: Path) -> None:
    """A failed clip must not reach 1, and a constant one stays constant."""
    clips = [clip(0, [0.2, 0.6, 1.0]), clip(3, [0.2, 0.4, 0.3], False), clip(4, [0.2, 0.2], False)]
    curves = [truth(own, in_order(own), False) for own in clips]
    dataset = open_dataset(str(write("clips", tmp_path / "clips", [episode(0)])))
    path = write_progress_table(tmp_path, "liv", clips, curves, dataset)
    again = write_progress_table(tmp_path, "liv2", clips, curves, dataset)
    table = parquet.read_table(path)
    assert table.schema.metadata[b"reward_model_path"] == b"liv" and path.name == "liv_progress.parquet"
    columns = table.to_pydict()
    assert columns["index"] == list(range(8)) and columns["episode_index"] == [0, 0, 0, 3, 3, 3, 4, 4]
    assert columns["frame_index"] == [0, 1, 2, 0, 1, 2, 0, 1]
    np.testing.assert_allclose(columns["progress_sparse"], [0, 0.5, 1, 0, 0.25, 0.125, 0, 0], atol=1e-6)
    assert str(table.schema.field("progress_sparse").type) == "float"
    assert parquet.read_table(again).equals(table)


def settings(tmp_path: Path, *overrides: str) -> AuditConfig:
    quick = ["progress_bar=false", "threads=1", "device=cpu"]
    values = plain(compose("audit", for_hydra([*overrides, *quick])))
    given = [override.partition("=")[0] for override in overrides]
    return audit_settings({**values, "run_dir": str(tmp_path / "audit")}, given)


@pytest.fixture(scope="module")
def poles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of six episodes in which the pole comes up, and of six in which it falls back."""
    folder = tmp_path_factory.mktemp("recordings") / "poles"
    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    lines = ["episode,success,done_at"]
    for i in range(12):
        up = i % 2 == 0
        name = f"{'up' if up else 'down'}_{i:02d}"
        (folder / name).mkdir(parents=True)
        for t, angle in enumerate(np.linspace(2.8 + 0.02 * i, 0.0 if up else 2.0 + 0.05 * i, 8)):
            env.unwrapped.state = np.array([0.1 * i - 0.6, 0, angle, 0])  # type: ignore[attr-defined]
            picture: np.ndarray = env.render()  # type: ignore[assignment]
            cv2.imwrite(str(folder / name / f"{t:03d}.png"), picture[..., ::-1])
        lines.append(f"{name},{'true,7' if up else 'false,'}")
    env.close()
    folder.with_suffix(".csv").write_text("\n".join(lines))
    return folder


def test_an_audit_of_clips_end_to_end(tmp_path: Path, poles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = (f"dataset={poles}", f"labels={poles}.csv", "env=cartpole", "reward=clip")
    found = audit_recordings(settings(tmp_path, *chosen))
    output = capsys.readouterr().out
    assert found.word == "WEAK" and "a pure clock: FAIL" in output and "12 clips, 96 frames: 6 successes" in output
    for name in ("value-order correlation (Spearman)", "Pearson correlation", "Kendall tau-b", "AUROC", "Brier score"):
        assert name in output
    result = json.loads((tmp_path / "audit" / "result.json").read_text())
    assert result["verdict"] == "WEAK" and result["clock"]["verdict"] == "FAIL" and len(result["clips"]) == 12
    page = (tmp_path / "audit" / "audit.html").read_text()
    strips = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(strips) == page.count("<svg") == 12 and "<script" not in page
    assert cv2.imdecode(np.frombuffer(base64.b64decode(strips[0]), np.uint8), 1).shape == (THUMB, 720, 3)
    assert (tmp_path / "audit" / "clip_progress.parquet").is_file()


def test_frames_are_embedded_once_whatever_is_asked_later(
    tmp_path: Path, poles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: what is in the store is not encoded again, not for another sentence either."""
    from vlmrl.encoders.mini import MiniEncoder

    first = audit_recordings(settings(tmp_path / "1", f"dataset={poles}", "env=cartpole", "progress_table=false"))
    assert not (tmp_path / "1" / "audit" / "clip_progress.parquet").exists()

    def never(self: MiniEncoder, frames: np.ndarray) -> np.ndarray:
        raise AssertionError("a picture was encoded again")

    monkeypatch.setattr(MiniEncoder, "encode_images", never)
    again = audit_recordings(settings(tmp_path / "2", f"dataset={poles}", "env=cartpole"))
    assert all(np.array_equal(a, b) for a, b in zip(first.curves, again.curves, strict=True))
    other = audit_recordings(settings(tmp_path / "3", f"dataset={poles}", "env=cartpole", "goal=pole hanging down"))
    assert not np.array_equal(other.curves[0], first.curves[0])


def test_a_reward_of_whole_episodes_values_a_clip_at_its_end(tmp_path: Path, poles: Path) -> None:
    found = audit_recordings(settings(tmp_path, f"dataset={poles}", "env=cartpole", "reward=roboclip"))
    assert all((curve[:-1] == 0).all() and curve[-1] != 0 for curve in found.curves)


def test_labels_are_read_frame_by_frame(tmp_path: Path, poles: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("episode,frame,progress,success\nup_00,0,0,\nup_00,7,1,true\n1,3,0.5,no\n")
    found = read_labels(str(file), open_dataset(str(poles)))
    assert found["up_00"] == Label(True, None, {0: 0.0, 7: 1.0})
    second = open_dataset(str(poles)).names[1]  # type: ignore[attr-defined]
    assert set(found) == {"up_00", second} and found[second].success is False


def test_a_clip_that_nobody_labelled_takes_no_label_of_another(tmp_path: Path) -> None:
    """Clips are called 1 to 3 and have the numbers 0 to 2: the third one's number is the second one's name."""
    folder = write("clips", tmp_path / "clips", [episode(i) for i in range(3)])
    (folder / "steps.csv").unlink()
    for i in (2, 1, 0):
        (folder / "front" / f"{i:06d}.mp4").rename(folder / "front" / f"{i + 1}.mp4")
    file = tmp_path / "labels.csv"
    file.write_text("episode,success\n1,true\n2,false\n0,\n")  # there is no clip 0, so it is the first one's number
    dataset = open_dataset(str(folder))
    service = LocalConfig().build(MiniConfig(), "cpu")
    try:
        clips = list(read_clips(dataset, service, ["front"], read_labels(str(file), dataset), {}))
    finally:
        service.close()
    assert [(one.name, one.label.success) for one in clips] == [("1", True), ("2", False), ("3", None)]


@pytest.mark.parametrize("kind", ["minari", "lerobot"])
def test_labels_name_episodes_of_every_format(tmp_path: Path, kind: str) -> None:
    place = write(kind, str(tmp_path / "poles-v0"), [episode(i) for i in range(3)])
    dataset, file = open_dataset(str(place)), tmp_path / "labels.csv"
    name = dataset.episode(1).name
    file.write_text(f"episode,success,done_at\n{name},true,\n1,,4\n2,false,\n")
    found = read_labels(str(file), dataset)
    assert found == {name: Label(True, 4), dataset.episode(2).name: Label(False)}
    for wrong in ("17", "run_1"):
        file.write_text(f"episode,success\n{wrong},false\n")
        with pytest.raises(UserError, match=f"Unknown episode in .*'{wrong}'.*Available: {dataset.episode(0).name}"):
            read_labels(str(file), dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("success\ntrue\n", "has the columns success. It is a csv file with a column episode"),
        ("episode,progress\nup_00,1\n", "has the columns episode, progress"),
        ("episode,success\nup_99,true\n", "Unknown episode in .*'up_99'. Did you mean 'up_"),
        ("episode,success\nup_00,maybe\n", "line 2 .* success is 'maybe'"),
        ("episode,done_at\nup_00,late\n", "line 2 .* done_at is 'late'; it must be the number of a frame"),
        ("episode,frame,progress\nup_00,1,2\n", "line 2 .* progress is '2'"),
    ],
)
def test_what_is_wrong_with_labels_is_said(tmp_path: Path, poles: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(str(tmp_path / "labels.csv"), open_dataset(str(poles)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["labels=a.csv"], "are about recorded clips: name them, dataset="),
        (["dataset={poles}", "frames=x"], "name one of them"),
        (["dataset={poles}", "alphas=[0,1]"], "one reward is audited at a time"),
        (["dataset={poles}", "reward=ground_truth"], "reward=ground_truth looks at none"),
    ],
)
def test_settings_of_recordings(tmp_path: Path, poles: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(tmp_path, *(override.format(poles=poles) for override in overrides))


def test_clips_that_say_nothing_need_a_sentence(tmp_path: Path, poles: Path) -> None:
    with pytest.raises(UserError, match="does not say what should be done. Say it for all: goal="):
        audit_recordings(settings(tmp_path, f"dataset={poles}", "encoder.any_env=true"))
