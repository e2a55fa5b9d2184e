"""Trains the embedded encoder in two stages: first the image tower on statements, then the text tower on words.

One stage for both does worse in the same time: until the sentences are told apart they give the pictures nothing to
learn from. So each statement first has a free unit vector of its own. Then, with all pictures embedded once, the text
tower learns to say the same in words, which costs no picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.workflows.mini.captions import CARTPOLE, HUMANOID, MIRRORED, all_texts, draw_captions, truth_of
from vlmrl.workflows.mini.frames import SIZE, Frames

prepare_torchvision()
import open_clip  # noqa: E402
from open_clip.model import CLIP  # noqa: E402

MEAN, STD = 0.4, 0.25  # of a frame's pixels, from 0 to 1
CONTEXT = 32  # tokens that the text tower reads
STATEMENTS = (*HUMANOID, *CARTPOLE)
# Statements that are true of every frame of their environment, hence said about the frames of all environments.
EVERYWHERE = ("robot", "pole and cart")
# What the suite's tasks are about counts more.
WEIGHT = {"kneeling": 3.0, "standing": 3.0, "upright": 3.0}
LIMIT = 0.01  # degrees are kept this far from 0 and 1, where a logit would have no end
# What the geometry is made of: points and axes, three numbers each, and three for the cart and pole.
SEEN = (
    "head",
    "torso",
    "pelvis",
    *(f"{side}_{part}" for part in ("knee", "foot", "elbow", "hand") for side in ("right", "left")),
    "torso_up",
    "torso_forward",
)
GEOMETRY = 3 * len(SEEN) + 3


@dataclass
class Model:
    """What is trained.

    Attributes:
        clip: The open_clip model; its `logit_scale` and `logit_bias` turn a cosine into the logit of a degree of truth.
        config: Content of its `open_clip_config.json`.
        table: (S, E) one vector for each of `STATEMENTS`, of any length.
        geometry: Reads positions from the image tower's features; only there to teach it, and not kept.
    """

    clip: CLIP
    config: dict[str, Any]
    table: torch.nn.Parameter
    geometry: torch.nn.Linear


def new_model(tower: str, seed: int, embed_dim: int = 128, text_width: int = 64) -> Model:
    """Build an untrained model.

    Args:
        tower: Name of a timm architecture for the pictures.
        seed: Seed of the weights.
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
    table = torch.nn.Parameter(torch.randn(len(STATEMENTS), embed_dim))
    return Model(clip, config, table, torch.nn.Linear(clip.visual.trunk.num_features, GEOMETRY))


class ImageStage:
    """Teaches the image tower which statements are true of a frame, an epoch at a time.

    The loss is the divergence from each statement's degree of truth, about the frame's own environment, plus the
    squared error of the body's geometry, which teaches the tower to see limbs long before the statements do.

    Args:
        model: What is trained, in place.
        frames: The training frames.
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
        frames: Frames,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        device: str = "cpu",
        bf16: bool = True,
    ):
        self.model, self.frames, self.device, self.bf16 = model, frames, device, bf16
        self.batch_size, self.learning_rate, self.epochs = batch_size, learning_rate, epochs
        self.epoch = 0
        self._rng = np.random.default_rng(seed)
        self._targets = [truth_table(frames, mirror) for mirror in (False, True)]
        self._mask = statement_mask(frames)
        plain, mirrored, self._known = geometry_targets(frames)
        self._geometry = [plain, mirrored]
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
        order = self._rng.permutation(len(self.frames))
        steps = max(1, len(self.frames) // self.batch_size)
        sums = np.zeros(2)
        bar = tqdm(
            range(steps),
            desc=f"image tower, epoch {self.epoch + 1} of {self.epochs}",
            unit="step",
            disable=not progress,
            mininterval=1,
        )
        for step in bar:
            for group in self._optimiser.param_groups:
                group["lr"] = self.learning_rate * one_cycle((self.epoch * steps + step) / (self.epochs * steps))
            sums += self._step(np.sort(order[step * self.batch_size : (step + 1) * self.batch_size]))
        self.epoch += 1
        return {"epoch": self.epoch, "divergence": sums[0] / steps, "geometry_error": sums[1] / steps}

    def _step(self, rows: np.ndarray) -> tuple[float, float]:
        clip, mirror = self.model.clip, int(self._rng.random() < 0.5)
        pixels = self.frames.pixels[rows]
        inputs = jitter(as_inputs(pixels[:, :, ::-1] if mirror else pixels, self.device), self._rng)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.bf16):
            features = clip.visual.trunk(inputs)
            embeddings = clip.visual.head(features)
        cosines = functional.normalize(embeddings.float(), dim=-1) @ functional.normalize(self.model.table, dim=-1).T
        logits = clip.logit_scale.exp() * cosines + clip.logit_bias
        truth = divergence(logits, self._on(self._targets[mirror], rows), self._on(self._mask, rows))
        gaps = (self.model.geometry(features.float()) - self._on(self._geometry[mirror], rows)) ** 2
        known = self._on(self._known, rows)
        shape = (gaps * known).sum() / known.sum()
        self._optimiser.zero_grad()
        (truth + 0.3 * shape).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 2.0)
        self._optimiser.step()
        return truth.item(), shape.item()

    def _on(self, table: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(table[rows]).to(self.device)

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
    frames: Frames,
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
        frames: The training frames.
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
    known: dict[str, torch.Tensor] = {}
    parameters = [
        p for name, p in model.clip.named_parameters() if not name.startswith("visual") and not name.startswith("logit")
    ]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    table = functional.normalize(model.table.detach(), dim=-1)
    scale, bias = model.clip.logit_scale.exp().detach(), model.clip.logit_bias.detach()
    pictures = torch.from_numpy(embeddings).to(device)
    human = frames.source != "cartpole"
    last: list[float] = []
    for step in tqdm(range(steps), desc="text tower", unit="step", disable=not progress, mininterval=1):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * one_cycle(step / steps)
        rows = rng.integers(len(frames), size=batch_size)
        captions = draw_captions(rng)
        for caption in captions:
            if caption.text not in known:
                known[caption.text] = tokenizer([caption.text])[0]
        texts = functional.normalize(
            model.clip.encode_text(torch.stack([known[c.text] for c in captions]).to(device)), dim=-1
        )
        truths = truth_of(captions, {name: degree[rows] for name, degree in frames.truths.items()})
        about_robot = np.array([caption.statements[0] in HUMANOID for caption in captions])
        everywhere = np.array([caption.statements[0] in EVERYWHERE for caption in captions])
        # Frames of the other environment count a little: a sentence should not be thought true of them.
        mask = np.where((human[rows][:, None] == about_robot[None]) | everywhere[None], 1.0, 0.1)
        logits = scale * pictures[torch.from_numpy(rows).to(device)] @ texts.T + bias
        loss = divergence(logits, torch.from_numpy(truths).to(device), torch.from_numpy(mask).float().to(device))
        single = [i for i, caption in enumerate(captions) if len(caption.statements) == 1]
        own = table[[STATEMENTS.index(captions[i].statements[0]) for i in single]]
        apart = (1 - (texts[single] * own).sum(dim=1)).mean()
        optimiser.zero_grad()
        (loss + 0.3 * apart).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
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

    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    # The tokens of all captions are those of their parts: words do not run into each other in this tokenizer.
    taught = torch.unique(tokenizer([text.replace(",", " , ") for text in all_texts()] + [","]))
    state = {key: value.detach().cpu().clone() for key, value in model.clip.state_dict().items()}
    untaught = torch.ones(len(state["token_embedding.weight"]), dtype=torch.bool)
    untaught[taught] = False
    state["token_embedding.weight"][untaught] = 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    path = folder / "open_clip_model.safetensors"
    save_file(
        {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}, path
    )
    path.chmod(0o644)  # safetensors makes it readable by its owner alone, which packages would carry on
    return path


def divergence(logits: torch.Tensor, degrees: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence, over what `mask` weighs, of predicted from true degrees; 0 where they agree."""
    degrees = degrees.clip(LIMIT, 1 - LIMIT)
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


def truth_table(frames: Frames, mirror: bool) -> np.ndarray:
    """Degrees of all statements, (n, S) float32, of the frames or of their mirror images."""
    return np.stack([frames.truths[MIRRORED.get(name, name) if mirror else name] for name in STATEMENTS], axis=1)


def statement_mask(frames: Frames) -> np.ndarray:
    """Weight of each statement about each frame, (n, S) float32: those of its own environment, and of `EVERYWHERE`."""
    human = frames.source != "cartpole"
    own = human[:, None] == np.array([name in HUMANOID for name in STATEMENTS])[None]
    everywhere = np.array([name in EVERYWHERE for name in STATEMENTS])[None]
    return ((own | everywhere) * np.array([WEIGHT.get(name, 1.0) for name in STATEMENTS])).astype(np.float32)


def geometry_targets(frames: Frames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions as the camera has them: (targets, targets of the mirror images, what is known), each (n, G) float32."""
    human = frames.source != "cartpole"
    view = frames.state["view"]

    def seen(mirror: bool) -> np.ndarray:
        columns = []
        for name in SEEN:
            side, _, part = name.partition("_")
            other = {"right": f"left_{part}", "left": f"right_{part}"}.get(side, name)
            at = frames.state[other if mirror else name]
            across = at[:, 0] * view[:, 1] - at[:, 1] * view[:, 0]
            columns += [(at * view).sum(axis=1), -across if mirror else across, at[:, 2]]
        return np.stack(columns, axis=1)

    plain = seen(False)
    mean, spread = (plain[human].mean(axis=0), plain[human].std(axis=0) + 1e-3) if human.any() else (0.0, 1.0)
    x, angle = frames.state.get("x"), frames.state.get("angle")
    cart = (
        np.zeros((len(frames), 3))
        if x is None or angle is None
        else np.stack([x / 1.4, np.cos(angle), np.sin(angle)], axis=1)
    )
    targets = np.concatenate([(plain - mean) / spread, cart], axis=1).astype(np.float32)
    mirrored = np.concatenate([(seen(True) - mean) / spread, cart * [-1, 1, -1]], axis=1).astype(np.float32)
    known = np.concatenate(
        [np.repeat(human[:, None], plain.shape[1], axis=1), np.repeat(~human[:, None], 3, axis=1)], axis=1
    )
    return targets, mirrored, known.astype(np.float32)


def towers() -> list[str]:
    """Return the names of the architectures that the image tower can have."""
    import timm

    return timm.list_models()
