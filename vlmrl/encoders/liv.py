"""LIV: a CLIP whose cosines are values, from its released checkpoint.

Source: Ma et al.: "LIV: Language-Image Representations and Rewards for Robotic Control", 2023 (arXiv 2306.00958).
Weights that `vlmrl.fit reward=liv` makes are ordinary open_clip folders; they need nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.encoders.device import find_device
from vlmrl.encoders.open_clip import OpenClipEncoder
from vlmrl.errors import UserError
from vlmrl.typed import Count

ARCHITECTURE = "RN50"
SIZE = 224  # pixels
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP
PREFIXES = ("module.", "model.")  # of DataParallel, and of LIV around its CLIP
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # that OpenAI's files hold as tensors


@dataclass(frozen=True)
class LivConfig:
    """Settings of `encoder=liv`.

    Attributes:
        path: The released `model.pt`, or a `snapshot.pt` of LIV's own training.
        batch_size: Pictures or sentences encoded at once.
    """

    path: str = ""
    batch_size: Count = 64

    def build(self, device: str) -> LivEncoder:
        """Load the encoder onto a torch device.

        Raises:
            UserError: There is no such file, or it is no checkpoint of LIV.
        """
        return LivEncoder(self, device)


class LivPreprocess:
    """Pictures as LIV's own code makes them of tensors: bilinear without antialiasing, cropped in the middle.

    Upstream divides by 255 only where a pixel is above 10, so that nearly black pictures go in as they are; here every
    picture is divided.

    Args:
        device: Torch device.
    """

    size = (SIZE, SIZE)

    def __init__(self, device: Any):
        import torch

        self._device = device
        self._mean, self._std = (torch.tensor(own, device=device).view(1, 3, 1, 1) for own in (MEAN, STD))

    def __call__(self, frames: np.ndarray) -> Any:
        """Return (n, 3, 224, 224) float32 in the model's units from (n, H, W, 3) uint8 RGB."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2).float() / 255
        height, width = pixels.shape[2:]
        if min(height, width) != SIZE:
            short = min(height, width)
            # torchvision cuts the longer edge off to whole pixels.
            resized = (int(SIZE * height / short), int(SIZE * width / short))
            pixels = torch.nn.functional.interpolate(pixels, size=resized, mode="bilinear", align_corners=False)
        top, left = (round((edge - SIZE) / 2) for edge in pixels.shape[2:])
        return (pixels[:, :, top : top + SIZE, left : left + SIZE] - self._mean) / self._std


class LivEncoder(OpenClipEncoder):
    """LIV's CLIP in inference mode; see this module and `base.Encoder`.

    Args:
        config: Its settings.
        device: Torch device.

    Raises:
        UserError: There is no such file, or it is no checkpoint of LIV.
    """

    def __init__(self, config: LivConfig, device: str = "cpu"):
        if not config.path:
            raise UserError(
                "encoder=liv needs the released checkpoint: encoder.path=<model.pt> (hub repository jasonyma/LIV). "
                "Without it, reward=liv works with the embedded encoder, or with what vlmrl.fit reward=liv makes."
            )
        model, tokenizer = load_checkpoint(Path(config.path))
        target = find_device(device)
        self._adopt(
            f"liv/{Path(config.path).name}",
            model.to(target),
            tokenizer,
            {"model": ARCHITECTURE, "quick_gelu": True, "preprocess": "liv"},
            LivPreprocess(target),
            config.batch_size,
        )


def load_checkpoint(path: Path) -> tuple[Any, Any]:
    """Load a checkpoint of LIV into open_clip's RN50 with quick GELU, in float32.

    Its settings are not read: instantiating a downloaded configuration would run whatever it names.

    Returns:
        The model, its `visual.preprocess_cfg` set, and its tokenizer.

    Raises:
        UserError: There is no such file, or it is no checkpoint of LIV.
    """
    import pickle

    import torch

    if not path.is_file():
        raise UserError(f"encoder.path: there is no file '{path}'. Give the path of LIV's model.pt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # torch's own message would have the user switch its safety off.
        raise UserError(
            f"encoder.path: '{path}' cannot be read as weights: torch.save did not make it, it is cut short, "
            "or it holds more than tensors."
        ) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("liv"), Mapping):
        raise UserError(f"encoder.path: '{path}' has no entry 'liv'; it is no checkpoint of LIV (model.pt).")
    from vlmrl.encoders.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    import open_clip

    model = open_clip.create_model(ARCHITECTURE, force_quick_gelu=True)
    weights = map_state_dict(content["liv"])
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    wrong = [key for key in wanted.keys() & weights.keys() if wanted[key].shape != weights[key].shape]
    if missing or extra or wrong:
        raise UserError(
            f"encoder.path: '{path}' is no LIV with a CLIP of architecture {ARCHITECTURE}: {len(missing)} weights are "
            f"missing, {len(extra)} belong nowhere, {len(wrong)} have another shape "
            f"({', '.join((missing + extra + wrong)[:3])}, ...)."
        )
    model.load_state_dict(weights)
    model.visual.preprocess_cfg = {
        "size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "shortest", "fill_color": 0,
    }  # fmt: skip
    return model.float(), open_clip.get_tokenizer(ARCHITECTURE)


def map_state_dict(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Rename LIV's weights to those of a CLIP: without the prefixes of what was wrapped around it, in float32.

    The released file was saved out of DataParallel (`module.model.<key>`), those of LIV's own training were not
    (`model.<key>`). On CUDA the weights were made float16.
    """
    import torch

    renamed = {}
    for key, tensor in weights.items():
        name = key
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name not in NOT_WEIGHTS:
            renamed[name] = tensor.float() if torch.is_floating_point(tensor) else tensor
    return renamed
