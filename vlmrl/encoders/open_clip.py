"""Any open_clip model: a name and a pretrained tag, a weights file, or a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlmrl.errors import UserError


@dataclass(frozen=True)
class OpenClipConfig:
    """Settings of `encoder=open_clip`.

    Attributes:
        model: A name of `open_clip.list_models()`, "local-dir:<folder>" with an `open_clip_config.json` and weights, or
            "hf-hub:<owner>/<name>".
        pretrained: A tag that open_clip lists for the model, or a path of a weights file. Not read where `model` is a
            folder or a hub name: they bring their own weights.
        weights: Path of a weights file to load in place of what the tag would download; activation and preprocessing
            are then the tag's.
        precision: "fp32" or "bf16".
        batch_size: Pictures or sentences encoded at once.
        compile: Compile the image tower with `torch.compile`: a minute or two at start for each size of batch, then a
            few per cent faster for large transformers on a GPU, more for small ones.
    """

    model: str
    pretrained: str = ""
    weights: str = ""
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 64
    compile: bool = False

    def build(self, device: str) -> OpenClipEncoder:
        """Load the model onto a torch device such as "cpu" or "cuda".

        Raises:
            UserError: The model cannot be had; see `open_clip_files.resolve`.
        """
        return OpenClipEncoder(self, device)


class OpenClipEncoder:
    """An open_clip model in inference mode, with its own tokenizer and preprocessing. See `base.Encoder`.

    Args:
        config: Which model.
        device: Torch device.

    Raises:
        UserError: The model cannot be had, or a setting is out of range.
    """

    def __init__(self, config: OpenClipConfig, device: str = "cpu"):
        if config.batch_size < 1:
            raise UserError(f"encoder.batch_size is {config.batch_size}; it must be at least 1.")
        if config.precision not in ("fp32", "bf16"):
            raise UserError(f"encoder.precision is '{config.precision}'; it is fp32 or bf16.")
        from vlmrl.encoders.device import find_device
        from vlmrl.encoders.open_clip_files import load, resolve
        from vlmrl.encoders.preprocess import Preprocess

        source = resolve(config.model, config.pretrained, config.weights)
        target = find_device(device)
        model, tokenizer, architecture = load(source, config.precision, target)
        preprocess = Preprocess(model.visual.preprocess_cfg, target)
        self._adopt(source.label, model, tokenizer, architecture, preprocess, config.batch_size, config.precision)
        if config.compile:
            self._compile()

    def _compile(self) -> None:
        """Compile the image tower, and try it once.

        Raises:
            UserError: It cannot be compiled here.
        """
        import torch

        self._encode_image = torch.compile(self._model.encode_image)
        self._compiled = True
        try:
            self.encode_images(np.zeros((1, *self.image_size, 3), dtype=np.uint8))
        except torch._dynamo.exc.TorchDynamoException as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"encoder.compile=true: torch.compile cannot compile {self.name} here ({first}). It needs a C++ "
                "compiler (Debian: apt-get install g++), on a GPU also Triton. Without it: encoder.compile=false."
            ) from error

    def _adopt(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        architecture: Any,
        preprocess: Any,
        batch_size: int,
        precision: str = "fp32",
    ) -> None:
        """Take a loaded model, on its device, into use."""
        import torch

        self.name = name
        self.video_head: Path | None = None
        self._model, self._tokenizer, self._architecture = model, tokenizer, architecture
        self._precision = precision
        self._batch_size = batch_size
        self._encode_image, self._compiled = self._model.encode_image, False
        self._model.eval().requires_grad_(False)
        if getattr(self._model.visual, "trunk", None) is not None:
            # A layout that convolutions run faster in; it changes no value.
            self._model.visual.to(memory_format=torch.channels_last)
        self._preprocess = preprocess
        self._device = self._model.logit_scale.device
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.image_size = self._preprocess.size
        self.dim = OpenClipEncoder.encode_texts(self, ["a"]).shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of architecture, weights, preprocessing and precision, and of whether it is compiled."""
        settings = (
            self._architecture,
            self._model.visual.preprocess_cfg,
            self._precision,
            self._tokenizer.context_length,
            *(("compiled",) if self._compiled else ()),  # its last digits are others
        )
        import torch

        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """See `base.Encoder.encode_images`.

        Raises:
            ValueError: Not (n, H, W, 3) uint8.
            UserError: The model gives numbers that are not finite.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"Expected frames (n, H, W, 3) uint8, got {frames.shape} {frames.dtype}.")
        return self._in_batches(
            frames, lambda batch: self._encode_image(self._preprocess(batch).to(self._dtype)), "pictures"
        )

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `base.Encoder.encode_texts`.

        Raises:
            UserError: A sentence is empty or longer than the model reads, or the model gives numbers that are not
                finite.
        """
        texts = list(texts)
        for text in texts:
            self.check_text(text)
        return self._in_batches(
            texts, lambda batch: self._model.encode_text(self._tokenizer(batch).to(self._device)), "sentences"
        )

    def check_text(self, text: str) -> None:
        """Refuse a sentence that cannot be read whole.

        Raises:
            UserError: It is empty or longer than the model reads (the tokenizer would cut it off and say nothing).
        """
        if not text.strip():
            raise UserError(f"Encoder {self.name} was given an empty sentence; write what the picture should show.")
        limit = self._tokenizer.context_length
        length = self._token_count(text)
        if length > limit:
            raise UserError(
                f"Encoder {self.name} reads {limit} tokens; this sentence has {length}: '{text}'. Make it shorter."
            )

    def check_env(self, env: str) -> None:
        """A model trained on pictures from everywhere takes every environment."""

    def _in_batches(self, items: Any, encode: Any, what: str, unit: bool = True) -> np.ndarray:
        """Encode `batch_size` items at a time, to unit vectors if these are wanted, (n, E) float32."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(items), self._batch_size):
                features = encode(items[start : start + self._batch_size]).float()
                parts.append((torch.nn.functional.normalize(features, dim=-1) if unit else features).cpu().numpy())
        if not parts:
            return np.zeros((0, self.dim), dtype=np.float32)
        embeddings = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
            raise UserError(
                f"Encoder {self.name} ({self._precision}) gave numbers that are not finite for {bad} of "
                f"{len(embeddings)} {what}. Its weights may be damaged; with bf16, try encoder.precision=fp32."
            )
        return embeddings

    def _token_count(self, text: str) -> int:
        """Tokens of a sentence with its start and end marks, before any cutting."""
        room = 8 * self._tokenizer.context_length
        tokens = self._tokenizer([text], context_length=room)[0]
        padding = tokens[-1]
        kept = (tokens != padding).nonzero()
        return room if len(kept) == 0 else int(kept[-1]) + 1
