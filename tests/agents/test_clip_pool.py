from __future__ import annotations

import pickle

import numpy as np
import pytest

from vlmrl.agents.clip_pool import ClipPool
from vlmrl.rows import Row, RowKey, stack


def play(pool: ClipPool, episode: int, length: int, every: int = 1) -> None:
    """An episode of one environment whose picture, embedding and reward at step t all say t."""
    rows = []
    for t in range(length + 1):
        drawn = t > 0 and ((t - 1) % every == 0 or t == length)
        frame = np.full((8, 8, 3), t, np.uint8)
        row = Row(frames={"front": frame} if drawn else None, reward=float(t))
        pool.arrived(RowKey(0, episode, t), row)
        frame[:] = 99  # renderers draw into the same array again
        row.embeddings = {"front": np.full(2, t, np.float32)}
        rows.append(row)
    for first in range(1, length + 1, 4):  # rewards are filled in parts, whatever clips are
        last = min(first + 3, length)
        pool.filled(0, episode, stack(rows[first : last + 1], range(first, last + 1), ["embeddings", "reward"]))


def make(**settings: int) -> ClipPool:
    return ClipPool(frozenset({"embeddings"}), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_clip_holds_the_pictures_rewards_and_embeddings_of_its_steps(length: int) -> None:
    pool = make(length=length, per_episode=100, max_pictures=3)
    play(pool, 0, 14)
    clips = pool.clips
    assert [clip.key.t for clip in clips] == list(
        range(1, 15 - length + 1, length)
    )  # no gaps; what is cut off is left out
    for clip in clips:
        t = clip.key.t + np.arange(length)
        np.testing.assert_array_equal(clip.rewards, t)
        np.testing.assert_array_equal(clip.steps["embeddings/front"], np.stack([t, t], axis=1))
        shown = t[[0, 2, 4]] if length == 5 else t
        np.testing.assert_array_equal(clip.frames[:, 0, 0, 0], shown)


def test_clips_are_drawn_evenly_from_an_episode_and_as_many_as_asked() -> None:
    counts = np.zeros(41)
    for episode in range(300):
        pool = make(per_episode=4, seed=episode)
        play(pool, 0, 40)
        assert len(pool.clips) == 4
        for clip in pool.clips:
            counts[clip.key.t] += 1
    # Each of 40 steps is drawn 300 * 4 / 40 = 30 times, give or take 5.2 (a standard deviation).
    assert counts[0] == 0 and counts[1:].min() > 10 and counts.max() < 52


def test_old_episodes_are_forgotten_and_pictures_survive_their_compression() -> None:
    pool = make(per_episode=3, episodes=2)
    for episode in range(4):
        play(pool, episode, 10)
    assert {clip.key.episode for clip in pool.clips} == {2, 3}
    packed = [clip for clip in pool.clips if all(isinstance(picture, bytes) for picture in clip.pictures.values())]
    assert {clip.key.episode for clip in packed} == {2}
    for clip in pool.clips:
        assert (clip.frames == clip.key.t).all() and clip.frames.shape == (1, 8, 8, 3)


def test_pictures_that_are_not_drawn_are_no_clips() -> None:
    pool = make(per_episode=100)
    play(pool, 0, 10, every=3)
    assert [clip.key.t for clip in pool.clips] == [1, 4, 7, 10]


def test_a_pool_that_was_saved_goes_on_as_if_it_had_not_been() -> None:
    whole, first = make(per_episode=3, seed=7), make(per_episode=3, seed=7)
    for episode in range(2):
        play(whole, episode, 20)
        play(first, episode, 20)
    second = make(per_episode=3, seed=7)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    for pool in (whole, second):
        play(pool, 2, 20)
    assert [clip.key for clip in whole.clips] == [clip.key for clip in second.clips]
    for ours, theirs in zip(whole.clips, second.clips, strict=True):
        np.testing.assert_array_equal(ours.frames, theirs.frames)
