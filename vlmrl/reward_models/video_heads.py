"""Heads that make one embedding of a clip out of those of its frames, and the file that such a head lies in.

Sources: average and attention pooling and the adapter are MineCLIP's (Fan et al.: "MineDojo: Building Open-Ended
Embodied Agents with Internet-Scale Knowledge", 2022, arXiv 2206.08853, section 4 and its released model); the motion
branch is CLIP4MC's of 2023 (Ding et al., arXiv 2303.10571v1, section 4.2 and its released model).

The file is safetensors: the head's state by the names of its modules, and as metadata `format` (`vlmrl.video_head`),
`config` (`HeadConfig` as JSON), `encoder` (fingerprint of the encoder whose embeddings it pools) and `encoder_name`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import normalize, scaled_dot_product_attention, silu

from vlmrl.encoders.base import Encoder, video_head_of
from vlmrl.encoders.video_checkpoints import check_complete, check_there, read_video_checkpoint
from vlmrl.errors import UserError
from vlmrl.reward_models.fitted import check_file
from vlmrl.typed import Count, Natural, typed

FORMAT = "vlmrl.video_head"
GATE = 4.0  # of adapters before training: sigmoid(4) = 0.982 of a feature stays as it is
LOGIT_SCALE = math.log(1 / 0.07)  # of CLIP before training (Radford et al. 2021, section 2.5)
RELEASED_OFFSETS = (1, 2, 4, 3)  # with which CLIP4MC's weights were trained, in this order
DIM_HEAD = 64  # of the released transformers
LARGEST_LOGIT_SCALE = math.log(100)  # likewise; MineCLIP and CLIP4MC keep below it, and above its negative

Pooling = Literal["avg", "attn", "motion"]


@dataclass(frozen=True)
class HeadConfig:
    """Architecture of a head; the defaults are those of the released models.

    Attributes:
        dim: Length E of the embeddings of frames, sentences and clips.
        pooling: "avg", the mean over time; "attn", a transformer over time and the mean of what it gives; "motion",
            that and a second embedding of how frames differ.
        frames: Frames T of a clip.
        positions: Most frames that the transformers know a place for.
        depth: Layers of each transformer.
        heads: Attention heads of each layer.
        dim_head: Width of each attention head.
        widening: Width of a layer's feed-forward part, in E.
        video_adapter: Linear layers of the adapter behind the pooling; 0 is none.
        text_adapter: Likewise of the sentences.
        offsets: Of "motion": how many frames apart are the frames whose difference is looked at. The paper of 2023 has
            1, 2, 4, 8; the released weights were trained with 3 in the place of 8.

    Raises:
        UserError: They contradict each other.
    """

    dim: Count = 512
    pooling: Pooling = "attn"
    frames: Count = 16
    positions: Count = 32
    depth: Count = 2
    heads: Count = 8
    dim_head: Count = 64
    widening: Count = 4
    video_adapter: Natural = 2
    text_adapter: Natural = 0
    offsets: tuple[Count, ...] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        if self.frames > self.positions:
            raise UserError(f"A head for clips of {self.frames} frames knows only {self.positions} places in time.")
        if self.pooling == "motion" and not 0 < len(self.offsets) <= self.positions:
            raise UserError(f"A head with pooling=motion needs 1 to {self.positions} offsets, not {self.offsets}.")
        if self.pooling == "motion" and max(self.offsets) >= self.frames:
            raise UserError(f"No two of {self.frames} frames are {max(self.offsets)} apart (offsets {self.offsets}).")


class Attention(nn.Module):
    """Self-attention with a norm before it, without biases."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.query, self.key, self.value = (nn.Linear(config.dim, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, config.dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to (B, T, E)."""
        seen = self.norm(x)
        query, key, value = (
            part(seen).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A gated feed-forward part with a norm before it: a half times the other half's SiLU (Shazeer 2020, SwiGLU)."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.into = nn.Linear(config.dim, 2 * config.widening * config.dim)
        self.out = nn.Linear(config.widening * config.dim, config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to (B, T, E)."""
        values, gates = self.into(self.norm(x)).chunk(2, dim=-1)
        return self.out(values * silu(gates))


class TemporalTransformer(nn.Module):
    """A transformer over time with learned places, whose output is averaged over time."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.places = nn.Embedding(config.positions, config.dim)
        self.layers = nn.ModuleList(
            layer for _ in range(config.depth) for layer in (Attention(config), FeedForward(config))
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, E) of (B, T, E)."""
        # Places are scaled down as in the release, whose weights were trained so.
        x = x + self.places.weight[: x.shape[1]] * x.shape[2] ** -0.5
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x).mean(dim=1)


class Adapter(nn.Module):
    """A feature and what a small network makes of it, mixed by a learned gate."""

    def __init__(self, dim: int, layers: int):
        super().__init__()
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.ReLU()] * (i > 0) + [nn.Linear(dim, dim)]
        self.layers = nn.Sequential(*parts)
        self.gate = nn.Parameter(torch.tensor(GATE)) if layers else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., E) of (..., E)."""
        if self.gate is None:
            return x
        kept = torch.sigmoid(self.gate)
        return kept * x + (1 - kept) * self.layers(x)


class Motion(nn.Module):
    """How frames differ, at several distances in time: CLIP4MC's motion encoder of 2023.

    Each pair of frames, the later one first, becomes one vector; those of one distance become one over time, and those
    of all distances one. In the released weights pairs and times share the transformer of the frames.
    """

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.offsets = config.offsets
        self.pairs, self.times, self.distances = (TemporalTransformer(config) for _ in range(3))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, E), each entry within -1 and 1, of (B, T, E)."""
        at_distance = []
        for offset in self.offsets:
            pairs = torch.stack([x[:, offset:], x[:, :-offset]], dim=2)
            differences = self.pairs(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
            at_distance.append(self.times(differences))
        return 2 * torch.sigmoid(self.norm(self.distances(torch.stack(at_distance, dim=1)))) - 1


class VideoHead(nn.Module):
    """Clips and sentences into one space.

    Args:
        config: Its architecture.

    Attributes:
        source: Where its weights come from; empty while they are random. A reward refuses a head without a source.
    """

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.config = config
        self.source = ""
        self.pool = TemporalTransformer(config) if config.pooling != "avg" else None
        self.video_adapter = Adapter(config.dim, config.video_adapter)
        self.text_adapter = Adapter(config.dim, config.text_adapter)
        self.motion = Motion(config) if config.pooling == "motion" else None
        self.motion_adapter = Adapter(config.dim, config.video_adapter) if config.pooling == "motion" else None
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))

    @property
    def views(self) -> int:
        """Embeddings K of one clip: 1, or 2 with the motion branch."""
        return 1 if self.motion is None else 2

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Embed clips.

        Args:
            frames: (B, T, E) float32 embeddings of frames in the order of time.

        Returns:
            (B, K, E) float32, unit vectors: of the frames and, with the motion branch, of how they differ.

        Raises:
            ValueError: It is not T frames of E numbers.
        """
        expected = (self.config.frames, self.config.dim)
        if frames.ndim != 3 or tuple(frames.shape[1:]) != expected:
            raise ValueError(f"Expected embeddings (B, {expected[0]}, {expected[1]}), got {tuple(frames.shape)}.")
        pooled = frames.mean(dim=1) if self.pool is None else self.pool(frames)
        clips = [self.video_adapter(pooled)]
        if self.motion is not None and self.motion_adapter is not None:
            clips.append(self.motion_adapter(self.motion(frames)))
        return normalize(torch.stack(clips, dim=1), dim=-1)

    def texts(self, texts: torch.Tensor) -> torch.Tensor:
        """Return (N, E) unit vectors of the encoder's embeddings of N sentences, (N, E)."""
        return normalize(self.text_adapter(texts), dim=-1)

    def logits(self, clips: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Return (B, K, N): scaled cosines of clips (B, K, E) with sentences (N, E), both unit vectors.

        CLIP4MC scores a clip by the sum over K.
        """
        return self.logit_scale.exp() * clips @ texts.T

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the scale of the logits within 1/100 and 100, after each training step, as both papers do."""
        self.logit_scale.clamp_(-LARGEST_LOGIT_SCALE, LARGEST_LOGIT_SCALE)


def save_head(head: VideoHead, path: Path, encoder: Encoder) -> None:
    """Write a trained head; see this module for the format.

    Args:
        head: The head.
        path: File to write, `.safetensors`.
        encoder: Whose embeddings it was trained on.
    """
    from safetensors.torch import save_file

    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(head.config)),
        "encoder": encoder.fingerprint,
        "encoder_name": encoder.name,
    }
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in head.state_dict().items()}, path, metadata)
    path.chmod(0o644)  # safetensors makes it readable by its owner alone, which packages would carry on


def load_head(path: Path, encoder: Encoder) -> VideoHead:
    """Read a head that `save_head` wrote, in inference mode on the CPU.

    Args:
        path: The file.
        encoder: Whose embeddings it will be given.

    Raises:
        UserError: There is no such file, it is no head, or it was trained on another encoder's embeddings.
    """
    from safetensors import SafetensorError, safe_open

    check_file("reward.weights", str(path))
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            weights = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise UserError(f"reward.weights: '{path}' is no safetensors file ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"reward.weights: '{path}' holds weights, but not those of a head for clips (format '{FORMAT}')."
        )
    if metadata["encoder"] != encoder.fingerprint:
        raise UserError(
            f"reward.weights: '{path}' was trained on embeddings of {metadata['encoder_name']}, and this is "
            f"{encoder.name}. Take that encoder, or a head of this one."
        )
    head = VideoHead(typed(HeadConfig, json.loads(metadata["config"])))
    load_weights(head, weights, str(path))
    return head


def load_released_head(path: Path, encoder: Encoder) -> VideoHead:
    """Read the head out of a released checkpoint of MineCLIP or CLIP4MC, in inference mode on the CPU.

    Args:
        path: The checkpoint.
        encoder: The towers of the same file.

    Raises:
        UserError: It is no such checkpoint, or the encoder is not of this file.
    """
    own = video_head_of(encoder)
    if own is None or not own.is_file() or not own.samefile(path):
        raise UserError(
            f"reward.weights: the head in '{path}' reads features of the towers in that file, and the encoder is "
            f"{encoder.name}. Take encoder=mineclip encoder.path={path}, and leave reward.weights out."
        )
    found = read_video_checkpoint(path, "reward.weights")
    transformer = {name.partition(".")[2]: tensor for name, tensor in found.head.items() if name.startswith("pool.")}
    sizes = {}
    if found.pooling != "avg":
        check_there(found, found.head, ("pool.places.weight", "pool.layers.0.query.weight"), "encoder.path")
        inner = len(transformer["layers.0.query.weight"])
        layers = {name.split(".")[1] for name in transformer if name.startswith("layers.")}
        sizes = {
            "positions": len(transformer["places.weight"]),
            "depth": len(layers) // 2,
            "heads": inner // DIM_HEAD,
            "dim_head": DIM_HEAD,
        }
    if found.pooling == "motion":
        # The release trains with one transformer for times, pairs of frames and their differences.
        for name, tensor in transformer.items():
            for part in ("pairs", "times"):
                found.head.setdefault(f"motion.{part}.{name}", tensor)
        for name in [name for name in found.head if name.startswith("video_adapter.")]:
            found.head.setdefault(name.replace("video", "motion", 1), found.head[name])
    head = VideoHead(HeadConfig(dim=encoder.dim, pooling=found.pooling, offsets=RELEASED_OFFSETS, **sizes))
    check_complete(found, head.state_dict(), found.head, "encoder.path")
    load_weights(head, found.head, found.summary)
    return head


def load_weights(head: VideoHead, weights: dict[str, torch.Tensor], source: str) -> None:
    """Put weights into a head, every one in its place, and make it ready for inference.

    Args:
        head: The head.
        weights: {name of the parameter: tensor}.
        source: Where they come from.

    Raises:
        UserError: One is missing, belongs nowhere or has another shape.
    """
    wanted = head.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    wrong = [key for key in sorted(wanted.keys() & weights.keys()) if wanted[key].shape != weights[key].shape]
    if missing or extra or wrong:
        raise UserError(
            f"'{source}' does not fit a head of its own description: {len(missing)} weights are missing, {len(extra)} "
            f"belong nowhere, {len(wrong)} have another shape ({', '.join((missing + extra + wrong)[:3])}, ...)."
        )
    head.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    head.source = source
    head.eval().requires_grad_(False)
