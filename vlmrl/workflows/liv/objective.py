"""What LIV is trained for, as its released code computes it, and a triplet loss in its place.

Source: Ma et al. 2023 (LIV, arXiv 2306.00958), equations 5 to 7; where the released `trainer.py` differs, that counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize, relu

EPSILON = 1e-8  # of the released code
STEP_REWARD = -1.0  # of every step on the way to the goal


class Moments(NamedTuple):
    """Embeddings of one moment of each of n clips, (n, E) each.

    Attributes:
        first: The first frame o_0.
        goal: The last frame g.
        now: A frame o_k on the way.
        then: The frame o_{k+1} after it.
        told: The frame that the sentence is about: the last one, or one near the end.
    """

    first: torch.Tensor
    goal: torch.Tensor
    now: torch.Tensor
    then: torch.Tensor
    told: torch.Tensor


def value_loss(
    moments: Moments, target: torch.Tensor, gamma: float, negatives: int, generator: torch.Generator
) -> torch.Tensor:
    """VIP's loss of goal-conditioned values S = cosine / (1 - gamma), for goals that are pictures or sentences.

    (1 - gamma) mean(-S(o_0, g)) + log mean exp(-(r + gamma S(o_{k+1}, g) - S(o_k, g))), r = -1 (Ma et al. 2022, VIP,
    arXiv 2210.00030, equation 5). Negatives add the second term once more over frames of other clips.

    Args:
        moments: Embeddings of frames.
        target: (n, E) embeddings of the goals.
        gamma: Discount, below 1.
        negatives: How often the frames are shuffled against the goals; 0 leaves the term out.
        generator: Of the shuffling.
    """

    def scaled(frames: torch.Tensor) -> torch.Tensor:
        return cosine_similarity(frames, target, dim=-1) / (1 - gamma)

    def one_step(now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
        return torch.log(EPSILON + torch.mean(torch.exp(-(STEP_REWARD + gamma * then - now))))

    loss = -(1 - gamma) * scaled(moments.first).mean() + one_step(scaled(moments.now), scaled(moments.then))
    if negatives:
        shuffles = [torch.randperm(len(target), generator=generator) for _ in range(negatives)]
        now = torch.cat([scaled(moments.now[order]) for order in shuffles])
        then = torch.cat([scaled(moments.then[order]) for order in shuffles])
        loss = loss + one_step(now, then)
    return loss


def contrastive_loss(frames: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss of n pictures and their n sentences, at temperature 1 as in the released code.

    The paper's equation 6 has (1 - gamma) S in the exponents, which is the plain cosine; CLIP's own temperature is not
    used.
    """
    logits = normalize(frames, dim=-1) @ normalize(texts, dim=-1).T
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def liv_loss(
    moments: Moments,
    texts: torch.Tensor,
    gamma: float,
    negatives: int,
    language_weight: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """LIV's whole loss: values for goal pictures, pictures against sentences, and values for sentences.

    The first two weigh 1. The third was on (1, with 3 negatives) in the release's pre-training, off in its fine-tuning.
    """
    loss = contrastive_loss(moments.told, texts) + value_loss(moments, moments.goal, gamma, negatives, generator)
    if language_weight:
        loss = loss + language_weight * value_loss(moments, texts, gamma, negatives, generator)
    return loss


def triplet_loss(moments: Moments, texts: torch.Tensor, margin: float) -> torch.Tensor:
    """Hinge loss of cosines (Schroff et al. 2015, arXiv 1503.03832, equation 2, with cosines for distances).

    The sentence is the anchor. Its clip's last frame must lie closer to it than a frame on the way, that one closer
    than the first, and the last frame closer than the last frames of clips with other sentences, each by the margin.
    arXiv 2512.20675 finds such a loss to do better than LIV's and others on the same data; these triplets are ours.
    """
    logits = normalize(moments.told, dim=-1) @ normalize(texts, dim=-1).T  # frame i, sentence j
    own = logits.diagonal()
    way = cosine_similarity(moments.now, texts, dim=-1)
    start = cosine_similarity(moments.first, texts, dim=-1)
    loss = relu(margin - own + way).mean() + relu(margin - way + start).mean()
    same = torch.isclose(normalize(texts, dim=-1) @ normalize(texts, dim=-1).T, torch.ones(()), atol=1e-4)
    others = ~same
    if others.any():
        loss = loss + relu(margin - own[None, :] + logits)[others].mean()
    return loss
