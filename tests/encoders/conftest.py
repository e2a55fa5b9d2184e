"""A small open_clip model with random weights, saved as a person would have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# Weights that fit this and nothing else that open_clip knows.
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}


def save_tiny(folder: Path, model_cfg: dict | None = None, preprocess: dict | None = None) -> Path:
    """Write a model of random weights to a folder that "local-dir:" reads."""
    import torch
    from safetensors.torch import save_file

    from vlmrl.encoders.open_clip_files import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg or TINY, "preprocess_cfg": preprocess or PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model; tests only read it."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")
