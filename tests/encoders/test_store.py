from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.toys import BrightnessConfig, BrightnessEncoder
from vlmrl.encoders.store import EmbeddingStore, frame_digest
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.rows import Row, RowKey
from vlmrl.serving.local import LocalConfig


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_size_and_pixels_are_the_key() -> None:
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    digests = {frame_digest(other) for other in (frame, frame.reshape(2, 8, 3), frame[::-1], frame + 1)}
    assert len(digests) == 4
    assert frame_digest(frame[:, ::-1][:, ::-1]) == frame_digest(frame)


def test_embeddings_outlive_the_store_to_the_bit(tmp_path: Path) -> None:
    encoder = BrightnessEncoder()
    embeddings = encoder.encode_images(frames(*range(250)))
    digests = [frame_digest(frame) for frame in frames(*range(250))]
    store = EmbeddingStore(tmp_path, encoder)
    for _ in range(5):
        store.put(digests, embeddings)
    store.put(digests[:1], embeddings[1:2])  # the first stays
    store.close()
    again = EmbeddingStore(tmp_path, encoder)
    assert len(again) == 250
    got = again.get(3 * digests + [b"unknown"])
    np.testing.assert_array_equal(np.stack([got[digest] for digest in digests]), embeddings)
    assert set(got) == set(digests)
    other = BrightnessEncoder()
    other.fingerprint = "1"
    assert EmbeddingStore(tmp_path, other).get(digests) == {}


def test_two_may_write_at_once(tmp_path: Path) -> None:
    encoder = BrightnessEncoder()
    first, second = EmbeddingStore(tmp_path, encoder), EmbeddingStore(tmp_path, encoder)
    for value in range(20):
        for store in (first, second):
            store.put([frame_digest(frames(value)[0])], encoder.encode_images(frames(value)))
    assert len(first) == len(second) == 20


def rewards(goal: str, store: str) -> tuple[np.ndarray, list[int]]:
    """Reward an episode of nine frames, some alike."""
    service = LocalConfig(batch_size=4, store=store).build(BrightnessConfig(), "cpu")
    source = LazyRewards(ClipReward(goal, encoder=service.encoder), service.scorer())
    for t, frame in enumerate(frames(0, 10, 20, 10, 30, 40, 50, 60, 70)):
        source.observe([(RowKey(0, 0, t), Row(frames={"front": frame} if t else None))])
    keys = np.array([(0, 0, t) for t in range(1, 9)], dtype=KEY_DTYPE)
    filled = source.fill(keys)
    service.close()
    return filled, service.encoder.batches  # type: ignore[attr-defined]


def test_a_new_prompt_costs_no_image_pass(tmp_path: Path) -> None:
    first, batches = rewards("bright", str(tmp_path))
    assert sum(batches) == 8
    again, batches = rewards("bright", str(tmp_path))
    assert batches == []
    np.testing.assert_array_equal(first, again)
    dark, batches = rewards("dark", str(tmp_path))
    assert batches == []
    assert np.corrcoef(first, dark)[0, 1] < 0


def test_a_folder_that_is_none_is_the_persons_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        EmbeddingStore(tmp_path / "file", BrightnessEncoder())
    (tmp_path / "0.sqlite").write_text("not a database, but a text of some length" * 100)
    with pytest.raises(UserError, match="cannot be used: file is not a database"):
        EmbeddingStore(tmp_path, BrightnessEncoder())
    assert issubclass(sqlite3.DatabaseError, sqlite3.Error)
