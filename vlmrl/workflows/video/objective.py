"""What a head for clips is trained for: clips near their own sentences, by how much of the task they show.

Sources: the symmetric contrastive loss is CLIP's (Radford et al. 2021, figure 3), as MineCLIP uses it; the weight of
the motion branch is that of CLIP4MC's release of 2023; pairs that are swapped by the size of what the sentence is about
are those of Jiang et al., ECCV 2024. In that release the sentence that takes a clip's place is always the first one of
the batch, and with several processes only the first process's clips have one of their own: here the other is drawn
among all that say something else, and every clip counts.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from vlmrl.reward_models.video_heads import VideoHead

LARGE = 0.02  # share of the picture above which an entity counts as reached, of the release
LEAST_KEPT = 0.5  # how often the pair of a clip without any entity in view is kept, of the release
MOTION_WEIGHT = 10.0  # of the motion branch, whose losses weigh as much as 10 of the others in the release of 2023


def completion(sizes: torch.Tensor) -> torch.Tensor:
    """Return how much of the task a clip shows, which is how often it keeps its sentence.

    Args:
        sizes: (B,) float, the greatest share of the picture that the entity of the sentence takes in any frame, 0 to 1.

    Returns:
        (B,) float, 0.5 without the entity, rising to 1 at 2 % of the picture.
    """
    return (LEAST_KEPT + (1 - LEAST_KEPT) * sizes / LARGE).clamp(max=1.0)


def targets(same: torch.Tensor, kept: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
    """Draw which sentence each clip is trained towards: its own, or, where its pair is swapped, one of the others.

    Args:
        same: (B, B) bool, which sentences say the same.
        kept: (B,) float, chance of a clip to keep its own; None keeps all.
        generator: Of the drawing, on the CPU.

    Returns:
        (B,) int64. A clip keeps its own where all sentences say the same.
    """
    own = torch.arange(len(same))
    if kept is None:
        return own
    others = (~same).double().cpu()
    swapped = (torch.rand(len(same), generator=generator) >= kept.cpu()) & (others.sum(dim=1) > 0)
    drawn = own.clone()
    if swapped.any():
        drawn[swapped] = torch.multinomial(others[swapped], 1, generator=generator)[:, 0]
    return drawn


def video_loss(
    head: VideoHead,
    frames: torch.Tensor,
    texts: torch.Tensor,
    generator: torch.Generator,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Contrastive loss of B clips and their B sentences, in both directions.

    Sentences that say the same are no negatives of each other: captions of one game repeat themselves, and a clip would
    be pushed away from its own words.

    Args:
        head: The head that is trained.
        frames: (B, T, E) float32 embeddings of frames.
        texts: (B, E) float32 embeddings of the sentences.
        generator: Of the swaps, on the CPU.
        sizes: (B,) float, see `completion`; None swaps nothing.

    Returns:
        Scalar: the mean of both directions; with a motion branch (video + 10 motion) / 2 of such means.
    """
    same = (texts[:, None] - texts[None]).abs().amax(dim=-1) < 1e-6
    wanted = targets(same, completion(sizes) if sizes is not None else None, generator).to(frames.device)
    own = torch.arange(len(texts), device=frames.device)
    # What says the same as the clip's own sentence, or as the one it is trained towards, is left out beside that.
    hidden = (same | same[wanted]) & (own[None] != wanted[:, None])
    hidden &= (own[None] != own[:, None]) | (wanted == own)[:, None]
    logits = head.logits(head(frames), head.texts(texts))
    losses = []
    for k in range(head.views):
        view = logits[:, k]
        directions = [cross_entropy(part.masked_fill(hidden, -torch.inf), wanted) for part in (view, view.T)]
        losses.append(torch.stack(directions).mean())
    return losses[0] if head.views == 1 else (losses[0] + MOTION_WEIGHT * losses[1]) / 2
