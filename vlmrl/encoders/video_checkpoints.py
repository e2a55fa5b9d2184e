"""Released checkpoints of video-text models: which of their weights are whose.

A checkpoint of MineCLIP holds most of its weights two or three times, because the module that they belong to is
registered under several names (`clip_model`, `image_encoder`, `reward_head.clip_model`); one of CLIP4MC's holds those
of the modules that its motion branch shares. Each key is accounted for: used, a copy, or a reason to refuse the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmrl.errors import UserError

PREFIX = "model."  # of the module that trained MineCLIP
MD5 = {  # of the files that MineCLIP's authors give out
    "b5ece9198337cfd117a3bfbd921e56da": "MineCLIP attn",
    "d97a07f2830095a2016a8da22abcff52": "MineCLIP avg",
}

# From the names in a checkpoint to those of open_clip's CLIP ("clip:") and of a head for clips ("head:"). Where several
# lead to one weight, the first is used and the others must be its copies.
_TOWER = [
    (r"cls_token", r"visual.class_embedding"),
    (r"pos_embed", r"visual.positional_embedding"),
    (r"projection", r"visual.proj"),
    (r"blocks\.(.*)", r"visual.transformer.resblocks.\1"),
    (r"((?:conv1|ln_pre|ln_post)\..*)", r"visual.\1"),
]
_TEXT = [
    (r"pos_embed", r"positional_embedding"),
    (r"projection", r"text_projection"),
    (r"blocks\.(.*)", r"transformer.resblocks.\1"),
    (r"((?:token_embedding|ln_final)\..*)", r"\1"),
]
_TRANSFORMER = [
    (r"pos_emb\.emb\.weight", r"places.weight"),
    (r"norm\.(.*)", r"norm.\1"),
    (r"attn_layers\.layers\.(\d+)\.0\.0\.(.*)", r"layers.\1.norm.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.to_q\.(.*)", r"layers.\1.query.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.to_k\.(.*)", r"layers.\1.key.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.to_v\.(.*)", r"layers.\1.value.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.to_out\.(.*)", r"layers.\1.out.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.net\.0\.proj\.(.*)", r"layers.\1.into.\2"),
    (r"attn_layers\.layers\.(\d+)\.1\.net\.3\.(.*)", r"layers.\1.out.\2"),
]


def _rules(prefix: str, rules: list[tuple[str, str]], target: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.escape(prefix) + pattern), target + name) for pattern, name in rules]


RULES = {
    "mineclip": [
        *(rule for root in ("clip_model.", "reward_head.clip_model.") for rule in (
            *_rules(root + "vision_model.", _TOWER, "clip:"),
            *_rules(root + "text_model.", _TEXT, "clip:"),
            *_rules(root, [(r"logit_scale", r"logit_scale")], "clip:"),
        )),
        *_rules("image_encoder.", _TOWER, "clip:"),
        *_rules("temporal_encoder.attn.model.", _TRANSFORMER, "head:pool."),
        *_rules("reward_head.video_adapter.", [(r"(.*)", r"\1")], "head:video_adapter.layers."),
        *_rules("reward_head.", [(r"video_residual_weight", r"video_adapter.gate")], "head:"),
    ],
    "clip4mc": [
        *_rules("vit.", _TOWER, "clip:"),
        *_rules("gpt.", _TEXT, "clip:"),
        *_rules("", [(r"logit_scale", r"logit_scale")], "clip:"),
        *_rules("temporal_encoder.model.", _TRANSFORMER, "head:pool."),
        *_rules("difference_encoder.model.", _TRANSFORMER, "head:motion.pairs."),
        *_rules("temporal_difference_encoder.model.", _TRANSFORMER, "head:motion.times."),
        *_rules("temporal_encoder2.model.", _TRANSFORMER, "head:motion.distances."),
        *_rules("trans_layernorm.", [(r"(.*)", r"\1")], "head:motion.norm."),
        *(rule for name in ("video", "motion") for rule in (
            *_rules(f"{name}_adapter.adapter.", [(r"(.*)", r"\1")], f"head:{name}_adapter.layers."),
            *_rules(f"{name}_adapter.", [(r"residual_weight", r"gate")], f"head:{name}_adapter."),
        )),
    ],
}  # fmt: skip


@dataclass
class VideoCheckpoint:
    """A released checkpoint, sorted.

    Attributes:
        path: The file.
        kind: Whose release it is in the form of.
        digest: MD5 of the file, hexadecimal.
        clip: Weights of the two towers and the logit scale, by open_clip's names.
        head: Weights of the head for clips, by the names of `reward_models.video_heads.VideoHead`; the logit scale too.
        used: {key in the file: which weight it is}.
        copies: {key in the file: key whose values it repeats}.
        unexpected: Keys that are no weight of such a model.
    """

    path: Path
    kind: Literal["mineclip", "clip4mc"]
    digest: str
    clip: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    @property
    def pooling(self) -> Literal["avg", "attn", "motion"]:
        """How its head makes one embedding of many."""
        if any(name.startswith("motion.") for name in self.head):
            return "motion"
        return "attn" if any(name.startswith("pool.") for name in self.head) else "avg"

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        release = MD5.get(self.digest, f"not a file that MineCLIP's authors gave out (MD5 {self.digest})")
        total = len(self.used) + len(self.copies) + len(self.unexpected)
        return (
            f"{self.path.name}: {release}; {total} keys, {len(self.used)} used, {len(self.copies)} copies of these, "
            f"pooling {self.pooling}"
        )

    def report(self) -> str:
        """Return a line for every key: what became of it."""
        lines = [f"{key}  used as {name.replace(':', ' ')}" for key, name in self.used.items()]
        lines += [f"{key}  copy of {other}" for key, other in self.copies.items()]
        return "\n".join(sorted(lines) + [f"{key}  UNEXPECTED" for key in self.unexpected])


def read_video_checkpoint(path: Path, key: str = "encoder.path") -> VideoCheckpoint:
    """Read a checkpoint of MineCLIP (`attn.pth`, `avg.pth`) or CLIP4MC, and account for each of its keys.

    Args:
        path: The file.
        key: Setting that named it, for messages.

    Raises:
        UserError: There is no such file, it is none of these, or a copy differs from its original.
    """
    import pickle
    import zipfile

    import torch

    if not path.is_file():
        raise UserError(
            f"{key}: there is no file '{path}'. MineCLIP's authors give out attn.pth and avg.pth with their code "
            "(repository MineDojo/MineCLIP); this suite downloads neither."
        )
    try:
        mmap = zipfile.is_zipfile(path)  # torch.save's old form is no zip, and cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # torch's own message would have the user switch its safety off.
        raise UserError(
            f"{key}: '{path}' cannot be read as weights: torch.save did not make it, it is cut short, "
            "or it holds more than tensors."
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(v, torch.Tensor) for v in weights.values())
    ):
        raise UserError(f"{key}: '{path}' holds no state_dict; it is no checkpoint of MineCLIP or CLIP4MC.")
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    kind: Literal["mineclip", "clip4mc"] = "clip4mc" if any(name.startswith("vit.") for name in weights) else "mineclip"
    found = VideoCheckpoint(path, kind, _md5(path))
    first: dict[str, str] = {}
    for name in sorted(weights, key=lambda name: _place(kind, name)):
        target = _target(kind, name)
        if target is None:
            found.unexpected.append(name)
        elif target not in first:
            first[target] = name
            found.used[name] = target
            room, _, own = target.partition(":")
            (found.clip if room == "clip" else found.head)[own] = weights[name].float()
        elif torch.equal(weights[name], weights[first[target]]):
            found.copies[name] = first[target]
        else:
            raise UserError(
                f"{key}: in '{path}' {name} should repeat {first[target]}, and holds other values: the file is damaged "
                "or was put together from several models."
            )
    if "logit_scale" in found.clip:
        found.head["logit_scale"] = found.clip["logit_scale"]
    return found


def check_there(found: VideoCheckpoint, own: Mapping[str, Any], names: tuple[str, ...], key: str) -> None:
    """Refuse a checkpoint without the weights that its sizes are read off.

    Args:
        found: The checkpoint.
        own: The checkpoint's weights for a model, by the model's names.
        names: Those that must be there.
        key: Setting that named it, for messages.

    Raises:
        UserError: Names those that are missing.
    """
    missing = [name for name in names if name not in own]
    if missing:
        raise UserError(
            f"{key}: '{found.path}' is no checkpoint of {found.kind}: it lacks {', '.join(missing)}. Of its "
            f"{len(found.used) + len(found.copies) + len(found.unexpected)} keys {len(found.unexpected)} belong nowhere"
            + (f" ({', '.join(found.unexpected[:3])}, ...)." if found.unexpected else ".")
        )


def check_complete(found: VideoCheckpoint, wanted: Mapping[str, Any], own: Mapping[str, Any], key: str) -> None:
    """Refuse a checkpoint that does not fill a model, or has more than that.

    Args:
        found: The checkpoint.
        wanted: State of the model that it is for.
        own: The checkpoint's weights for it, by the model's names.
        key: Setting that named it, for messages.

    Raises:
        UserError: Says what is missing, unexpected, or of another shape.
    """
    missing = sorted(wanted.keys() - own.keys())
    extra = sorted(own.keys() - wanted.keys()) + found.unexpected
    wrong = [name for name in sorted(wanted.keys() & own.keys()) if wanted[name].shape != own[name].shape]
    if missing or extra or wrong:
        raise UserError(
            f"{key}: '{found.path}' is no whole checkpoint of {found.kind}: {len(missing)} weights are missing, "
            f"{len(extra)} belong nowhere, {len(wrong)} have another shape "
            f"({', '.join((missing + extra + wrong)[:4])}, ...)."
        )


def _place(kind: str, name: str) -> int:
    """Return which rule a key falls under: earlier rules hold the originals."""
    for i, (pattern, _) in enumerate(RULES[kind]):
        if pattern.fullmatch(name):
            return i
    return len(RULES[kind])


def _target(kind: str, name: str) -> str | None:
    for pattern, replacement in RULES[kind]:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(replacement)
    return None


def _md5(path: Path) -> str:
    """MD5 as the release checks it, against damage, not against forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
