"""LIV's reward: values and differences by hand, goals as words and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.liv import LivReward, LivRewardConfig
from vlmrl.rows import Rows


class Compass:
    """Embeds a sentence as north, or as the direction that it says in degrees; a picture by its first pixel's red."""

    name, fingerprint, image_size, dim = "compass", "", (2, 2), 2

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._directions([float(text) for text in texts])

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        return self._directions(frames[:, 0, 0, 0].astype(float).tolist())

    def check_env(self, env: str) -> None:
        pass

    def _directions(self, degrees: Sequence[float]) -> np.ndarray:
        angles = np.deg2rad(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(*degrees: float, camera: str = "front") -> Rows:
    return Rows(np.arange(len(degrees)), {"embeddings": {camera: Compass()._directions(degrees)}})


def test_the_value_is_the_cosine() -> None:
    reward = LivReward("0", Compass())
    assert reward.context == 0
    np.testing.assert_allclose(reward(rows(90, 60, 0)), [0, 0.5, 1], atol=1e-6)


def test_the_difference_is_what_a_step_adds_to_the_scaled_value() -> None:
    reward = LivReward("0", Compass(), kind="difference", gamma=0.98)
    assert reward.context == 1
    np.testing.assert_allclose(reward(rows(90, 60, 0, 60)), [0, 25, 25, -25], atol=1e-3)
    np.testing.assert_allclose(reward.values(rows(90, 60)), [0, 0.5], atol=1e-6)
    assert reward(rows(60)).tolist() == [0]


def test_sentences_are_averaged_to_unit_length() -> None:
    np.testing.assert_allclose(LivReward(["30", "-30"], Compass())(rows(0)), [1], atol=1e-6)


def test_several_cameras() -> None:
    both = Rows(np.arange(1), {"embeddings": {"a": Compass()._directions([0]), "b": Compass()._directions([60])}})
    assert LivReward("0", Compass())(both)[0] == pytest.approx(0.75)
    assert LivReward("0", Compass(), views="min")(both)[0] == pytest.approx(0.5)


def test_a_picture_can_be_the_goal(tmp_path: Path) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 2] = 60  # red, as OpenCV orders colours
    cv2.imwrite(str(tmp_path / "goal.png"), picture)
    config = LivRewardConfig(goal_image=str(tmp_path / "goal.png"))
    assert not config.uses_words
    reward = config.build(None, Compass())
    np.testing.assert_allclose(reward(rows(60, 0)), [1, 0.5], atol=1e-6)
    np.testing.assert_allclose(LivRewardConfig().build(Words(("60",)), Compass())(rows(60, 0)), [1, 0.5], atol=1e-6)


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a picture and a sentence"):
        LivReward("0", Compass(), goal_image=np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match="goal is empty"):
        LivReward((), Compass())
    with pytest.raises(UserError, match="Unknown kind of LIV's reward"):
        LivReward("0", Compass(), kind="diference")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="reward.gamma is 1"):
        LivRewardConfig(gamma=1.0)
    with pytest.raises(UserError, match="there is no file"):
        LivRewardConfig(goal_image="nowhere.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="is not a picture"):
        LivRewardConfig(goal_image=str(tmp_path / "text.png")).build(None, Compass())
