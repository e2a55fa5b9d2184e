"""Compares two clips by how much they look like the goal: needs no endpoint, and is the offline default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Calls, Comparison, Question, Verdict, clip_digest
from vlmrl.judges.settings import JudgeSettings
from vlmrl.typed import Positive

CHUNK = 256  # distinct frames in memory at once


@dataclass(frozen=True, kw_only=True)
class EncoderJudgeConfig(JudgeSettings):
    """Settings of `judge=encoder`.

    Attributes:
        margin: Cosine similarities that differ by less than this are a tie.
        frames: What a clip counts: "mean" of its frames' similarities, or "last", its last frame's.
        logit_scale: Factor on the difference before the logistic function, for the confidence alone. CLIP's training
            ends at 100 (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
            section 2.5): the probability that the sentence belongs to this picture of the two.
    """

    uses_encoder: ClassVar[bool] = True

    margin: float = 0.0
    frames: Literal["mean", "last"] = "mean"
    logit_scale: Positive = 100.0

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise UserError(f"judge.margin is {self.margin}; it must be at least 0.")

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> EncoderJudge:
        """See `JudgeSettings.build`; without an encoder the embedded one is loaded."""
        if encoder is None:
            from vlmrl.encoders.mini import MiniConfig

            encoder = MiniConfig().build(device)
        return EncoderJudge(self, encoder)


class EncoderJudge:
    """See this module and `base.Judge`.

    Args:
        config: How it compares.
        encoder: What looks.
    """

    name = "encoder"
    kinds = frozenset({"comparison"})
    reads_truth = False

    def __init__(self, config: EncoderJudgeConfig, encoder: Encoder):
        self._config = config
        self._encoder = encoder
        self._goals: dict[str, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        """Names the encoder and the settings."""
        config = self._config
        return f"{self._encoder.fingerprint} {config.margin} {config.frames} {config.logit_scale}"

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
        """See `base.Judge.ask`."""
        batch: list[tuple[int, Comparison]] = []
        frames = 0
        for i, question in enumerate(questions):
            assert isinstance(question, Comparison)
            batch.append((i, question))
            frames += len(question.left) + len(question.right)
            if frames >= CHUNK:
                yield from self._answer(batch)
                batch, frames = [], 0
        yield from self._answer(batch)

    def _answer(self, batch: list[tuple[int, Comparison]]) -> Iterator[tuple[int, Answer]]:
        clips = {clip_digest(clip): clip for _, question in batch for clip in (question.left, question.right)}
        embeddings = {digest: self._embed(clip) for digest, clip in clips.items()}
        for i, question in batch:
            goal = self._goal(question.goal)
            left, right = (self._score(embeddings[clip_digest(clip)], goal) for clip in (question.left, question.right))
            gap = left - right
            verdict: Verdict = "tie" if gap == 0 or abs(gap) < self._config.margin else "left" if gap > 0 else "right"
            sure = None if verdict == "tie" else float(0.5 * (1 + np.tanh(0.5 * self._config.logit_scale * abs(gap))))
            raw = f"similarity left {left:.4f}, right {right:.4f}"
            yield i, Answer(verdict, judge=self.name, model=self._encoder.name, raw=raw, confidence=sure)

    def _embed(self, clip: np.ndarray) -> np.ndarray:
        """Embed the frames of a clip that count, (n, E)."""
        return self._encoder.encode_images(clip if self._config.frames == "mean" else clip[-1:])

    def _goal(self, goal: str) -> np.ndarray:
        if goal not in self._goals:
            self._goals[goal] = self._encoder.encode_texts([goal])[0]
        return self._goals[goal]

    @staticmethod
    def _score(embeddings: np.ndarray, goal: np.ndarray) -> float:
        return float((embeddings @ goal).mean())
