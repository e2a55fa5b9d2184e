"""Heads for clips: the released ones as computed by hand, their file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from tests.encoders import released
from tests.toys import BrightnessEncoder
from vlmrl.encoders.mineclip import MineClipConfig
from vlmrl.errors import UserError
from vlmrl.reward_models.video_heads import HeadConfig, VideoHead, load_head, load_released_head, save_head

SMALL = HeadConfig(dim=2, heads=1, dim_head=4)


def frames_of(n: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(n, 16, released.EMBED, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pooling", ["attn", "avg"])
def test_mineclips_heads_are_those_of_the_release(pooling: str, tmp_path: Path) -> None:
    state = released.mineclip_state(pooling)
    path = released.write(state, tmp_path / f"{pooling}.pth")
    head = load_released_head(path, MineClipConfig(path=str(path)).build("cpu"))
    frames = frames_of(3)
    pooled = released.temporal(state, "temporal_encoder.attn.model.", frames) if pooling == "attn" else frames.mean(1)
    expected = normalize(
        released.adapted(state, "reward_head.video_adapter.", "reward_head.video_residual_weight", pooled), dim=-1
    )
    torch.testing.assert_close(head(frames)[:, 0], expected, atol=1e-5, rtol=1e-4)
    texts = normalize(torch.randn(2, released.EMBED), dim=-1)
    torch.testing.assert_close(
        head.logits(head(frames), head.texts(texts))[:, 0], 20.085537 * expected @ texts.T, atol=1e-3, rtol=1e-3
    )
    assert head.source.startswith(f"{pooling}.pth: ") and not head.training


def test_clip4mcs_motion_branch_is_that_of_the_release(tmp_path: Path) -> None:
    state = released.clip4mc_state()
    path = released.write(state, tmp_path / "CLIP4MC.pt")
    head = load_released_head(path, MineClipConfig(path=str(path)).build("cpu"))
    assert (head.config.pooling, head.config.offsets, head.views) == ("motion", (1, 2, 4, 3), 2)
    frames = frames_of(2)
    at_distance = []
    for offset in (1, 2, 4, 3):
        differences = [
            released.temporal(
                state, "temporal_encoder.model.", torch.stack([frames[:, t + offset], frames[:, t]], dim=1)
            )
            for t in range(16 - offset)
        ]
        at_distance.append(released.temporal(state, "temporal_encoder.model.", torch.stack(differences, dim=1)))
    fused = released.temporal(state, "temporal_encoder2.model.", torch.stack(at_distance, dim=1))
    fused = torch.nn.functional.layer_norm(
        fused, (released.EMBED,), state["trans_layernorm.weight"], state["trans_layernorm.bias"]
    )
    fused = 2 * torch.sigmoid(fused) - 1
    expected = normalize(
        released.adapted(state, "video_adapter.adapter.", "video_adapter.residual_weight", fused), dim=-1
    )
    torch.testing.assert_close(head(frames)[:, 1], expected, atol=1e-5, rtol=1e-4)


def test_a_head_knows_the_order_of_frames_and_an_average_does_not() -> None:
    torch.manual_seed(0)
    frames = torch.randn(1, 16, 8)
    for pooling, moves in (("avg", False), ("attn", True), ("motion", True)):
        head = VideoHead(HeadConfig(dim=8, pooling=pooling, heads=2, dim_head=4))  # type: ignore[arg-type]
        moved = (head(frames) - head(frames.flip(1))).abs().max() > 1e-4
        assert bool(moved) == moves


def test_its_file_brings_it_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(dim=2, pooling="motion", heads=1, dim_head=4, offsets=(1, 3), text_adapter=1))
    save_head(head, tmp_path / "head.safetensors", BrightnessEncoder())
    again = load_head(tmp_path / "head.safetensors", BrightnessEncoder())
    frames = torch.randn(4, 16, 2)
    torch.testing.assert_close(again(frames), head(frames), rtol=0, atol=0)
    torch.testing.assert_close(again.texts(frames[0]), head.texts(frames[0]), rtol=0, atol=0)
    assert again.config == head.config and again.source.endswith("head.safetensors") and not head.source


def test_another_encoders_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(VideoHead(SMALL), path, BrightnessEncoder())
    other = BrightnessEncoder()
    other.fingerprint = "other"
    with pytest.raises(UserError, match="was trained on embeddings of brightness"):
        load_head(path, other)
    checkpoint = released.write(released.mineclip_state("avg"), tmp_path / "avg.pth")
    with pytest.raises(UserError, match="encoder=mineclip encoder.path="):
        load_released_head(checkpoint, other)


def test_files_that_are_none(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "head.safetensors"
    with pytest.raises(UserError, match="there is no file"):
        load_head(path, BrightnessEncoder())
    path.write_text("words")
    with pytest.raises(UserError, match="no safetensors file"):
        load_head(path, BrightnessEncoder())
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not those of a head for clips"):
        load_head(path, BrightnessEncoder())
    save_head(VideoHead(SMALL), path, BrightnessEncoder())
    from safetensors import safe_open

    with safe_open(path, "pt") as content:
        metadata, weights = content.metadata(), {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    save_file({key: tensor for key, tensor in weights.items() if key != "pool.norm.bias"}, path, metadata)
    with pytest.raises(UserError, match="1 weights are missing.*pool.norm.bias"):
        load_head(path, BrightnessEncoder())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"frames": 33}, "knows only 32 places"),
        ({"pooling": "motion", "offsets": (1, 16)}, "No two of 16 frames are 16 apart"),
        ({"pooling": "motion", "offsets": ()}, "needs 1 to 32 offsets"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        HeadConfig(**settings)


def test_clips_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected embeddings \(B, 16, 2\), got \(1, 15, 2\)"):
        VideoHead(SMALL)(torch.zeros(1, 15, 2))


def test_the_scale_of_logits_stays_within_its_limits() -> None:
    head = VideoHead(SMALL)
    assert head.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        head.logit_scale.fill_(9.0)
    head.clamp_logit_scale()
    assert head.logit_scale.exp().item() == pytest.approx(100)
