"""MineCLIP's frames and sentences, from a released checkpoint (or CLIP4MC's, which has the same towers).

Source: Fan et al.: "MineDojo: Building Open-Ended Embodied Agents with Internet-Scale Knowledge", 2022 (arXiv
2206.08853), section 4, and its released model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.encoders.device import find_device
from vlmrl.encoders.open_clip import OpenClipEncoder
from vlmrl.encoders.video_checkpoints import VideoCheckpoint, check_complete, check_there, read_video_checkpoint
from vlmrl.errors import UserError
from vlmrl.typed import Count

SIZE = (160, 256)  # height and width in pixels
PATCH = 16  # pixels
HEAD_WIDTH = 64  # of the towers' attention
# Mean and standard deviation of pixels from 0 to 1 over the game's films, of the release.
MEAN, STD = (0.3331, 0.3245, 0.3051), (0.2439, 0.2493, 0.2873)
CARD_ENVS = ("minedojo",)
SIZED_BY = (  # weights whose shapes tell the sizes of the towers
    "visual.conv1.weight",
    "visual.positional_embedding",
    "visual.proj",
    "token_embedding.weight",
    "positional_embedding",
    "ln_final.weight",
)


@dataclass(frozen=True)
class MineClipConfig:
    """Settings of `encoder=mineclip`.

    Attributes:
        path: Released checkpoint: MineCLIP's attn.pth or avg.pth, or CLIP4MC's.
        any_env: Allow environments other than Minecraft.
        batch_size: Pictures or sentences encoded at once.
    """

    path: str = ""
    any_env: bool = False
    batch_size: Count = 64

    def build(self, device: str) -> MineClipEncoder:
        """Load the encoder onto a torch device.

        Raises:
            UserError: There is no such file, or it is no such checkpoint.
        """
        return MineClipEncoder(self, device)


class MineClipPreprocess:
    """Frames of the model's own size to its units; nothing is resized.

    Args:
        device: Torch device.
    """

    size = SIZE

    def __init__(self, device: Any):
        import torch

        self._device = device
        self._mean, self._std = (torch.tensor(own, device=device).view(1, 3, 1, 1) for own in (MEAN, STD))

    def __call__(self, frames: np.ndarray) -> Any:
        """Return (n, 3, 160, 256) float32 in the model's units from (n, 160, 256, 3) uint8 RGB."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2).float() / 255
        return (pixels - self._mean) / self._std


class MineClipEncoder(OpenClipEncoder):
    """The image and text towers of MineCLIP in inference mode; see this module and `base.Encoder`.

    Pictures become features whose length means something to the head for clips, which was trained on them as they are;
    they are not brought to unit length.

    Args:
        config: Its settings.
        device: Torch device.

    Raises:
        UserError: There is no such file, or it is no such checkpoint.

    Attributes:
        checkpoint: What became of each key of the file; without the weights.
    """

    unit_vectors = False

    def __init__(self, config: MineClipConfig, device: str = "cpu"):
        if not config.path:
            raise UserError(
                "encoder=mineclip needs a released checkpoint, and there are no weights: encoder.path=<attn.pth or "
                "avg.pth>, which MineCLIP's authors give out with their code (repository MineDojo/MineCLIP). A head of "
                "your own for another encoder: encoder=<that> reward.weights=<head.safetensors>."
            )
        path = Path(config.path)
        found = read_video_checkpoint(path)
        model, tokenizer = _build(found)
        target = find_device(device)
        self._adopt(
            f"mineclip/{path.name}",
            model.to(target),
            tokenizer,
            {"model": "ViT-B-16", "quick_gelu": True, "image_size": SIZE, "preprocess": "mineclip"},
            MineClipPreprocess(target),
            config.batch_size,
        )
        self.video_head = path
        found.clip, found.head = {}, {}
        self.checkpoint = found
        self._any_env = config.any_env

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """Embed pictures; see `base.Encoder.encode_images`.

        Args:
            frames: (n, 160, 256, 3) uint8 RGB.

        Returns:
            (n, E) float32 features, not of unit length.

        Raises:
            UserError: Another shape, or not bytes: a model that is given other pictures than it knows says nothing and
                is wrong.
        """
        check_frames(frames)
        return self._in_batches(frames, lambda batch: self._encode_image(self._preprocess(batch)), "pictures", False)

    def check_env(self, env: str) -> None:
        """See `base.Encoder.check_env`."""
        if env not in CARD_ENVS and not self._any_env:
            raise UserError(
                f"Encoder {self.name} has only seen Minecraft, and this is '{env}': its rewards would mean nothing. "
                "Take env=minedojo, or insist with encoder.any_env=true."
            )


def check_frames(frames: Any) -> None:
    """Refuse what is not (n, 160, 256, 3) uint8, and say what it looks like.

    Raises:
        UserError: It is something else.
    """
    frames = np.asarray(frames)
    shape: Sequence[int] = frames.shape
    if frames.ndim == 4 and tuple(shape[1:]) == (*SIZE, 3) and frames.dtype == np.uint8:
        return
    looks = ""
    if frames.ndim == 4 and shape[1] == 3:
        looks = " Channels come last here."
    elif frames.ndim == 4 and tuple(shape[1:3]) == SIZE[::-1]:
        looks = " Height and width look swapped."
    elif frames.dtype != np.uint8:
        looks = " Pixels are bytes, 0 to 255."
    elif frames.ndim == 5:
        looks = " Frames are embedded one by one, not by clip."
    raise UserError(f"MineCLIP looks at frames (n, {SIZE[0]}, {SIZE[1]}, 3) uint8, got {shape} {frames.dtype}.{looks}")


def _build(found: VideoCheckpoint) -> tuple[Any, Any]:
    """Make open_clip's model and tokenizer of a checkpoint, its sizes read off the weights.

    Raises:
        UserError: The checkpoint is not whole, or was made for pictures of another size.
    """
    from vlmrl.encoders.open_clip_files import quietly
    from vlmrl.encoders.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    import open_clip

    clip = found.clip
    places = (SIZE[0] // PATCH) * (SIZE[1] // PATCH) + 1
    check_there(found, clip, SIZED_BY, "encoder.path")
    seen = clip["visual.positional_embedding"].shape[0]
    if seen != places:
        raise UserError(
            f"encoder.path: '{found.path}' knows {seen} places in a picture; MineCLIP's {SIZE[0]} x {SIZE[1]} pixels "
            f"have {places}."
        )
    vision_width, text_width = clip["visual.conv1.weight"].shape[0], clip["ln_final.weight"].shape[0]
    model = open_clip.CLIP(
        embed_dim=clip["visual.proj"].shape[1],
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=_layers(clip, "visual.transformer.resblocks."),
            width=vision_width,
            head_width=HEAD_WIDTH,
            patch_size=PATCH,
            image_size=SIZE,
        ),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=clip["positional_embedding"].shape[0],
            vocab_size=clip["token_embedding.weight"].shape[0],
            width=text_width,
            heads=max(text_width // HEAD_WIDTH, 1),
            layers=_layers(clip, "transformer.resblocks."),
        ),
        quick_gelu=True,
    )
    check_complete(found, model.state_dict(), clip, "encoder.path")
    model.load_state_dict(clip)
    model.visual.preprocess_cfg = {"size": SIZE, "mean": MEAN, "std": STD}
    with quietly():
        return model, open_clip.get_tokenizer("ViT-B-16", context_length=len(clip["positional_embedding"]))


def _layers(clip: dict[str, Any], prefix: str) -> int:
    """Count the layers of a tower."""
    return 1 + max((int(name[len(prefix) :].split(".")[0]) for name in clip if name.startswith(prefix)), default=0)
