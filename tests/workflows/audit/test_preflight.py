"""Whether a reward of clips sees anything: models that do, and three that do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.reward_models.test_video import WaveEncoder, made_head, waves
from vlmrl.commands import compose, plain
from vlmrl.encoders.mini import MiniConfig
from vlmrl.reward_models.base import Words, scores_clips
from vlmrl.reward_models.clip import ClipReward
from vlmrl.reward_models.video import VideoReward
from vlmrl.reward_models.video_heads import HeadConfig, VideoHead, save_head
from vlmrl.workflows.audit.preflight import compare
from vlmrl.workflows.audit.run import audit
from vlmrl.workflows.config.audit import audit_settings

WORDS = Words(("bright",), negatives=("dark", "dim"))
EPISODES = [waves(np.linspace(start, start + 0.2, 40)) for start in (0.0, 0.2, 0.4)]
NOISE = waves(np.random.default_rng(0).uniform(0.9, 1.0, 16))


def model(pooling: str) -> VideoReward:
    return VideoReward(WORDS, WaveEncoder(), made_head(pooling, dim=8))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("pooling", "ordered"), [("avg", False), ("attn", True), ("motion", True)])
def test_a_model_that_sees(pooling: str, ordered: bool) -> None:
    found = compare(model(pooling), EPISODES, NOISE, rng())
    assert (found.word, found.clips) == ("SEES", 30)
    assert (found.order > 1e-3) == ordered
    assert ("the order of frames does not count" in found.reason) != ordered


def test_a_model_that_gives_every_clip_the_same() -> None:
    still = [np.repeat(EPISODES[0][:1], 40, axis=0)] * 3
    assert compare(model("attn"), still, NOISE, rng()).word == "FLAT"


def test_a_model_that_takes_noise_for_a_clip() -> None:
    blind = model("attn")
    # It scores clips by where they are in the list, whatever they show.
    blind.logits = lambda clips: np.arange(len(clips))[:, None] * np.array([1.0, -1.0])  # type: ignore[method-assign]
    found = compare(blind, EPISODES, NOISE, rng())
    assert (found.word, found.noise) == ("BLIND", 0.0)


def test_a_model_that_reads_no_words() -> None:
    deaf = model("attn")
    with torch.no_grad():
        deaf._texts = deaf._texts[:1].expand(3, -1)
    assert compare(deaf, EPISODES, NOISE, rng()).word == "DEAF"


def test_which_models_score_clips() -> None:
    assert scores_clips(model("attn")) and not scores_clips(ClipReward("a humanoid robot"))


def test_audit_says_it_of_a_reward_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    head = tmp_path / "head.safetensors"
    save_head(VideoHead(HeadConfig(dim=128, heads=2, dim_head=16)), head, MiniConfig().build("cpu"))
    given = ["env=cartpole", "reward=clip4mc", f"reward.weights={head}", "progress_bar=false"]
    values = plain(compose("audit", [*given, f"run_dir={tmp_path}/audits/one/run"]))
    values["task"]["negatives"] = ["a pole that hangs down"]
    assert audit(audit_settings(values)) == []
    (result,) = tmp_path.rglob("result.json")
    found = json.loads(result.read_text())["preflight"]
    assert found["verdict"] in ("SEES", "DEAF") and found["clips"] > 20
    assert "preflight of cartpole" in capsys.readouterr().out
