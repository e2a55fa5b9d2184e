"""Features in which clips that people prefer lie closer to the demonstrations.

Source: Tian et al. 2023 (RAPL, arXiv 2310.07932): preferences follow a Bradley-Terry model of the rewards that optimal
transport gives, and what is learned is what it compares. RAPL trains the encoder; here it stays as it is, so that every
frame is embedded once, and a projection of its embeddings is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import normalize, softplus

from vlmrl.reward_models.optimal_transport import Demonstrations, cosine_distances, transport
from vlmrl.workflows.optimal_transport.config import OptimalTransportFitConfig
from vlmrl.workflows.report import tracked

ITERATIONS = 50  # of Sinkhorn's algorithm; the plan only weighs a gradient


def principal(demonstrations: Demonstrations, clips: Sequence[np.ndarray], dim: int) -> Demonstrations:
    """Return demonstrations compared by the directions in which frames differ most: where alignment starts.

    Args:
        demonstrations: Compared by their embeddings.
        clips: (T, E) embeddings that are learned from.
        dim: Number of directions, at most E.
    """
    frames = np.concatenate([*clips, demonstrations.frames]).astype(np.float64)
    mean = frames.mean(axis=0)
    _, _, directions = np.linalg.svd(frames - mean, full_matrices=False)
    return replace(
        demonstrations, mean=mean.astype(np.float32), projection=directions[:dim].T.astype(np.float32).copy()
    )


def align(
    demonstrations: Demonstrations,
    clips: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    config: OptimalTransportFitConfig,
) -> tuple[Demonstrations, list[float]]:
    """Learn the projection.

    A plan is optimal for its costs, so that the cost's gradient is that of the costs under the plan as it is (the
    envelope theorem): plans are found anew at each step, and nothing flows through them.

    Args:
        demonstrations: With the projection to start from.
        clips: (T, E) embeddings.
        pairs: (better, worse) positions in `clips`.
        config: Steps, batch, temperature.

    Returns:
        The demonstrations with the learned projection, and the loss of each step.
    """
    rng = np.random.default_rng(config.seed)
    projection = torch.tensor(demonstrations.projection, requires_grad=True)
    mean = torch.from_numpy(demonstrations.mean)
    wanted = [
        torch.from_numpy(demonstrations.frames[a:b]) - mean
        for a, b in zip(demonstrations.starts[:-1], demonstrations.starts[1:], strict=True)
    ]
    centred = [torch.from_numpy(np.asarray(clip, dtype=np.float32)) - mean for clip in clips]
    optimizer = torch.optim.Adam([projection], lr=config.learning_rate)
    losses: list[float] = []
    for _ in tracked(range(config.steps), desc="aligning", show=config.progress):
        batch = [pairs[i] for i in rng.permutation(len(pairs))[: config.batch_size]]
        there = [normalize(clip @ projection, dim=1) for clip in wanted]
        costs = {
            i: _cost(normalize(centred[i] @ projection, dim=1), there, config.epsilon)
            for i in {i for pair in batch for i in pair}
        }
        gaps = torch.stack([costs[worse] - costs[better] for better, worse in batch]) / config.temperature
        loss = softplus(-gaps).mean()  # -log sigmoid
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return replace(demonstrations, projection=projection.detach().numpy().copy()), losses


def costs(demonstrations: Demonstrations, clips: Sequence[np.ndarray], epsilon: float) -> np.ndarray:
    """Return what carrying each clip to the closest demonstration costs, (n,) float64, 0 to 2."""
    wanted = demonstrations.clips()
    found = []
    for clip in clips:
        features = demonstrations.features(clip)
        found.append(min(_plan_cost(cosine_distances(features, other), epsilon) for other in wanted))
    return np.array(found)


def _plan_cost(cost: np.ndarray, epsilon: float) -> float:
    return float((transport(cost, epsilon, ITERATIONS)[0] * cost).sum())


def _cost(features: torch.Tensor, wanted: Sequence[torch.Tensor], epsilon: float) -> torch.Tensor:
    """Return the cost of unit features, (T, k), to the closest of the demonstrations, differentiable."""
    found = []
    for other in wanted:
        cost = 1 - features @ other.T
        plan, _ = transport(cost.detach().numpy(), epsilon, ITERATIONS)
        found.append((torch.from_numpy(plan.astype(np.float32)) * cost).sum())
    return torch.stack(found).min()
