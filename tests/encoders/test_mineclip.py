"""MineCLIP's towers from a checkpoint of its form: keys accounted for, features as by hand, wrong input refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.encoders import released
from vlmrl.encoders import video_checkpoints
from vlmrl.encoders.base import gives_unit_vectors, video_head_of
from vlmrl.encoders.mineclip import MineClipConfig, MineClipEncoder
from vlmrl.encoders.video_checkpoints import read_video_checkpoint
from vlmrl.errors import UserError


@pytest.fixture(scope="module")
def state() -> released.State:
    return released.mineclip_state()


@pytest.fixture(scope="module")
def encoder(state: released.State, tmp_path_factory: pytest.TempPathFactory) -> MineClipEncoder:
    path = released.write(state, tmp_path_factory.mktemp("mineclip") / "attn.pth")
    return MineClipConfig(path=str(path)).build("cpu")


def test_features_are_those_of_the_release_and_not_of_unit_length(
    encoder: MineClipEncoder, state: released.State
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 160, 256, 3), dtype=np.uint8)
    expected = released.image_features(state, "image_encoder.", frames).numpy()
    found = encoder.encode_images(frames)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and (encoder.image_size, encoder.dim) == ((160, 256), released.EMBED)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 0.05 and not gives_unit_vectors(encoder)


def test_sentences_are_those_of_the_release_at_unit_length(encoder: MineClipEncoder, state: released.State) -> None:
    from open_clip import get_tokenizer

    texts = ["milk a cow", "shear a sheep with shears"]
    expected = released.text_features(state, "clip_model.text_model.", get_tokenizer("ViT-B-16")(texts))
    expected /= expected.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(encoder.encode_texts(texts), expected.numpy(), atol=1e-5)


def test_all_788_keys_of_a_release_are_accounted_for(tmp_path: Path) -> None:
    found = read_video_checkpoint(released.write(released.mineclip_state(layers=12), tmp_path / "attn.pth"))
    assert (len(found.used), len(found.copies), found.unexpected) == (334, 454, [])
    assert (found.kind, found.pooling) == ("mineclip", "attn")
    assert found.copies["image_encoder.conv1.weight"] == "clip_model.vision_model.conv1.weight"
    assert "788 keys, 334 used, 454 copies" in found.summary and "not a file that MineCLIP's authors" in found.summary
    lines = found.report().splitlines()
    assert len(lines) == 788 and "clip_model.logit_scale  used as clip logit_scale" in lines


def test_the_other_releases_are_told_by_their_keys(tmp_path: Path) -> None:
    avg = read_video_checkpoint(released.write(released.mineclip_state("avg"), tmp_path / "avg.pth"))
    assert (avg.kind, avg.pooling) == ("mineclip", "avg")
    torch.save(released.clip4mc_state(), tmp_path / "CLIP4MC.pt")  # without any wrapping
    motion = read_video_checkpoint(tmp_path / "CLIP4MC.pt")
    assert (motion.kind, motion.pooling, motion.unexpected) == ("clip4mc", "motion", [])
    encoder = MineClipConfig(path=str(tmp_path / "CLIP4MC.pt")).build("cpu")
    frames = np.random.default_rng(0).integers(0, 256, (1, 160, 256, 3), dtype=np.uint8)
    expected = released.image_features(released.clip4mc_state(), "vit.", frames).numpy()
    np.testing.assert_allclose(encoder.encode_images(frames), expected, atol=1e-5)


def test_the_digest_names_the_released_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = released.write(released.mineclip_state(), tmp_path / "attn.pth")
    digest = read_video_checkpoint(path).digest
    monkeypatch.setitem(video_checkpoints.MD5, digest, "MineCLIP attn")
    assert read_video_checkpoint(path).summary.startswith("attn.pth: MineCLIP attn;")


def test_a_checkpoint_that_is_not_whole_is_refused(state: released.State, tmp_path: Path) -> None:
    def build(changed: released.State) -> None:
        MineClipConfig(path=str(released.write(changed, tmp_path / "changed.pth"))).build("cpu")

    copies = ("clip_model.", "reward_head.clip_model.")
    without = {n: t for n, t in state.items() if n not in [f"{root}text_model.ln_final.bias" for root in copies]}
    with pytest.raises(UserError, match="1 weights are missing.*ln_final.bias"):
        build(without)
    with pytest.raises(UserError, match="1 belong nowhere.*temporal_encoder.mlp_before_pool.0.weight"):
        build(state | {"temporal_encoder.mlp_before_pool.0.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="image_encoder.conv1.weight should repeat"):
        build(state | {"image_encoder.conv1.weight": state["image_encoder.conv1.weight"] + 1})
    with pytest.raises(UserError, match="lacks visual.conv1.weight.*9 keys 9 belong nowhere"):
        build({f"elsewhere.{i}": torch.zeros(1) for i in range(9)})
    square = {n: (torch.zeros(197, released.WIDTH) if n.endswith("vision_model.pos_embed") else t)
              for n, t in state.items()}  # fmt: skip
    with pytest.raises(UserError, match="knows 197 places.*160 x 256 pixels have 161"):
        build({n: t for n, t in square.items() if not n.startswith("image_encoder.")})


def test_missing_weights_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no weights: encoder.path=<attn.pth or avg.pth>"):
        MineClipConfig().build("cpu")
    with pytest.raises(UserError, match="no file 'nowhere.pth'"):
        MineClipConfig(path="nowhere.pth").build("cpu")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match="cannot be read as weights: torch.save did not make it.*than tensors.$"):
        MineClipConfig(path=str(tmp_path / "text.pth")).build("cpu")
    torch.save([1, 2], tmp_path / "list.pth", _use_new_zipfile_serialization=False)  # which cannot be mapped
    with pytest.raises(UserError, match="holds no state_dict"):
        MineClipConfig(path=str(tmp_path / "list.pth")).build("cpu")


@pytest.mark.parametrize(
    ("shape", "dtype", "hint"),
    [
        ((1, 256, 160, 3), np.uint8, "Height and width look swapped"),
        ((1, 3, 160, 256), np.uint8, "Channels come last"),
        ((1, 160, 256, 3), np.float32, "Pixels are bytes"),
        ((1, 16, 160, 256, 3), np.uint8, "one by one"),
        ((1, 224, 224, 3), np.uint8, r"\(n, 160, 256, 3\) uint8, got \(1, 224, 224, 3\)"),
    ],
)
def test_pictures_of_another_form_are_refused(
    encoder: MineClipEncoder, shape: tuple[int, ...], dtype: type, hint: str
) -> None:
    with pytest.raises(UserError, match=hint):
        encoder.encode_images(np.zeros(shape, dtype=dtype))


def test_it_is_for_minecraft_and_brings_its_head(encoder: MineClipEncoder) -> None:
    encoder.check_env("minedojo")
    with pytest.raises(UserError, match="only seen Minecraft"):
        encoder.check_env("humanoid")
    assert video_head_of(encoder) is not None and str(video_head_of(encoder)).endswith("attn.pth")


def test_its_features_are_no_cosines(encoder: MineClipEncoder) -> None:
    from vlmrl.reward_models.clip import ClipReward

    with pytest.raises(UserError, match="cannot be compared with sentences"):
        ClipReward("milk a cow", encoder=encoder)
