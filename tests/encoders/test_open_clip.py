"""The open_clip encoder: parity with open_clip's own preprocessing, what tells models apart, and every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.encoders.conftest import PREPROCESS, TINY, save_tiny
from vlmrl.encoders import open_clip_files
from vlmrl.encoders.open_clip import OpenClipConfig, OpenClipEncoder
from vlmrl.errors import UserError


def pictures(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, as frames are: white noise would be all edges."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (n, height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    return np.stack(
        [np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)) for picture in coarse]
    )


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> OpenClipEncoder:
    return OpenClipConfig(f"local-dir:{tiny}").build("cpu")


@pytest.mark.parametrize("resize_mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [64, (64, 48)])
def test_embeddings_match_open_clips_own_preprocessing(tmp_path, resize_mode, interpolation, size):
    import torch
    from PIL import Image

    model_cfg = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": size}}
    folder = save_tiny(tmp_path, model_cfg, PREPROCESS | {"resize_mode": resize_mode, "interpolation": interpolation})
    encoder = OpenClipConfig(f"local-dir:{folder}").build("cpu")
    model, _, transform = open_clip_files.open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    for height, width in ((64, 64), (100, 150), (151, 100), (40, 50), (480, 480)):
        frames = pictures(3, height, width)
        with torch.inference_mode():
            theirs = model.encode_image(
                torch.stack([transform(Image.fromarray(frame)) for frame in frames]), normalize=True
            ).numpy()
        assert ((encoder.encode_images(frames) * theirs).sum(axis=1) > 0.9999).all()


def test_text_matches_open_clips_own_tokenizer(tiny, encoder):
    import torch

    texts = ["a humanoid robot kneeling", "pole and cart"]
    model = open_clip_files.open_clip.create_model(f"local-dir:{tiny}").eval()
    with torch.inference_mode():
        theirs = model.encode_text(
            open_clip_files.open_clip.get_tokenizer(f"local-dir:{tiny}")(texts), normalize=True
        ).numpy()
    np.testing.assert_allclose(encoder.encode_texts(texts), theirs, atol=1e-6)


def test_embeddings_are_unit_float32_and_stateless(encoder):
    frames = pictures(70, 64, 64)  # more than one batch
    together = encoder.encode_images(frames)
    assert together.shape == (70, encoder.dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[66:68], encoder.encode_images(frames[66:68]), atol=1e-5)
    assert encoder.encode_images(frames[:0]).shape == (0, encoder.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)
    assert encoder.image_size == (64, 64)


def test_bf16_stays_close(tiny, encoder):
    frames = pictures(8, 64, 64)
    half = OpenClipConfig(f"local-dir:{tiny}", precision="bf16").build("cpu")
    assert ((half.encode_images(frames) * encoder.encode_images(frames)).sum(axis=1) > 0.99).all()
    assert half.fingerprint != encoder.fingerprint


def test_fingerprint_follows_weights_architecture_and_preprocessing(tiny, encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    assert OpenClipConfig(f"local-dir:{tiny}").build("cpu").fingerprint == encoder.fingerprint
    other_pixels = save_tiny(tmp_path / "a", preprocess=PREPROCESS | {"mean": [0.5, 0.4, 0.31]})
    more_heads = save_tiny(tmp_path / "b", TINY | {"vision_cfg": TINY["vision_cfg"] | {"head_width": 16}})
    other_weight = save_tiny(tmp_path / "c")
    weights = load_file(other_weight / "open_clip_model.safetensors")
    weights["ln_final.bias"][0] += 1e-3
    save_file(weights, other_weight / "open_clip_model.safetensors")
    prints = {
        OpenClipConfig(f"local-dir:{folder}").build("cpu").fingerprint
        for folder in (other_pixels, more_heads, other_weight)
    }
    assert len(prints | {encoder.fingerprint}) == 4


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 3, 8, 8), np.uint8)]
)
def test_frames_of_another_kind_are_refused(encoder, frames):
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode_images(frames)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_sentence(encoder, text):
    with pytest.raises(UserError, match="empty sentence"):
        encoder.encode_texts(["a robot", text])


def test_sentence_longer_than_the_model_reads(encoder):
    assert encoder.encode_texts([" ".join(["robot"] * 14)]).shape == (1, 32)  # 14 words and two marks fill 16 tokens
    with pytest.raises(UserError, match="reads 16 tokens; this sentence has 17"):
        encoder.encode_texts([" ".join(["robot"] * 15)])


def test_numbers_that_are_not_finite_name_the_model(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path / "broken")
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"][:] = float("nan")
    save_file(weights, folder / "open_clip_model.safetensors")
    encoder = OpenClipConfig(f"local-dir:{folder}").build("cpu")
    with pytest.raises(UserError, match=r"broken \(fp32\).* not finite for 2 of 2 pictures"):
        encoder.encode_images(pictures(2, 64, 64))


def test_unknown_model_suggests():
    with pytest.raises(UserError, match=r"Unknown open_clip model 'ViT-H14'. Did you mean 'ViT-H-14'\?.*local-dir:"):
        OpenClipConfig("ViT-H14", "laion2b_s32b_b79k").build("cpu")


def test_a_folder_is_told_how_to_be_called(tmp_path):
    with pytest.raises(UserError, match=f"is a folder; say so: encoder.model=local-dir:{tmp_path}"):
        OpenClipConfig(str(tmp_path)).build("cpu")


def test_unknown_tag_lists_the_models_tags():
    with pytest.raises(UserError, match="Unknown pretrained tag of ViT-H-14 'laion2b'.*Available: .*laion2b_s32b_b79k"):
        OpenClipConfig("ViT-H-14", "laion2b").build("cpu")
    with pytest.raises(UserError, match="needs weights.*laion2b_s32b_b79k"):
        OpenClipConfig("ViT-H-14").build("cpu")


def test_weights_file_missing(tmp_path):
    missing = str(tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="no weights file"):
        OpenClipConfig("RN50", missing).build("cpu")
    with pytest.raises(UserError, match="no file"):
        OpenClipConfig("RN50", "openai", weights=missing).build("cpu")


@pytest.mark.parametrize(("make", "message"), [
    (lambda folder: None, "there is no folder"),
    (lambda folder: folder.mkdir(), "no open_clip_config.json"),
    (lambda folder: (folder.mkdir(), (folder / "open_clip_config.json").write_text("{")), "not JSON"),
    (lambda folder: (folder.mkdir(), (folder / "open_clip_config.json").write_text("{}")), "no 'model_cfg'"),
    (
        lambda folder: (folder.mkdir(), (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))),
        "no weights file",
    ),
])  # fmt: skip
def test_folder_that_is_no_model(tmp_path, make, message):
    make(tmp_path / "model")
    with pytest.raises(UserError, match=message):
        OpenClipConfig(f"local-dir:{tmp_path / 'model'}").build("cpu")


def test_weights_of_another_architecture(tiny, tmp_path):
    wider = TINY | {"vision_cfg": TINY["vision_cfg"] | {"width": 96}}
    folder = save_tiny(tmp_path / "wider", wider)
    (folder / "open_clip_model.safetensors").write_bytes((tiny / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(UserError, match="do not fit the architecture.*size mismatch"):
        OpenClipConfig(f"local-dir:{folder}").build("cpu")


def test_file_that_holds_no_weights(tmp_path):
    folder = save_tiny(tmp_path / "cut")
    whole = (folder / "open_clip_model.safetensors").read_bytes()
    (folder / "open_clip_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        OpenClipConfig(f"local-dir:{folder}").build("cpu")


def test_bare_file_takes_the_preprocessing_beside_it_or_asks(tiny):
    file = str(tiny / "open_clip_model.safetensors")
    # RN50's tags agree; those of ViT-H-14 do not (DFN's come with their own); the folder's config settles it for any.
    assert open_clip_files.resolve("RN50", file).preprocess["mean"] == PREPROCESS["mean"]


def test_bare_file_of_a_model_whose_tags_differ_needs_the_tag(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"not read before the preprocessing is settled")
    differing = next(name for name in open_clip_files.open_clip.list_models() if name == "ViT-L-14")
    with pytest.raises(UserError, match="Name the tag that it was downloaded for"):
        open_clip_files.resolve(differing, str(file))
    source = open_clip_files.resolve(differing, "openai", weights=str(file))
    assert source.weights == str(file) and source.quick_gelu


def test_download_needed_while_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="offline.*encoder.weights=<file>.*encoder=mini"):
        OpenClipConfig("ViT-H-14", "laion2b_s32b_b79k").build("cpu")
    with pytest.raises(UserError, match="offline.*local-dir:"):
        OpenClipConfig("hf-hub:somebody/some-model").build("cpu")


def test_server_that_does_not_answer_is_offline_and_soon(tmp_path, monkeypatch):
    import socket
    import time

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip_files, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes the connection and never says anything
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda repository, file: f"{address}/{repository}/{file}")
        monkeypatch.setenv("no_proxy", "*")
        start = time.monotonic()
        with pytest.raises(UserError, match="offline"):
            OpenClipConfig("ViT-H-14", "laion2b_s32b_b79k").build("cpu")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"precision": "fp8"}])
def test_settings_out_of_range(tiny, change):
    with pytest.raises(UserError, match="encoder\\."):
        OpenClipConfig(f"local-dir:{tiny}", **change).build("cpu")


def test_config_imports_nothing_heavy():
    code = (
        "import sys, vlmrl.encoders.open_clip, vlmrl.encoders.mini\n"
        "print([m for m in ('torch', 'open_clip', 'torchvision') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_embeddings_for_batches_of_every_size(tiny, encoder):
    compiled = OpenClipConfig(f"local-dir:{tiny}", compile=True).build("cpu")
    for n in (1, 3, 64, 70):
        frames = pictures(n, 64, 64, seed=n)
        np.testing.assert_allclose(compiled.encode_images(frames), encoder.encode_images(frames), atol=1e-5)
    assert compiled.fingerprint != encoder.fingerprint


@pytest.mark.slow
def test_where_there_is_no_compiler_one_line_says_so(tiny, tmp_path):
    code = f"""
from vlmrl.encoders.open_clip import OpenClipConfig
from vlmrl.errors import UserError
try:
    OpenClipConfig("local-dir:{tiny}", compile=True).build("cpu")
except UserError as error:
    print(error)
"""
    # A cache of its own: what was compiled before needs no compiler.
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "needs a C++ compiler" in said.stdout and "encoder.compile=false" in said.stdout, said.stderr
