"""Training an open_clip model so that cosines become values, step by step, from where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmrl.encoders.base import Encoder
from vlmrl.encoders.liv import ARCHITECTURE, LivConfig, LivPreprocess, load_checkpoint
from vlmrl.encoders.mini import WEIGHTS, MiniConfig
from vlmrl.encoders.open_clip import OpenClipConfig
from vlmrl.encoders.open_clip_files import CONFIG_NAME, load, resolve
from vlmrl.encoders.preprocess import Preprocess
from vlmrl.workflows.liv.clips import Clips
from vlmrl.workflows.liv.config import LivFitConfig
from vlmrl.workflows.liv.objective import Moments, liv_loss, triplet_loss
from vlmrl.workflows.report import tracked

BETAS, EPSILON = (0.9, 0.98), 1e-6  # of the release's Adam
RATIO = 3 / 4, 4 / 3  # width by height of random crops, as torchvision draws them
NEAR_END = 0.95  # share of a sub-clip after which a frame stands for its end, the release's alpha


@dataclass
class Base:
    """A model in training form.

    Attributes:
        model: The open_clip model, on its device.
        tokenizer: Its tokenizer.
        preprocess: Pictures (n, H, W, 3) uint8 to what the model takes.
        size: (height, width) of its pictures.
        config: Content of its `open_clip_config.json`.
    """

    model: Any
    tokenizer: Any
    preprocess: Any
    size: tuple[int, int]
    config: dict[str, Any]


def load_base(weights: str, device: str) -> Base:
    """Load what training starts from; see `LivFitConfig.weights`.

    Raises:
        UserError: It cannot be read.
    """
    target = torch.device(device)
    if weights and Path(weights).is_file():
        model, tokenizer = load_checkpoint(Path(weights))
        import open_clip  # which is prepared by now

        architecture = {**open_clip.get_model_config(ARCHITECTURE), "quick_gelu": True}
        preprocess = {"mean": model.visual.preprocess_cfg["mean"], "std": model.visual.preprocess_cfg["std"],
                      "interpolation": "bilinear", "resize_mode": "shortest"}  # fmt: skip
        config = {"model_cfg": architecture, "preprocess_cfg": preprocess}
        return Base(model.to(target), tokenizer, LivPreprocess(target), LivPreprocess.size, config)
    folder = Path(weights) if weights else WEIGHTS
    model, tokenizer, _ = load(resolve(f"local-dir:{folder}", ""), "fp32", target)
    own = Preprocess(model.visual.preprocess_cfg, target)
    return Base(model, tokenizer, own, own.size, json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))


def base_config(weights: str) -> LivConfig | MiniConfig | OpenClipConfig:
    """Return settings of the encoder with weights of any of the kinds of `load_base`."""
    if weights and Path(weights).is_file():
        return LivConfig(path=weights)
    return MiniConfig() if not weights else OpenClipConfig(model=f"local-dir:{weights}")


def base_encoder(weights: str, device: str) -> Encoder:
    """Load weights of any of the kinds of `load_base` as an encoder."""
    return base_config(weights).build(device)


def save(base: Base, folder: Path) -> Path:
    """Write a model in open_clip's own format, in float32; returns the weights file."""
    from safetensors.torch import save_file

    (folder / CONFIG_NAME).write_text(json.dumps(base.config, indent=2) + "\n", encoding="utf-8")
    path = folder / "open_clip_model.safetensors"
    save_file({key: value.detach().cpu().contiguous() for key, value in base.model.state_dict().items()}, path)
    return path


class Training:
    """Steps of training, the same whether or not it was interrupted on a CPU.

    What is drawn in a step follows from the seed and the step's number alone.

    Args:
        base: What is trained.
        clips: The clips.
        learned: Numbers of those that are learned from.
        config: The settings.
    """

    def __init__(self, base: Base, clips: Clips, learned: Sequence[int], config: LivFitConfig):
        self._base, self._clips, self._config = base, clips, config
        self._learned = np.array(learned)
        base.model.train().requires_grad_(True)
        self._parameters = [own for own in base.model.parameters() if own.requires_grad]
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=config.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=config.weight_decay
        )
        self.losses: list[float] = []

    def run(self, path: Path, save_every: int) -> None:
        """Do the steps that are left, and save now and then."""
        steps = self._config.steps
        bar = tracked(total=steps, initial=len(self.losses), desc="training", show=self._config.progress)
        while len(self.losses) < steps:
            self.losses.append(self._step(len(self.losses)))
            bar.update()
            bar.set_postfix(loss=f"{np.mean(self.losses[-20:]):.3f}")
            if len(self.losses) % save_every == 0:
                self.save(path)
        bar.close()
        self._base.model.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write the state of training, whole or not at all."""
        state = {
            "model": self._base.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": self.losses,
        }
        draft = path.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a state of training."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._base.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])

    def _step(self, step: int) -> float:
        config, model = self._config, self._base.model
        rng = np.random.default_rng((config.seed, step))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        n = min(config.batch_size, len(self._learned))
        chosen = rng.choice(self._learned, n, replace=False)
        frames = np.concatenate([self._stack(int(i), rng) for i in chosen])
        pictures = model.encode_image(self._base.preprocess(frames)).float()
        parts = pictures.reshape(n, 5, -1)
        moments = Moments(*(parts[:, i] for i in range(5)))
        device = pictures.device
        texts = model.encode_text(self._base.tokenizer([self._clips.texts[i] for i in chosen]).to(device)).float()
        if config.objective == "triplet":
            loss = triplet_loss(moments, texts, config.margin)
        else:
            loss = liv_loss(moments, texts, config.gamma, config.negatives, config.language_weight, generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _stack(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """Draw five frames of a clip and one crop for all of them, (5, H, W, 3) uint8."""
        frames = self._clips.of(i)
        last = len(frames) - 1
        first, told = 0, last
        if self._config.subclips and last > 1:
            first = int(rng.integers(0, last - 1))
            last = int(rng.integers(first + 1, last + 1))
            told = int(rng.integers(min(first + math.floor(NEAR_END * (last - first)), last), last + 1))
        now = int(rng.integers(first, last))
        stack = np.asarray(frames[[first, last, now, min(now + 1, last), told]])
        return crop(stack, self._config.crop, rng) if self._config.crop < 1 else stack


def crop(stack: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray:
    """Cut the same random part out of pictures and bring it back to their size, as torchvision's RandomResizedCrop.

    Args:
        stack: (n, H, W, 3) uint8.
        least: Least share of the area that is kept.
        rng: Draws it.
    """
    import cv2

    height, width = stack.shape[1:3]
    for _ in range(10):
        area = height * width * rng.uniform(least, 1)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            part = stack[:, top : top + h, left : left + w]
            return np.stack([cv2.resize(own, (width, height), interpolation=cv2.INTER_LINEAR) for own in part])
    return stack
