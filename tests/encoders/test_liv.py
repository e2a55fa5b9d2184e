"""LIV's checkpoint: its keys and preprocessing on made weights, its published figures where the real ones are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmrl.encoders.liv import LivConfig, LivPreprocess, map_state_dict
from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.errors import UserError

WEIGHTS = Path(
    os.environ.get("VLMRL_LIV_WEIGHTS", "liv/model.pt")
)  # and beside it the README's picture, sample_video_*


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    """A CLIP of LIV's architecture with random weights."""
    from vlmrl.encoders.open_clip_files import open_clip

    torch.manual_seed(0)
    model: torch.nn.Module = open_clip.create_model("RN50", force_quick_gelu=True)
    return model.eval()


def saved(clip: torch.nn.Module, folder: Path, prefix: str = "module.model.") -> Path:
    """Write a checkpoint as LIV's code does: wrapped, half precision, with OpenAI's numbers among the weights."""
    weights = {f"{prefix}{key}": tensor.half() if tensor.is_floating_point() else tensor
               for key, tensor in clip.state_dict().items()}  # fmt: skip
    weights |= {f"{prefix}{name}": torch.tensor(value) for name, value in
                (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408))}  # fmt: skip
    path = folder / "model.pt"
    torch.save({"liv": weights, "global_step": 3}, path)
    return path


@pytest.mark.slow  # a CLIP of 100 million weights, made twice
def test_the_encoder_gives_what_its_clip_gives(clip: torch.nn.Module, tmp_path: Path) -> None:
    encoder = LivConfig(path=str(saved(clip, tmp_path))).build("cpu")
    assert (encoder.image_size, encoder.dim, encoder.name) == ((224, 224), 1024, "liv/model.pt")
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    half = {
        key: value.half().float() if value.is_floating_point() else value for key, value in clip.state_dict().items()
    }
    clip.load_state_dict(half)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        pixels = ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = torch.nn.functional.normalize(clip.encode_image(pixels), dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode_images(frames), expected, atol=1e-5)
    assert type(clip.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert np.linalg.norm(encoder.encode_texts(["open the microwave"])) == pytest.approx(1, abs=1e-5)


def test_prefixes_fall_away_and_halves_become_whole() -> None:
    half = torch.ones(2, dtype=torch.float16)
    for prefix in ("module.model.", "model.", ""):
        mapped = map_state_dict({f"{prefix}visual.conv1.weight": half, f"{prefix}vocab_size": torch.tensor(3)})
        assert list(mapped) == ["visual.conv1.weight"] and mapped["visual.conv1.weight"].dtype == torch.float32
    assert list(map_state_dict({"module.model.visual.layer1.0.model.x": half})) == ["visual.layer1.0.model.x"]


def test_pictures_are_resized_without_antialiasing_and_cropped() -> None:
    prepare_torchvision()
    from torchvision import transforms

    frames = np.random.default_rng(1).integers(0, 256, (1, 300, 448, 3), dtype=np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize(224, antialias=False),
            transforms.CenterCrop(224),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    expected = theirs(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(LivPreprocess(torch.device("cpu"))(frames), expected, atol=1e-5, rtol=0)
    dark = LivPreprocess(torch.device("cpu"))(np.full((1, 224, 224, 3), 5, np.uint8))  # upstream takes 5 for itself
    assert dark.abs().max() < 3


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"vip": {}}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="has no entry 'liv'"):
        LivConfig(path=str(tmp_path / "model.pt")).build("cpu")
    (tmp_path / "model.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as weights: torch.save did not make it.*than tensors.$"):
        LivConfig(path=str(tmp_path / "model.pt")).build("cpu")
    with pytest.raises(UserError, match="there is no file"):
        LivConfig(path=str(tmp_path / "none.pt")).build("cpu")
    with pytest.raises(UserError, match="needs the released checkpoint"):
        LivConfig().build("cpu")


@pytest.mark.slow
def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save({"liv": {"module.model.visual.conv1.weight": torch.zeros(1)}}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="no LIV with a CLIP of architecture RN50: .* weights are missing"):
        LivConfig(path=str(tmp_path / "model.pt")).build("cpu")


@pytest.mark.network  # it wants files that somebody has fetched: VLMRL_LIV_WEIGHTS=<model.pt>, a frame.png beside it
def test_the_published_figures_of_the_released_weights() -> None:
    """LIV's README: one frame, three sentences."""
    import cv2

    encoder = LivConfig(path=str(WEIGHTS)).build("cpu")
    frame = cv2.imread(str(WEIGHTS.parent / "frame.png"))[..., ::-1]
    values = (
        encoder.encode_texts(["open microwave", "close microwave", "wipe floor"])
        @ encoder.encode_images(frame[None])[0]
    )
    np.testing.assert_allclose(values, [0.1151, -0.0151, -0.0997], atol=2e-3)
