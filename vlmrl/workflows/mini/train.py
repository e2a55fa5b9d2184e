"""Trains the embedded encoder in two stages: first the image tower on statements, then the text tower on words.

One stage for both does worse in the same time: until the sentences are told apart they give the pictures nothing to
learn from. So each statement first has a free unit vector of its own, and so has each pair of statements that a
sentence may join. Then, with all pictures embedded once, the text tower learns to say the same in words, which costs no
picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.workflows.mini.captions import (
    FILLER,
    all_texts,
    draw_captions,
    truth_of,
    with_filler,
)
from vlmrl.workflows.mini.frames import SIZE
from vlmrl.workflows.mini.lesson import JOINED, STATEMENTS, Lesson, statement_weights
from vlmrl.workflows.report import tracked

prepare_torchvision()
import open_clip  # noqa: E402
from open_clip.model import CLIP  # noqa: E402

MEAN, STD = 0.4, 0.25  # of a frame's pixels, from 0 to 1
CONTEXT = 32  # tokens that the text tower reads
LIMIT = 0.01  # degrees are kept this far from 0 and 1, where a logit would have no end
GEOMETRY = 0.6  # weight of the geometry's error beside the divergence
ELSEWHERE = 0.15  # weight of a sentence about the frames of environments that it is not about
FILLED = 0.15  # share of sentences that hold a word that is not taught


@dataclass
class Model:
    """What is trained.

    Attributes:
        clip: The open_clip model; its `logit_scale` and `logit_bias` turn a cosine into the logit of a degree of truth.
        config: Content of its `open_clip_config.json`.
        table: (S + J, E) one vector for each of `STATEMENTS` and of `JOINED`, of any length.
        geometry: Reads where things are from the image tower's features; only there to teach it, and not kept.
    """

    clip: CLIP
    config: dict[str, Any]
    table: torch.nn.Parameter
    geometry: torch.nn.Linear


def new_model(tower: str, seed: int, geometry: int, embed_dim: int = 128, text_width: int = 64) -> Model:
    """Build an untrained model.

    Args:
        tower: Name of a timm architecture for the pictures.
        seed: Seed of the weights.
        geometry: Columns G of `Lesson.geometry`.
        embed_dim: Length E of an embedding.
        text_width: Width of the two-layer text tower.
    """
    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "model_cfg": {
            "embed_dim": embed_dim,
            "init_logit_scale": float(np.log(10)),
            "init_logit_bias": -2.0,
            "vision_cfg": {
                "timm_model_name": tower,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "mlp",
                "image_size": SIZE,
            },
            "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": text_width, "heads": 4, "layers": 2},
        },
        "preprocess_cfg": {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    clip = CLIP(**config["model_cfg"])
    clip.visual.to(memory_format=torch.channels_last)
    torch.nn.init.normal_(clip.token_embedding.weight, std=0.1)
    table = torch.nn.Parameter(torch.randn(len(STATEMENTS) + len(JOINED), embed_dim))
    return Model(clip, config, table, torch.nn.Linear(clip.visual.trunk.num_features, geometry))


class ImageStage:
    """Teaches the image tower which statements are true of a frame, an epoch at a time.

    The loss is the divergence from each statement's degree of truth, where the frame's scene knows it, plus the squared
    error of the geometry, which teaches the tower to see limbs long before the statements do.

    Args:
        model: What is trained, in place.
        lesson: The training frames.
        epochs: Passes over the frames that the learning rate is planned for (one cycle, as in Smith and Topin 2018).
        batch_size: Frames a step.
        learning_rate: Highest learning rate.
        seed: Seed of order, mirroring and jitter.
        device: Torch device.
        bf16: Compute products in bfloat16.
    """

    def __init__(
        self,
        model: Model,
        lesson: Lesson,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        device: str = "cpu",
        bf16: bool = True,
    ):
        self.model, self.lesson, self.device, self.bf16 = model, lesson, device, bf16
        self.batch_size, self.learning_rate, self.epochs = batch_size, learning_rate, epochs
        self.epoch = 0
        self._rng = np.random.default_rng(seed)
        self._weights = statement_weights()
        self._parts = torch.nn.ModuleDict({"clip": model.clip, "geometry": model.geometry})
        self._parts.register_parameter("table", model.table)
        self._parts.to(device)
        clip = model.clip
        self._parameters = [
            *clip.visual.parameters(),
            model.table,
            *model.geometry.parameters(),
            clip.logit_scale,
            clip.logit_bias,
        ]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98))

    def run_epoch(self, progress: bool = True) -> dict[str, float]:
        """Pass over the frames once; return mean `divergence` (0 where all degrees are met) and `geometry_error`."""
        self._parts.train()
        order = self._rng.permutation(len(self.lesson))
        steps = max(1, len(self.lesson) // self.batch_size)
        sums = np.zeros(2)
        bar = tracked(
            range(steps),
            desc=f"image tower, epoch {self.epoch + 1} of {self.epochs}",
            unit="step",
            show=progress,
            mininterval=1,
        )
        for step in bar:
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate * one_cycle((self.epoch * steps + step) / (self.epochs * steps))
            sums += self._step(order[step * self.batch_size : (step + 1) * self.batch_size])
        self.epoch += 1
        return {"epoch": self.epoch, "divergence": sums[0] / steps, "geometry_error": sums[1] / steps}

    def _step(self, rows: np.ndarray) -> tuple[float, float]:
        clip, lesson = self.model.clip, self.lesson
        mirror = lesson.mirrors[rows] & (self._rng.random(len(rows)) < 0.5)
        pixels = lesson.pixels[rows]
        pixels[mirror] = pixels[mirror, :, ::-1]
        inputs = jitter(as_inputs(pixels, self.device), self._rng)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.bf16):
            features = clip.visual.trunk(inputs)
            embeddings = clip.visual.head(features)
        cosines = functional.normalize(embeddings.float(), dim=-1) @ functional.normalize(self.model.table, dim=-1).T
        logits = clip.logit_scale.exp() * cosines + clip.logit_bias
        degrees = lesson.degrees(rows, mirror)
        truth = divergence(logits, self._tensor(degrees), self._tensor(np.isfinite(degrees) * self._weights))
        shape = np.where(mirror[:, None], lesson.mirrored_geometry[rows], lesson.geometry[rows])
        known = self._tensor(np.isfinite(shape))
        gaps = (self.model.geometry(features.float()) - self._tensor(np.nan_to_num(shape))) ** 2
        error = (gaps * known).sum() / known.sum()
        self._optimiser.zero_grad()
        (truth + GEOMETRY * error).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 2.0)
        self._optimiser.step()
        return truth.item(), error.item()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(self.device)

    def save(self, path: Path) -> None:
        """Write a checkpoint that `load` goes on from as if nothing had happened."""
        state = {
            "parts": self._parts.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "rng": self._rng.bit_generator.state,
            "epoch": self.epoch,
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # never a half-written file under the name

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same model and frames."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self._parts.load_state_dict(state["parts"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._rng.bit_generator.state = state["rng"]
        self.epoch = state["epoch"]


def one_cycle(part: float, rising: float = 0.15) -> float:
    """Learning rate at a part (0 to 1) of a training, as a share of the highest: up for `rising` of it, then down."""
    if part < rising:
        return 0.04 + 0.96 * (1 - np.cos(np.pi * part / rising)) / 2
    return float((1 + np.cos(np.pi * (part - rising) / (1 - rising))) / 2)


def train_texts(
    model: Model,
    lesson: Lesson,
    embeddings: np.ndarray,
    *,
    steps: int,
    seed: int,
    batch_size: int = 512,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    progress: bool = True,
) -> float:
    """Teach the text tower to point where the statements' vectors point, given the frames' embeddings.

    Args:
        model: Its image tower is trained; it is left as it is, and so are scale and bias.
        lesson: The training frames.
        embeddings: (n, E) float32, their unit embeddings.
        steps: Number of steps.
        seed: Seed.
        batch_size: Frames a step.
        learning_rate: Highest learning rate.
        device: Torch device.
        progress: Show a progress bar.

    Returns:
        The mean divergence of the last tenth of the steps.
    """
    rng = np.random.default_rng(seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    filler = tokenizer.encode(FILLER)
    untaught = torch.ones(model.clip.token_embedding.num_embeddings, dtype=torch.bool)
    untaught[taught_tokens(tokenizer)] = False
    words = model.clip.token_embedding.weight
    with torch.no_grad():
        words[untaught.to(words.device)] = 0
    known: dict[str, torch.Tensor] = {}
    parameters = [
        p for name, p in model.clip.named_parameters() if not name.startswith("visual") and not name.startswith("logit")
    ]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    table = functional.normalize(model.table.detach(), dim=-1)
    places: dict[tuple[str, ...], int] = {(name,): i for i, name in enumerate(STATEMENTS)}
    places |= {pair: len(STATEMENTS) + i for i, pair in enumerate(JOINED)}
    scale, bias = model.clip.logit_scale.exp().detach(), model.clip.logit_bias.detach()
    pictures = torch.from_numpy(embeddings).to(device)
    last: list[float] = []
    for step in tracked(range(steps), desc="text tower", unit="step", show=progress, mininterval=1):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * one_cycle(step / steps)
        rows = rng.integers(len(lesson), size=batch_size)
        captions = draw_captions(rng)
        sentences = [with_filler(rng, c.text) if rng.random() < FILLED else c.text for c in captions]
        for text in sentences:
            if text not in known:
                known[text] = tokenizer([text])[0]
        texts = functional.normalize(
            model.clip.encode_text(torch.stack([known[text] for text in sentences]).to(device)), dim=-1
        )
        truths = truth_of(captions, {name: degree[rows] for name, degree in lesson.truths.items()})
        # Frames of other environments count a little: a sentence should not be thought true of them.
        own = np.stack([lesson.truths[caption.statements[0]][rows] == 1 for caption in captions], axis=1)
        mask = np.where(np.isfinite(truths), np.where(own, 1.0, ELSEWHERE), 0.0).astype(np.float32)
        logits = scale * pictures[torch.from_numpy(rows).to(device)] @ texts.T + bias
        loss = divergence(logits, torch.from_numpy(truths).to(device), torch.from_numpy(mask).to(device))
        target = table[[places[caption.statements[1:]] for caption in captions]]
        apart = (1 - (texts * target).sum(dim=1)).mean()
        optimiser.zero_grad()
        (loss + 0.3 * apart).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            words[filler] = 0
        if step >= steps - max(1, steps // 10):
            last.append(loss.item())
    return float(np.mean(last)) if last else float("nan")


def embed(model: Model, pixels: np.ndarray, device: str = "cpu", batch_size: int = 128) -> np.ndarray:
    """Return the unit embeddings, (n, E) float32, of (n, 112, 112, 3) uint8 frames."""
    model.clip.eval()
    with torch.inference_mode():
        parts = [
            functional.normalize(model.clip.encode_image(as_inputs(pixels[i : i + batch_size], device)), dim=-1)
            .cpu()
            .numpy()
            for i in range(0, len(pixels), batch_size)
        ]
    return np.concatenate(parts)


def save_model(model: Model, folder: Path) -> Path:
    """Write the model in open_clip's own format, `local-dir:<folder>` loads it; returns the weights file.

    Weights are float16. The embeddings of words that no caption holds are zero, so that they are passed over.
    """
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().clone() for key, value in model.clip.state_dict().items()}
    untaught = torch.ones(len(state["token_embedding.weight"]), dtype=torch.bool)
    untaught[taught_tokens(open_clip.SimpleTokenizer(context_length=CONTEXT))] = False
    state["token_embedding.weight"][untaught] = 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    path = folder / "open_clip_model.safetensors"
    save_file(
        {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}, path
    )
    path.chmod(0o644)  # safetensors makes it readable by its owner alone, which packages would carry on
    return path


def taught_tokens(tokenizer: Any) -> torch.Tensor:
    """Return the tokens that the training sentences are made of; words do not run into each other in this tokenizer."""
    return torch.unique(tokenizer([text.replace(",", " , ") for text in all_texts()] + [","]))


def divergence(logits: torch.Tensor, degrees: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence, over what `mask` weighs, of predicted from true degrees; 0 where they agree.

    A degree of NaN is unknown; its mask must be 0.
    """
    degrees = degrees.nan_to_num().clip(LIMIT, 1 - LIMIT)
    excess = functional.binary_cross_entropy_with_logits(
        logits, degrees, reduction="none"
    ) - functional.binary_cross_entropy(degrees, degrees, reduction="none")
    return (excess * mask).sum() / mask.sum()


def as_inputs(pixels: np.ndarray, device: str) -> torch.Tensor:
    """Normalise (n, H, W, 3) uint8 frames to the model's input, (n, 3, H, W) float32."""
    inputs = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float()
    return (inputs / 255 - MEAN) / STD


def jitter(inputs: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change contrast, brightness and tint of each picture a little."""
    n = len(inputs)
    contrast, brightness, tint = (
        rng.uniform(0.8, 1.25, (n, 1, 1, 1)),
        rng.uniform(-0.3, 0.3, (n, 1, 1, 1)),
        rng.uniform(-0.15, 0.15, (n, 3, 1, 1)),
    )
    factor, shift = (torch.from_numpy(values).float().to(inputs.device) for values in (contrast, brightness + tint))
    return (inputs * factor + shift).contiguous(memory_format=torch.channels_last)


def towers() -> list[str]:
    """Return the names of the architectures that the image tower can have."""
    import timm

    return timm.list_models()
