"""The encoder of a video-text model: which words it knows, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vlmrl.encoders.open_clip_files import CONFIG_NAME
from vlmrl.encoders.preprocess import Preprocess
from vlmrl.errors import UserError
from vlmrl.workflows.liv.train import Base
from vlmrl.workflows.video.footage import Footage
from vlmrl.workflows.video.phrases import all_sentences

SPREAD = 0.1  # of the embeddings of new words before training, as `vlmrl.workflows.mini` draws them


def resize(base: Base, size: int) -> None:
    """Let an encoder take pictures of another size.

    Args:
        base: The model, in place.
        size: Height and width in pixels.

    Raises:
        UserError: Its image tower is made for one size.
    """
    if base.size == (size, size):
        return
    vision = base.config["model_cfg"]["vision_cfg"]
    if vision.get("timm_pool") != "avg":
        raise UserError(
            f"fit.image_size={size}: the image tower of these weights is made for {base.size[0]} x {base.size[1]} "
            "pixels. Give fit.image_size=0."
        )
    vision["image_size"] = size
    base.model.visual.preprocess_cfg["size"] = (size, size)
    base.preprocess = Preprocess(base.model.visual.preprocess_cfg, next(base.model.parameters()).device)
    base.size = base.preprocess.size


def teach_words(base: Base, footage: Footage, seed: int) -> None:
    """Give words that the encoder passes over, having never been taught them, an embedding to start from.

    Args:
        base: The model, in place.
        footage: Whose sentences will be learned.
        seed: Of the embeddings.
    """
    texts = [meaning.partition(":")[2] for meaning in footage.meanings if meaning.startswith("text:")]
    tokens = torch.unique(base.tokenizer(texts or all_sentences()))
    table = base.model.token_embedding.weight
    with torch.no_grad():
        new = tokens[table[tokens.to(table.device)].abs().sum(dim=1).cpu() == 0]
        drawn = torch.randn(len(new), table.shape[1], generator=torch.Generator().manual_seed(seed))
        table[new.to(table.device)] = (SPREAD * drawn).to(table)


def save_encoder(base: Base, folder: Path) -> Path:
    """Write an encoder in open_clip's own format, in float16; returns the weights file."""
    from safetensors.torch import save_file

    (folder / CONFIG_NAME).write_text(json.dumps(base.config, indent=2) + "\n", encoding="utf-8")
    path = folder / "open_clip_model.safetensors"
    state = {key: value.detach().cpu() for key, value in base.model.state_dict().items()}
    save_file(
        {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}, path
    )
    path.chmod(0o644)  # safetensors makes it readable by its owner alone, which packages would carry on
    return path
