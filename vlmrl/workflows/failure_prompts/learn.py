"""Clusters of failed clips, and a prompt for each, learned in front of the task's sentence.

Source: Yang et al. 2024 (Adapt2Reward, arXiv 2407.14872): spherical k-means over failed clips of each task, a prompt a
cluster; a clip that succeeds has the task's sentence to find among it and the failures', one that fails its cluster's;
and success against failure is a loss of its own. There the video encoder is trained as well, and brought together with
films of people; here it stays as it is: each frame is embedded once, clusters do not move, only prompts are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from vlmrl.errors import UserError
from vlmrl.workflows.failure_prompts.config import FailurePromptFitConfig
from vlmrl.workflows.liv.train import Base
from vlmrl.workflows.report import tracked

ROUNDS = 50  # of k-means at most
SPREAD = 0.02  # standard deviation of prompts at the start, that of CoOp (Zhou et al. 2022, arXiv 2109.01134)


def spherical_kmeans(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Divide unit vectors into k clusters by their cosine with unit centres (Dhillon and Modha 2001).

    Centres start far from one another: each is the vector that lies farthest from those before it, the first drawn.

    Args:
        vectors: (n, E) float, unit vectors, n >= k.
        k: Number of clusters.
        seed: Of the draw.

    Returns:
        (n,) int, the cluster of each; with equal vectors some clusters may be empty.
    """
    centres = vectors[[int(np.random.default_rng(seed).integers(len(vectors)))]]
    while len(centres) < k:
        centres = np.concatenate([centres, vectors[[int((vectors @ centres.T).max(axis=1).argmin())]]])
    found = np.zeros(len(vectors), dtype=int)
    for turn in range(ROUNDS):
        closest = (vectors @ centres.T).argmax(axis=1)
        if turn and (closest == found).all():
            break
        found = closest
        for i in range(k):
            if (found == i).any():
                mean = vectors[found == i].mean(axis=0)
                centres[i] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return found


class PromptedText:
    """A text tower that reads learned tokens in front of sentences.

    Args:
        base: The model; its weights stay as they are.
        sentences: T sentences.
        k: Prompts for each sentence.
        tokens: Learned tokens of a prompt.
        seed: Of their start.

    Attributes:
        prompts: (T, k, tokens, width), what is learned.

    Raises:
        UserError: A sentence with a prompt is longer than the tower reads.
    """

    def __init__(self, base: Base, sentences: Sequence[str], k: int, tokens: int, seed: int):
        self._model = base.model.eval().requires_grad_(False)
        self._embedding = getattr(base.model, "text", base.model).token_embedding
        device = self._embedding.weight.device
        own = base.tokenizer(list(sentences)).to(device)
        room = (own == 0).sum(dim=1)
        if int(room.min()) < tokens:
            longest = sentences[int(room.argmin())]
            raise UserError(
                f"fit.tokens={tokens}: with '{longest}' that is more than the {own.shape[1]} tokens that the encoder "
                "reads. Take fewer, or a shorter sentence."
            )
        # Behind the start of the text; whose tokens these are does not matter, for their embeddings are replaced.
        filler = own[:, 1:2].expand(-1, tokens)
        self._ids = torch.cat([own[:, :1], filler, own[:, 1 : own.shape[1] - tokens]], dim=1).repeat_interleave(k, 0)
        self._shape = (len(sentences), k, tokens, self._embedding.weight.shape[1])
        generator = torch.Generator().manual_seed(seed)
        start = SPREAD * torch.randn(self._shape, generator=generator)
        self.prompts = start.to(device).requires_grad_(True)

    def embeddings(self) -> torch.Tensor:
        """Return the embeddings of all sentences with their prompts, (T, k, E), unit vectors."""

        def replaced(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            prompts = self.prompts.reshape(-1, *self._shape[2:]).to(output.dtype)
            return torch.cat([output[:, :1], prompts, output[:, 1 + self._shape[2] :]], dim=1)

        hook = self._embedding.register_forward_hook(replaced)
        try:
            texts = self._model.encode_text(self._ids).float()
        finally:
            hook.remove()
        return normalize(texts, dim=-1).reshape(*self._shape[:2], -1)


def learn(
    base: Base,
    tasks: Sequence[str],
    goals: np.ndarray,
    clips: np.ndarray,
    task_of: np.ndarray,
    done: np.ndarray,
    config: FailurePromptFitConfig,
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Learn prompts.

    Args:
        base: Model with the text tower.
        tasks: T sentences.
        goals: (T, E) float, their embeddings.
        clips: (n, E) float, unit vectors.
        task_of: (n,) int, the task of each clip.
        done: (n,) bool, which succeed.
        config: Clusters, tokens, steps.

    Returns:
        (T, K, E) float32 embeddings of the failures, (n,) int cluster of each clip (-1 where it succeeds), and the loss
        of each step.
    """
    clusters = np.full(len(clips), -1)
    for task in range(len(tasks)):
        failed = np.flatnonzero((task_of == task) & ~done)
        clusters[failed] = spherical_kmeans(clips[failed], min(config.clusters, len(failed)), config.seed)
    text = PromptedText(base, tasks, config.clusters, config.tokens, config.seed)
    device = text.prompts.device
    pictures = torch.from_numpy(np.asarray(clips, dtype=np.float32)).to(device)
    sentences = normalize(torch.from_numpy(np.asarray(goals, dtype=np.float32)).to(device), dim=-1)
    width = 1 + config.clusters  # texts of a task: its sentence, then its failures
    target = torch.from_numpy(task_of * width + 1 + clusters).to(device)  # a success' cluster is -1: the sentence
    own = torch.from_numpy(task_of).to(device)
    outcome = torch.from_numpy(done).to(device)
    optimizer = torch.optim.Adam([text.prompts], lr=config.learning_rate)
    losses: list[float] = []
    for _ in tracked(range(config.steps), desc="learning prompts", show=config.progress):
        texts = torch.cat([sentences[:, None], text.embeddings()], dim=1)
        logits = pictures @ texts.flatten(0, 1).T / config.temperature
        mine = logits.reshape(len(clips), len(tasks), width)[torch.arange(len(clips), device=device), own]
        chance = mine.log_softmax(dim=1)
        failure = chance[:, 1:].logsumexp(dim=1)
        told = -torch.where(outcome, chance[:, 0], failure).mean()
        loss = cross_entropy(logits, target) + config.outcome_weight * told
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        return text.embeddings().cpu().numpy(), clusters, losses
