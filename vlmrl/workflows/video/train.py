"""Training of a video-text model: first what frames show, then what clips show, in words.

The image tower learns from the game what is in a frame: inventory, what is faced, what is seen. Then all frames are
embedded once, and a head over the embeddings of a clip's frames, and the text tower, learn which sentence a clip shows;
that costs no picture, so that there are many steps. Single frames and sentences about them are learned beside it, so
that the text tower keeps speaking of pictures, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vlmrl.reward_models.video_heads import HeadConfig, VideoHead
from vlmrl.workflows.liv.train import Base
from vlmrl.workflows.mini.train import one_cycle
from vlmrl.workflows.report import tracked
from vlmrl.workflows.video import phrases
from vlmrl.workflows.video.config import VideoFitConfig
from vlmrl.workflows.video.footage import Footage, say
from vlmrl.workflows.video.objective import video_loss
from vlmrl.workflows.video.play import FACED, STATE

BATCH = 64  # frames a step of the image tower
SHARP = 8.0  # length that unit embeddings are given before the game's facts are read from them
IMAGE_WEIGHT = 0.5  # of the loss of single frames beside that of clips
AMOUNTS = sum(name.startswith("has ") for name in STATE)  # columns of the inventory
NIGHT, WEAK, CLEAR = 0.4, 0.4, 0.5  # daylight and health below which, and what else above which, a statement is true


class ImageStage:
    """Teaches the image tower what a frame shows, an epoch at a time.

    A linear map, thrown away in the end, reads the columns of `STATE` from a frame's embedding: amounts by their
    squared error, what is faced by cross-entropy, the rest by binary cross-entropy.

    Args:
        base: The model.
        footage: Frames with their states.
        rows: Numbers of the frames that are learned from.
        config: The settings.
    """

    def __init__(self, base: Base, footage: Footage, rows: np.ndarray, config: VideoFitConfig):
        assert footage.state is not None
        self._base, self._rows, self._config = base, rows, config
        self._frames, self._state = footage.frames, footage.state
        torch.manual_seed(config.seed)
        self._read = torch.nn.Linear(int(base.config["model_cfg"]["embed_dim"]), len(STATE)).to(config.device)
        self._parameters = [*base.model.visual.parameters(), *self._read.parameters()]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=config.image_learning_rate, weight_decay=0.02)
        self.epoch = 0

    def run_epoch(self) -> float:
        """Pass over the frames once; return the mean loss."""
        visual = self._base.model.visual
        visual.train().requires_grad_(True)
        rng = np.random.default_rng((self._config.seed, self.epoch))
        order = rng.permutation(self._rows)
        steps = max(1, len(order) // BATCH)
        losses = []
        bar = tracked(
            range(steps),
            desc=f"frames, pass {self.epoch + 1} of {self._config.image_epochs}",
            unit="step",
            show=self._config.progress,
            mininterval=1,
        )
        for step in bar:
            part = (self.epoch * steps + step) / (self._config.image_epochs * steps)
            for group in self._optimiser.param_groups:
                group["lr"] = self._config.image_learning_rate * one_cycle(part)
            losses.append(self._step(np.sort(order[step * BATCH : (step + 1) * BATCH])))
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
        self.epoch += 1
        visual.eval().requires_grad_(False)
        return float(np.mean(losses))

    def _step(self, rows: np.ndarray) -> float:
        device = self._config.device
        inputs = self._base.preprocess(self._frames[rows]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            embeddings = self._base.model.encode_image(inputs)
        read = self._read(SHARP * functional.normalize(embeddings.float(), dim=-1))
        state = torch.from_numpy(self._state[rows]).to(device)
        faced = slice(AMOUNTS, AMOUNTS + len(FACED))
        seen = slice(faced.stop, len(STATE))
        loss = 20 * functional.mse_loss(read[:, :AMOUNTS], state[:, :AMOUNTS])
        loss = loss + 0.3 * functional.cross_entropy(read[:, faced], state[:, faced].argmax(dim=1))
        loss = loss + functional.binary_cross_entropy_with_logits(read[:, seen], state[:, seen])
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 2.0)
        self._optimiser.step()
        return loss.item()

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        _write(
            {
                "visual": self._base.model.visual.state_dict(),
                "read": self._read.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "epoch": self.epoch,
            },
            path,
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self._config.device, weights_only=True)
        self._base.model.visual.load_state_dict(state["visual"])
        self._read.load_state_dict(state["read"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]


def embed(base: Base, frames: np.ndarray, device: str, progress: bool) -> np.ndarray:
    """Embed frames (N, H, W, 3) uint8 with the image tower: unit vectors, (N, E) float32."""
    parts = []
    base.model.eval()  # as it comes, it is ready to be trained
    with torch.inference_mode():
        for start in tracked(range(0, len(frames), 128), desc="embedding frames", unit="batch", show=progress):
            features = base.model.encode_image(base.preprocess(frames[start : start + 128])).float()
            parts.append(functional.normalize(features, dim=-1).cpu().numpy())
    return np.concatenate(parts)


class ClipStage:
    """Teaches a head and the text tower which sentence a clip shows, the same whether or not it was interrupted.

    What is drawn in a step follows from the seed and the step's number alone. Rare meanings are drawn more often than
    they come: by the root of their number.

    Args:
        base: The model.
        footage: The clips.
        embeddings: (N, E) float32 of all frames.
        rows: Numbers of the clips that are learned from.
        config: The settings.
    """

    def __init__(self, base: Base, footage: Footage, embeddings: np.ndarray, rows: np.ndarray, config: VideoFitConfig):
        self._base, self._footage, self._config = base, footage, config
        self._embeddings = torch.from_numpy(embeddings).to(config.device)
        dim = embeddings.shape[1]
        torch.manual_seed(config.seed)
        width = min(64, max(8, dim // 4))  # of an attention head: four make one embedding
        offsets = tuple(offset for offset in (1, 2, 4, 8) if offset < config.frames)
        positions = max(32, config.frames)
        self.head = VideoHead(
            HeadConfig(
                dim,
                config.pooling,
                config.frames,
                positions,
                config.depth,
                4,
                width,
                widening=2,
                offsets=offsets or (1,),
            )
        ).to(config.device)
        # One frame is its own clip: only the scale of its logits is learned.
        self._single = VideoHead(HeadConfig(dim, "avg", 1, video_adapter=0)).to(config.device)
        towers = [value for name, value in base.model.named_parameters() if not name.startswith(("visual", "logit"))]
        self._texts = towers if config.text else []
        for value in base.model.parameters():
            value.requires_grad_(False)
        for value in self._texts:
            value.requires_grad_(True)
        self._parameters = [*self.head.parameters(), *self._single.parameters(), *self._texts]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=config.learning_rate, weight_decay=0.02)
        self._by_meaning: dict[str, np.ndarray] = {}
        for meaning in footage.meanings:
            own = np.array([row for row in rows.tolist() if meaning in footage.shown[row]], dtype=np.int64)
            if len(own):
                self._by_meaning[meaning] = own
        counts = np.sqrt([len(own) for own in self._by_meaning.values()])
        self._chances = counts / counts.sum()
        self._statements = (
            statements(footage.state, np.unique(footage.clips[rows])) if footage.state is not None else {}
        )
        self.losses: list[float] = []

    def run(self, path: Path, save_every: int) -> None:
        """Do the steps that are left, and save now and then."""
        config = self._config
        self.head.train()
        bar = tracked(total=config.steps, initial=len(self.losses), desc="clips", unit="step", show=config.progress)
        while len(self.losses) < config.steps:
            for group in self._optimiser.param_groups:
                group["lr"] = config.learning_rate * one_cycle(len(self.losses) / config.steps)
            self.losses.append(self._step(len(self.losses)))
            bar.update()
            bar.set_postfix(loss=f"{np.mean(self.losses[-50:]):.3f}")
            if len(self.losses) % save_every == 0:
                self.save(path)
        bar.close()
        self.head.eval()
        self._base.model.requires_grad_(False)

    def _step(self, step: int) -> float:
        config, footage = self._config, self._footage
        rng = np.random.default_rng((config.seed, 1, step))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        meanings = rng.choice(list(self._by_meaning), config.batch_size, p=self._chances).tolist()
        clips = [int(rng.choice(self._by_meaning[meaning])) for meaning in meanings]
        # One way to say each meaning: two ways would count as two meanings.
        words = {meaning: say(meaning, rng) for meaning in sorted(set(meanings))}
        sizes = None
        if config.completion:
            sizes = torch.tensor([footage.size(clip, own) for clip, own in zip(clips, meanings, strict=True)])
        frames = self._embeddings[torch.from_numpy(footage.clips[clips])]
        spread = config.noise / frames.shape[-1] ** 0.5
        frames = functional.normalize(frames + spread * self._draw(frames.shape, generator), dim=-1)
        texts = self._encode([words[meaning] for meaning in meanings])
        loss = video_loss(self.head, frames, texts, generator, sizes)
        if self._statements and config.text:
            loss = loss + IMAGE_WEIGHT * self._still_loss(rng, generator)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self.head.clamp_logit_scale()
        return loss.item()

    def _draw(self, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(self._config.device)

    def _still_loss(self, rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
        """Loss of single frames and sentences about what they show."""
        said = phrases.state_sentences()
        names = rng.choice(list(self._statements), self._config.batch_size).tolist()
        rows = [int(rng.choice(self._statements[name])) for name in names]
        words = {name: str(rng.choice(said[name])) for name in sorted(set(names))}
        texts = self._encode([words[name] for name in names])
        return video_loss(self._single, self._embeddings[torch.tensor(rows)][:, None], texts, generator)

    def _encode(self, texts: list[str]) -> torch.Tensor:
        distinct = sorted(set(texts))
        tokens = self._base.tokenizer(distinct).to(self._config.device)
        encoded = functional.normalize(self._base.model.encode_text(tokens).float(), dim=-1)
        return encoded[[distinct.index(text) for text in texts]]

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        _write(
            {
                "model": self._base.model.state_dict(),
                "head": self.head.state_dict(),
                "single": self._single.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "losses": self.losses,
            },
            path,
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self._config.device, weights_only=True)
        self._base.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self._single.load_state_dict(state["single"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.losses = list(state["losses"])


def statements(state: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return {statement: numbers of the frames that it is true of}, of those that are true of any.

    Args:
        state: (N, S) float32, see `play.STATE`.
        rows: Frames to look at.
    """
    column = {name: state[rows, i] for i, name in enumerate(STATE)}
    true: dict[str, np.ndarray] = {}
    for name in phrases.state_sentences():
        if name == "night":
            holds = column["daylight"] < NIGHT
        elif name == "weak":
            holds = column["has health"] < WEAK
        elif name.startswith("has "):
            holds = column[name] > 0
        else:
            holds = column[name] > CLEAR
        if holds.any():
            true[name] = rows[holds]
    return true


def _write(state: dict[str, Any], path: Path) -> None:
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    draft.replace(path)
