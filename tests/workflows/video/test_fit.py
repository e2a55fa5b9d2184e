"""`fit reward=clip4mc`: a model from play or from recordings that goes on where it stopped and is used as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlmrl.encoders.crafter import CrafterConfig
from vlmrl.encoders.mini import VIDEO_HEAD
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.video import VideoRewardConfig
from vlmrl.reward_models.video_heads import HeadConfig, VideoHead
from vlmrl.workflows.video.config import VideoFitConfig
from vlmrl.workflows.video.fit import fit
from vlmrl.workflows.video.footage import Footage
from vlmrl.workflows.video.measure import measure
from vlmrl.workflows.video.train import ClipStage

SMALL = {"scenes": 12, "image_epochs": 1, "steps": 4, "batch_size": 8, "depth": 1, "image_size": 32, "frames": 6}


def config(out: Path, **changes: Any) -> VideoFitConfig:
    return VideoFitConfig(**{"out": str(out), "threads": 1, "progress": False, **SMALL, **changes})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("fitted")
    return out, fit(config(out))


def test_a_folder_is_an_encoder_with_a_head_for_clips(fitted: tuple[Path, dict[str, Any]]) -> None:
    out, report = fitted
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "figures.json", "open_clip_config.json", "open_clip_model.safetensors", VIDEO_HEAD,
    ]  # fmt: skip
    assert json.loads((out / "figures.json").read_text())["losses"] == report["losses"]
    card = (out / "README.md").read_text()
    assert f"encoder.path={out}" in card and "32 x 32 pixels" in card and "12 scenes of Crafter" in card
    encoder = CrafterConfig(path=str(out)).build("cpu")
    encoder.check_env("crafter")
    assert encoder.image_size == (32, 32) and not encoder.unknown_words("you defeat a skeleton in a cave")
    words = Words(("you drink water",), negatives=("you walk", "you sleep"))
    reward = VideoRewardConfig().build(words, encoder)
    assert reward.context == 5
    clips = np.stack([encoder.encode_images(np.full((6, 32, 32, 3), tone, dtype=np.uint8)) for tone in (0, 200)])
    probabilities = reward.probabilities(clips)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    with pytest.raises(UserError, match="has only seen crafter"):
        encoder.check_env("humanoid")


def test_a_run_that_was_interrupted_ends_in_the_same_bytes(
    fitted: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrl.workflows.video.fit.SAVE_EVERY", 2)
    out = tmp_path / "out"
    step = ClipStage._step

    def killed(self: ClipStage, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(ClipStage, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(config(out))
    assert (out / "clips.pt").exists()
    with pytest.raises(UserError, match="interrupted run with other settings"):
        fit(config(out, steps=5))
    done: list[int] = []
    monkeypatch.setattr(ClipStage, "_step", lambda self, number: (done.append(number), step(self, number))[1])
    fit(config(out))
    assert done == [2, 3]  # from the last checkpoint
    name = "open_clip_model.safetensors"
    assert (out / name).read_bytes() == (fitted[0] / name).read_bytes()
    first, again = (load_file(folder / VIDEO_HEAD) for folder in (fitted[0], out))  # its metadata come in any order
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Six clips of 9 pictures: a red spot that goes to the right or to the left."""
    folder = tmp_path / "recordings"
    lines = ["episode,text"]
    for i in range(6):
        right = i % 2 == 0
        (folder / f"clip{i}").mkdir(parents=True)
        for t in range(9):
            picture = np.full((24, 24, 3), 30 * i, dtype=np.uint8)
            x = 2 * t if right else 16 - 2 * t
            picture[8:16, x : x + 8] = (0, 0, 255)
            cv2.imwrite(str(folder / f"clip{i}" / f"{t}.png"), picture)
            lines.append(f"clip{i},a spot goes to the {'right' if right else 'left'}")
    (folder / "steps.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_any_folder_of_clips_and_sentences_will_do(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = {"dataset": str(recordings), "windows": 4, "held_out": 0.34, "pooling": "motion", "frames": 4, "steps": 6}
    report = fit(config(out, **changes))
    assert report["clips"]["meanings"] == ["text:a spot goes to the left", "text:a spot goes to the right"]
    assert (report["clips"]["learned"], report["clips"]["held_out"]) == (16, 8)
    encoder = CrafterConfig(path=str(out), any_env=True).build("cpu")
    assert not encoder.unknown_words("a spot goes to the left")
    words = Words(("a spot goes to the left",), negatives=("a spot goes to the right",))
    assert VideoRewardConfig().build(words, encoder).head.views == 2


def test_a_head_learns_which_way_a_spot_goes(recordings: Path, tmp_path: Path) -> None:
    """The same pictures the other way round: only their order tells the two apart."""
    changes = {"dataset": str(recordings), "held_out": 0.34, "image_size": 0, "frames": 5, "steps": 120, "seed": 0}
    report = fit(config(tmp_path / "out", batch_size=16, **changes))
    assert report["losses"][-1] < 0.35 * report["losses"][0]
    assert report["held_out"]["mean"]["auroc"] > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": 0.0}, "held_out"),
        ({"batch_size": 1}, "take 2 or more"),
        ({"weights": "nowhere"}, "nothing at 'nowhere'"),
        ({"dataset": "x", "completion": True}, "recordings do not say"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(tmp_path, **changes)


class AxisEncoder:
    """Sentences as unit vectors along axes; what else an encoder has is not asked."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[[{"up": 0, "down": 1}[text] for text in texts]]


def test_figures_of_held_out_clips_are_those_worked_by_hand() -> None:
    """12 clips of one frame; the last of each kind lies where the other kind does."""
    embeddings = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]]
    shown = (("text:up",),) * 6 + (("text:down",),) * 6
    footage = Footage(np.zeros((12, 2, 2, 3)), np.arange(12)[:, None], shown, np.arange(12))
    head = VideoHead(HeadConfig(2, "avg", 1, video_adapter=0)).eval()
    assert head.logit_scale.exp() > 10
    with torch.inference_mode():
        figures = measure(AxisEncoder(), head, footage, embeddings, np.arange(12))  # type: ignore[arg-type]
    assert figures["text:up"]["auroc"] == pytest.approx(
        (5 * 5 + 0.5 * 5 + 0.5 * 5) / 36
    )  # wins, and ties on both sides
    assert [figures["text:up"][name] for name in ("precision", "recall")] == pytest.approx([5 / 6, 5 / 6])
    assert figures["text:up"]["clips"] == 6 and figures["mean"]["recall"] == pytest.approx(5 / 6)
