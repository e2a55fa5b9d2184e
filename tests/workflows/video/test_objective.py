"""What a head for clips is trained for: losses by hand, and which pairs are swapped."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from vlmrl.reward_models.video_heads import HeadConfig, VideoHead
from vlmrl.workflows.video.objective import completion, targets, video_loss


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_head(pooling: str = "attn") -> VideoHead:
    torch.manual_seed(0)
    return VideoHead(HeadConfig(dim=8, pooling=pooling, heads=2, dim_head=4))  # type: ignore[arg-type]


FRAMES, TEXTS = torch.randn(6, 16, 8, generator=generator(1)), torch.randn(6, 8, generator=generator(2))


def test_the_loss_is_the_symmetric_one_of_clip() -> None:
    head = made_head()
    logits = head.logits(head(FRAMES), head.texts(TEXTS))[:, 0]
    own = torch.arange(6)
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(video_loss(head, FRAMES, TEXTS, generator()), expected)


def test_motion_counts_ten_times() -> None:
    head = made_head("motion")
    logits, own = head.logits(head(FRAMES), head.texts(TEXTS)), torch.arange(6)
    video, motion = (cross_entropy(logits[:, k], own) + cross_entropy(logits[:, k].T, own) for k in (0, 1))
    torch.testing.assert_close(video_loss(head, FRAMES, TEXTS, generator()), (video + 10 * motion) / 4)


def test_sentences_that_say_the_same_are_no_negatives_of_each_other() -> None:
    head = made_head()
    texts = TEXTS.clone()
    texts[3] = texts[0]
    logits, own = head.logits(head(FRAMES), head.texts(texts))[:, 0], torch.arange(6)
    logits[0, 3] = logits[3, 0] = -torch.inf
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(video_loss(head, FRAMES, texts, generator()), expected)


def test_the_completion_of_the_release() -> None:
    sizes = torch.tensor([0.0, 0.005, 0.01, 0.02, 0.5])
    torch.testing.assert_close(completion(sizes), torch.tensor([0.5, 0.625, 0.75, 1.0, 1.0]))


def test_pairs_are_swapped_with_all_others_alike_and_in_every_row() -> None:
    """The release swaps with the first sentence of the batch only, and only the first process's clips are positives."""
    same = torch.eye(6, dtype=torch.bool)
    draws = torch.stack([targets(same, torch.full((6,), 0.5), generator(seed)) for seed in range(3000)])
    kept = (draws == torch.arange(6)).double().mean(dim=0)
    assert ((kept - 0.5).abs() < 0.05).all()
    for row in range(6):
        counts = torch.bincount(draws[:, row], minlength=6).double() / 3000
        others = counts[torch.arange(6) != row]
        assert ((others - 0.1).abs() < 0.03).all()


def test_a_sentence_that_says_the_same_is_never_swapped_in() -> None:
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    draws = torch.stack([targets(same, torch.zeros(4), generator(seed)) for seed in range(200)])
    assert set(draws[:, 0].tolist()) == {2, 3} and set(draws[:, 2].tolist()) == {0, 1, 3}
    assert targets(torch.ones(3, 3, dtype=torch.bool), torch.zeros(3), generator()).tolist() == [0, 1, 2]


def test_a_swapped_clip_is_trained_away_from_its_own_sentence() -> None:
    head = made_head()
    frames, texts = FRAMES[:2], TEXTS[:2]
    logits = head.logits(head(frames), head.texts(texts))[:, 0]
    seed = next(s for s in range(100) if targets(torch.eye(2, dtype=torch.bool), torch.tensor([0.5, 1.0]),
                                                 generator(s)).tolist() == [1, 1])  # fmt: skip
    expected = (cross_entropy(logits, torch.tensor([1, 1])) + cross_entropy(logits.T, torch.tensor([1, 1]))) / 2
    found = video_loss(head, frames, texts, generator(seed), sizes=torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("pooling", "left"), [("avg", 0.5), ("attn", 0.1), ("motion", 0.1)])
def test_training_on_it_tells_clips_apart(pooling: str, left: float) -> None:
    head = made_head(pooling)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    before = video_loss(head, FRAMES, TEXTS, generator()).item()
    for _ in range(60):
        optimizer.zero_grad()
        video_loss(head, FRAMES, TEXTS, generator()).backward()
        optimizer.step()
        head.clamp_logit_scale()
    assert video_loss(head, FRAMES, TEXTS, generator()).item() < left * before
