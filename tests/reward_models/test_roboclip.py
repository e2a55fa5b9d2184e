"""RoboCLIP: one reward an episode, at its end, in training as by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.reward_models.test_video import WaveEncoder, embedded, made_head, waves
from tests.toys import BrightnessEncoder, CountingEnv
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words, awaits_end
from vlmrl.reward_models.optimal_transport import Demonstrations
from vlmrl.reward_models.roboclip import RoboClipConfig, RoboClipReward, spread_indices
from vlmrl.reward_models.video_heads import save_head
from vlmrl.rows import Rows
from vlmrl.serving.scorer import LocalScorer

WORDS = Words(("bright",))


def episode(embeddings: np.ndarray, terminated: bool = False, truncated: bool = False) -> Rows:
    n = len(embeddings)
    ends = {"terminated": np.zeros(n, bool), "truncated": np.zeros(n, bool)}
    ends["terminated"][-1], ends["truncated"][-1] = terminated, truncated
    return Rows(np.arange(n), {"embeddings": {"front": embeddings}, **ends})


def test_frames_are_spread_over_the_episode() -> None:
    assert spread_indices(5, 3).tolist() == [0, 2, 4]
    assert spread_indices(1, 3).tolist() == [0, 0, 0]
    assert spread_indices(129, 16)[[0, -1]].tolist() == [0, 128] and len(set(spread_indices(129, 16))) == 16


def test_it_is_zero_until_the_end() -> None:
    reward = RoboClipReward(WORDS, BrightnessEncoder(), frames=2)
    frames = embedded(0.0, 0.3, 1.0)
    assert not reward(episode(frames)).any() and not awaits_end(reward)
    mean = frames[[0, 2]].mean(axis=0)
    expected = mean @ embedded(1.0)[0] / np.linalg.norm(mean)
    for end in ({"terminated": True}, {"truncated": True}):
        np.testing.assert_allclose(reward(episode(frames, **end)), [0, 0, expected], atol=1e-6)


def test_in_training_each_episode_gets_one_reward_of_all_its_frames() -> None:
    encoder = WaveEncoder()
    reward = RoboClipReward(WORDS, encoder, made_head(dim=8))
    lazy = LazyRewards(reward, LocalScorer(encoder))
    env = RewardVecEnv(DummyVecEnv([lambda: RowWriter(CountingEnv(20), reward.needs)]), lazy)
    env.reset()
    seen = []
    for _ in range(41):
        env.step(np.zeros((1, 1), dtype=np.float32))
        seen.append(float(lazy.fill(env.keys)[0]))
    assert [t for t, value in enumerate(seen) if value != 0] == [19, 39]
    for number, t in enumerate((19, 39)):
        brightness = (10 * number + np.arange(21)) / 255
        expected = reward(episode(waves(brightness), truncated=True))[-1]
        assert seen[t] == pytest.approx(expected, abs=1e-5)
    assert len(lazy) == 2  # of the episode that runs
    env.close()


def test_a_demonstration_in_place_of_words() -> None:
    encoder = WaveEncoder()
    rising, falling = waves(np.linspace(0, 1, 30)), waves(np.linspace(1, 0, 30))
    shown = Demonstrations.of([rising, rising[::2]], encoder.fingerprint)
    by_order = RoboClipReward(None, encoder, made_head("attn", dim=8), shown)
    assert by_order(episode(rising, True))[-1] == pytest.approx(1, abs=1e-5)
    assert by_order(episode(falling, True))[-1] < 0.999
    by_mean = RoboClipReward(None, encoder, None, shown)
    np.testing.assert_allclose(by_mean(episode(rising, True))[-1], by_mean(episode(falling, True))[-1], atol=1e-5)


def test_what_is_wrong_is_said_at_start(tmp_path: Path) -> None:
    encoder = BrightnessEncoder()
    with pytest.raises(UserError, match="said in words or shown in demonstrations"):
        RoboClipReward(None, encoder)
    untrained = made_head()
    untrained.source = ""
    with pytest.raises(UserError, match="random weights"):
        RoboClipReward(WORDS, encoder, untrained)
    with pytest.raises(UserError, match="reads embeddings of 8 numbers"):
        RoboClipReward(WORDS, encoder, made_head(dim=8))
    featured = BrightnessEncoder()
    featured.unit_vectors = False  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="gives features for a head"):
        RoboClipReward(WORDS, featured)
    with pytest.raises(UserError, match="there is no file 'nowhere'"):
        RoboClipConfig(weights="nowhere")


def test_its_settings_make_it(tmp_path: Path) -> None:
    encoder, path = WaveEncoder(), tmp_path / "head.safetensors"
    save_head(made_head(dim=8), path, encoder)
    with_head = RoboClipConfig(weights=str(path)).build(WORDS, encoder)
    assert with_head.head is not None and "head.safetensors" in with_head.summary
    assert "the mean of frames" in RoboClipConfig(frames=4).build(WORDS, encoder).summary
    Demonstrations.of([waves(np.linspace(0, 1, 5))], encoder.fingerprint).save(tmp_path / "demonstrations.npz")
    shown = RoboClipConfig(demonstrations=str(tmp_path / "demonstrations.npz"))
    assert not shown.uses_words and shown.build(None, encoder).demonstrations is not None
