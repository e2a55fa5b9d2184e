"""Made checkpoints of video-text models, under the names of the released ones, and what they compute, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import layer_norm, linear, silu

WIDTH, EMBED, DIM_HEAD = 64, 64, 64  # one head of the towers; the released ones have 768 and 512
TEMPORAL_HEADS = 2
State = dict[str, torch.Tensor]


class Maker:
    """Random weights, the same in every run."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def add(self, name: str, *shape: int, scale: float = 0.1) -> None:
        self.state[name] = scale * torch.randn(*shape, generator=self.generator)

    def norm(self, name: str, width: int) -> None:
        self.add(f"{name}.weight", width)
        self.state[f"{name}.weight"] += 1
        self.add(f"{name}.bias", width)

    def blocks(self, prefix: str, layers: int, width: int) -> None:
        for i in range(layers):
            block = f"{prefix}blocks.{i}."
            self.add(f"{block}attn.in_proj_weight", 3 * width, width)
            self.add(f"{block}attn.in_proj_bias", 3 * width)
            self.add(f"{block}attn.out_proj.weight", width, width)
            self.add(f"{block}attn.out_proj.bias", width)
            self.norm(f"{block}ln_1", width)
            self.norm(f"{block}ln_2", width)
            self.add(f"{block}mlp.c_fc.weight", 4 * width, width)
            self.add(f"{block}mlp.c_fc.bias", 4 * width)
            self.add(f"{block}mlp.c_proj.weight", width, 4 * width)
            self.add(f"{block}mlp.c_proj.bias", width)

    def vision(self, prefix: str, layers: int) -> None:
        self.add(f"{prefix}cls_token", WIDTH)
        self.add(f"{prefix}pos_embed", 161, WIDTH)
        self.add(f"{prefix}projection", WIDTH, EMBED)
        self.add(f"{prefix}conv1.weight", WIDTH, 3, 16, 16, scale=0.02)
        self.norm(f"{prefix}ln_pre", WIDTH)
        self.norm(f"{prefix}ln_post", WIDTH)
        self.blocks(prefix, layers, WIDTH)

    def text(self, prefix: str, layers: int) -> None:
        self.add(f"{prefix}token_embedding.weight", 49408, WIDTH)
        self.add(f"{prefix}pos_embed", 77, WIDTH)
        self.add(f"{prefix}projection", WIDTH, EMBED)
        self.norm(f"{prefix}ln_final", WIDTH)
        self.blocks(prefix, layers, WIDTH)

    def temporal(self, prefix: str) -> None:
        inner = TEMPORAL_HEADS * DIM_HEAD
        self.add(f"{prefix}pos_emb.emb.weight", 32, EMBED, scale=1.0)
        self.norm(f"{prefix}norm", EMBED)
        for i in (0, 2):
            layer = f"{prefix}attn_layers.layers.{i}."
            self.norm(f"{layer}0.0", EMBED)
            for name in ("to_q", "to_k", "to_v"):
                self.add(f"{layer}1.{name}.weight", inner, EMBED)
            self.add(f"{layer}1.to_out.weight", EMBED, inner)
            layer = f"{prefix}attn_layers.layers.{i + 1}."
            self.norm(f"{layer}0.0", EMBED)
            self.add(f"{layer}1.net.0.proj.weight", 8 * EMBED, EMBED)
            self.add(f"{layer}1.net.0.proj.bias", 8 * EMBED)
            self.add(f"{layer}1.net.3.weight", EMBED, 4 * EMBED)
            self.add(f"{layer}1.net.3.bias", EMBED)

    def adapter(self, prefix: str, gate: str) -> None:
        for i in (0, 2):
            self.add(f"{prefix}{i}.weight", EMBED, EMBED)
            self.add(f"{prefix}{i}.bias", EMBED)
        self.state[gate] = torch.tensor(1.5)


def mineclip_state(pooling: str = "attn", layers: int = 2, seed: int = 0) -> State:
    """Weights of a small MineCLIP under the names of the release, copies and all, without the trainer's prefix."""
    maker = Maker(seed)
    maker.vision("clip_model.vision_model.", layers)
    maker.text("clip_model.text_model.", layers)
    maker.state["clip_model.logit_scale"] = torch.tensor(3.0)
    state = dict(maker.state)
    state |= {f"reward_head.{name}": tensor.clone() for name, tensor in maker.state.items()}
    vision = "clip_model.vision_model."
    state |= {
        f"image_encoder.{name.removeprefix(vision)}": tensor.clone()
        for name, tensor in maker.state.items()
        if name.startswith(vision)
    }
    maker.state = {}
    if pooling == "attn":
        maker.temporal("temporal_encoder.attn.model.")
    maker.adapter("reward_head.video_adapter.", "reward_head.video_residual_weight")
    return state | maker.state


def clip4mc_state(layers: int = 1, seed: int = 0) -> State:
    """Weights of a small CLIP4MC of 2023 under the names of the release, which shares transformer and adapter."""
    maker = Maker(seed)
    maker.vision("vit.", layers)
    maker.text("gpt.", layers)
    maker.state["logit_scale"] = torch.tensor(3.0)
    maker.temporal("temporal_encoder.model.")
    maker.temporal("temporal_encoder2.model.")
    maker.adapter("video_adapter.adapter.", "video_adapter.residual_weight")
    maker.norm("trans_layernorm", EMBED)
    state = dict(maker.state)
    for name, tensor in maker.state.items():
        for own, shared in (
            ("temporal_encoder.", "difference_encoder."),
            ("temporal_encoder.", "temporal_difference_encoder."),
            ("video_adapter.", "motion_adapter."),
        ):
            if name.startswith(own):
                state[shared + name.removeprefix(own)] = tensor.clone()
    return state


def write(state: State, path: Path) -> Path:
    """Write a checkpoint as MineCLIP's trainer does."""
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def image_features(state: State, prefix: str, frames: np.ndarray) -> torch.Tensor:
    """What the image tower makes of (n, 160, 256, 3) frames, (n, EMBED), not normalised."""
    mean, std = torch.tensor([0.3331, 0.3245, 0.3051]), torch.tensor([0.2439, 0.2493, 0.2873])
    pixels = ((torch.from_numpy(frames).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    patches = pixels.unfold(2, 16, 16).unfold(3, 16, 16)  # (n, 3, 10, 16, 16, 16)
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(len(frames), 160, -1)
    x = flat @ state[f"{prefix}conv1.weight"].reshape(WIDTH, -1).T
    x = torch.cat([state[f"{prefix}cls_token"].expand(len(frames), 1, -1), x], dim=1) + state[f"{prefix}pos_embed"]
    x = _norm(state, f"{prefix}ln_pre", x)
    x = _blocks(state, prefix, x, None)
    return _norm(state, f"{prefix}ln_post", x[:, 0]) @ state[f"{prefix}projection"]


def text_features(state: State, prefix: str, tokens: torch.Tensor) -> torch.Tensor:
    """What the text tower makes of (n, 77) tokens, (n, EMBED), not normalised."""
    x = state[f"{prefix}token_embedding.weight"][tokens] + state[f"{prefix}pos_embed"]
    later = torch.full((77, 77), -torch.inf).triu(1)
    x = _norm(state, f"{prefix}ln_final", _blocks(state, prefix, x, later))
    return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ state[f"{prefix}projection"]


def temporal(state: State, prefix: str, x: torch.Tensor) -> torch.Tensor:
    """What a temporal transformer makes of (B, T, EMBED), averaged over time."""
    x = x + state[f"{prefix}pos_emb.emb.weight"][: x.shape[1]] / EMBED**0.5
    for i in (0, 2):
        layer = f"{prefix}attn_layers.layers.{i}."
        seen = _norm(state, f"{layer}0.0", x)
        query, key, value = (linear(seen, state[f"{layer}1.{name}.weight"]) for name in ("to_q", "to_k", "to_v"))
        parts = []
        for head in range(TEMPORAL_HEADS):
            own = slice(DIM_HEAD * head, DIM_HEAD * (head + 1))
            weights = (query[..., own] @ key[..., own].transpose(1, 2) / DIM_HEAD**0.5).softmax(dim=-1)
            parts.append(weights @ value[..., own])
        x = x + linear(torch.cat(parts, dim=-1), state[f"{layer}1.to_out.weight"])
        layer = f"{prefix}attn_layers.layers.{i + 1}."
        seen = _norm(state, f"{layer}0.0", x)
        seen = linear(seen, state[f"{layer}1.net.0.proj.weight"], state[f"{layer}1.net.0.proj.bias"])
        seen = seen[..., : 4 * EMBED] * silu(seen[..., 4 * EMBED :])
        x = x + linear(seen, state[f"{layer}1.net.3.weight"], state[f"{layer}1.net.3.bias"])
    return _norm(state, f"{prefix}norm", x).mean(dim=1)


def adapted(state: State, prefix: str, gate: str, x: torch.Tensor) -> torch.Tensor:
    """What an adapter makes of a feature."""
    hidden = linear(x, state[f"{prefix}0.weight"], state[f"{prefix}0.bias"]).relu()
    share = torch.sigmoid(state[gate])
    return share * x + (1 - share) * linear(hidden, state[f"{prefix}2.weight"], state[f"{prefix}2.bias"])


def _norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _blocks(state: State, prefix: str, x: torch.Tensor, mask: Any) -> torch.Tensor:
    layers = len([name for name in state if name.startswith(f"{prefix}blocks.") and name.endswith("ln_1.weight")])
    for i in range(layers):
        block = f"{prefix}blocks.{i}."
        seen = _norm(state, f"{block}ln_1", x)
        query, key, value = linear(
            seen, state[f"{block}attn.in_proj_weight"], state[f"{block}attn.in_proj_bias"]
        ).chunk(3, dim=-1)
        weights = query @ key.transpose(1, 2) / WIDTH**0.5  # one head
        seen = (weights + mask if mask is not None else weights).softmax(dim=-1) @ value
        x = x + linear(seen, state[f"{block}attn.out_proj.weight"], state[f"{block}attn.out_proj.bias"])
        seen = _norm(state, f"{block}ln_2", x)
        seen = linear(seen, state[f"{block}mlp.c_fc.weight"], state[f"{block}mlp.c_fc.bias"])
        seen = seen * torch.sigmoid(1.702 * seen)
        x = x + linear(seen, state[f"{block}mlp.c_proj.weight"], state[f"{block}mlp.c_proj.bias"])
    return x
