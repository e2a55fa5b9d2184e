"""Video rewards: by hand, one picture encoded a step, and the same as when every clip is encoded anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.toys import BrightnessEncoder, CountingEnv
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words, is_batched, is_movable
from vlmrl.reward_models.video import VideoReward, VideoRewardConfig, clip_indices
from vlmrl.reward_models.video_heads import HeadConfig, VideoHead, save_head
from vlmrl.rows import Rows
from vlmrl.serving.scorer import LocalScorer


class WaveEncoder(BrightnessEncoder):
    """Embeds a picture by eight waves of its brightness: the norms within a head need more than two numbers."""

    name, dim = "waves", 8

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames))
        return waves(frames.reshape(len(frames), -1).mean(axis=1) / 255)

    def encode_texts(self, texts: object) -> np.ndarray:
        return waves(np.array([{"bright": 1.0, "dim": 0.4, "dark": 0.0}[text] for text in texts]))  # type: ignore[attr-defined]


def waves(brightness: np.ndarray) -> np.ndarray:
    phases = np.multiply.outer(brightness, np.arange(1, 9) * 0.7) + np.arange(8)
    return (np.cos(phases) / np.linalg.norm(np.cos(phases), axis=1, keepdims=True)).astype(np.float32)


WORDS = Words(("bright",), negatives=("dark", "dim"))


def made_head(pooling: str = "attn", frames: int = 16, dim: int = 2) -> VideoHead:
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(dim=dim, pooling=pooling, frames=frames, heads=2, dim_head=4, offsets=(1, 2)))  # type: ignore[arg-type]
    with torch.no_grad():
        head.logit_scale.fill_(1.0)
    head.source = "made by hand"
    return head.eval()


def embedded(*brightness: float) -> np.ndarray:
    angles = np.array(brightness) * np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(embeddings: np.ndarray, first: int = 0, camera: str = "front") -> Rows:
    return Rows(np.arange(first, first + len(embeddings)), {"embeddings": {camera: embeddings}})


def test_clips_end_at_their_row_and_begin_with_the_first_frame_repeated() -> None:
    assert clip_indices(0, 4, 4).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert clip_indices(7, 7, 4, stride=2).tolist() == [[1, 3, 5, 7]]


@pytest.mark.parametrize("kind", ["direct", "delta", "probability"])
def test_rewards_are_those_of_the_papers(kind: str) -> None:
    head = made_head("avg", frames=2)
    head.video_adapter.gate.data.fill_(100.0)  # the adapter does nothing
    reward = VideoReward(WORDS, BrightnessEncoder(), head, kind=kind)  # type: ignore[arg-type]
    frames = embedded(0.0, 1.0, 1.0, 0.5)
    clips = [frames[[0, 0]].mean(0), frames[[0, 1]].mean(0), frames[[1, 2]].mean(0), frames[[2, 3]].mean(0)]
    cosines = np.stack([clip / np.linalg.norm(clip) for clip in clips]) @ embedded(1.0, 0.0, 0.0).T
    weights = np.exp(np.e * cosines)
    probability = weights[:, 0] / weights.sum(axis=1)
    expected = {
        "direct": np.maximum(probability - 1 / 3, 0),
        "delta": np.diff(probability, prepend=probability[:1]),
        "probability": probability,
    }[kind]
    found = reward(rows(frames))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and reward.context == (2 if kind == "delta" else 1)
    if kind == "direct":
        assert found[0] == 0 and found[2] > 0.3


@pytest.mark.parametrize("pooling", ["avg", "attn", "motion"])
@pytest.mark.parametrize(("kind", "stride"), [("probability", 1), ("delta", 1), ("direct", 3)])
def test_a_part_with_its_context_is_rewarded_as_the_whole(pooling: str, kind: str, stride: int) -> None:
    reward = VideoReward(WORDS, WaveEncoder(), made_head(pooling, dim=8), kind=kind, stride=stride)  # type: ignore[arg-type]
    frames = waves(np.random.default_rng(0).uniform(size=80))
    whole = reward(rows(frames))
    for first in (0, 3, 20):
        last = first + reward.context + 7
        part = reward(rows(frames[first : last + 1], first))
        own = slice(0 if first == 0 else reward.context, None)
        np.testing.assert_allclose(part[own], whole[first : last + 1][own], atol=1e-5)
    assert is_batched(reward) and is_movable(reward)
    together = reward.reward_all([rows(frames[:30]), rows(frames[5:70], 5), rows(frames[:1])])
    for found, own in zip(together, (rows(frames[:30]), rows(frames[5:70], 5), rows(frames[:1])), strict=True):
        np.testing.assert_allclose(found, reward(own), atol=1e-5)


def test_a_step_costs_one_picture_and_gives_what_encoding_the_whole_clip_gives() -> None:
    """Over episodes of 40 steps in two environments, filled every 7 steps, against a clip encoded from its pictures."""
    encoder = WaveEncoder()
    reward = VideoReward(WORDS, encoder, made_head("motion", dim=8), kind="probability")
    lazy = LazyRewards(reward, LocalScorer(encoder))
    length, steps = 40, 90
    venv = DummyVecEnv([lambda: RowWriter(CountingEnv(length), reward.needs) for _ in range(2)])
    env = RewardVecEnv(venv, lazy)
    env.reset()
    keys: list[np.ndarray] = []
    filled: list[tuple[np.ndarray, np.ndarray]] = []
    for t in range(steps):
        env.step(np.zeros((2, 1), dtype=np.float32))
        keys.append(env.keys.copy())
        if t % 7 == 6 or t == steps - 1:
            filled.append((np.concatenate(keys), lazy.fill(np.concatenate(keys))))
            keys = []
    seen = 0
    for own_keys, rewards in filled:
        for key, found in zip(own_keys, rewards, strict=True):
            times = np.maximum(key["t"] - np.arange(15, -1, -1), 0)
            pictures = np.stack([np.full((8, 8, 3), (10 * key["episode"] + t) % 256, dtype=np.uint8) for t in times])
            expected = reward.probabilities(WaveEncoder().encode_images(pictures)[None])[0]
            assert found == pytest.approx(expected, abs=1e-5)
            seen += 1
    assert seen == 2 * steps
    resets = 2 * (1 + steps // length)
    assert sum(encoder.batches) == 2 * steps + resets  # each picture once, those of the resets too
    env.close()


def test_several_cameras_become_one() -> None:
    reward = VideoReward(WORDS, BrightnessEncoder(), made_head(), kind="probability", views="min")
    bright, dark = embedded(*[1.0] * 5), embedded(*[0.0] * 5)
    both = Rows(np.arange(5), {"embeddings": {"a": bright, "b": dark}})
    np.testing.assert_allclose(reward(both), np.minimum(reward(rows(bright)), reward(rows(dark))), atol=1e-6)


def test_what_is_wrong_is_said_at_start(tmp_path: Path) -> None:
    encoder = BrightnessEncoder()
    with pytest.raises(UserError, match="there are no negatives: task.negatives="):
        VideoReward(Words(("bright",)), encoder, made_head())
    untrained = made_head()
    untrained.source = ""
    with pytest.raises(UserError, match="random weights"):
        VideoReward(WORDS, encoder, untrained)
    with pytest.raises(UserError, match="Did you mean 'delta'"):
        VideoReward(WORDS, encoder, made_head(), kind="detla")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="reward.stride is 0"):
        VideoReward(WORDS, encoder, made_head(), stride=0)
    wide = BrightnessEncoder()
    wide.dim = 3
    with pytest.raises(UserError, match="reads embeddings of 2 numbers, and brightness gives 3"):
        VideoReward(WORDS, wide, made_head())
    with pytest.raises(UserError, match="comes with none.*encoder=mineclip encoder.path="):
        VideoRewardConfig().build(WORDS, encoder)
    with pytest.raises(UserError, match="there is no file 'nowhere'"):
        VideoRewardConfig(weights="nowhere")


def test_the_head_is_read_from_its_file_or_from_beside_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(made_head(), path, BrightnessEncoder())
    encoder = BrightnessEncoder()
    named = VideoRewardConfig(weights=str(path), kind="probability").build(WORDS, encoder)
    encoder.video_head = path  # type: ignore[attr-defined]
    beside = VideoRewardConfig(kind="probability").build(WORDS, encoder)
    frames = rows(embedded(0.1, 0.4, 0.9))
    np.testing.assert_array_equal(named(frames), beside(frames))
    assert "clips of 16 frames over 16 steps" in named.summary and "2 negatives" in named.summary


@pytest.mark.parametrize("t", [[2, 1, 0], [0, 2, 3], [0, 0, 1]])
def test_frames_out_of_order_are_an_error(t: list[int]) -> None:
    reward = VideoReward(WORDS, BrightnessEncoder(), made_head("avg", frames=2))
    with pytest.raises(ValueError, match="in the order of time"):
        reward(Rows(np.array(t), {"embeddings": {"front": embedded(0.0, 0.5, 1.0)}}))
