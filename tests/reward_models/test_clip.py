from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toys import BrightnessEncoder
from vlmrl.encoders.open_clip import OpenClipConfig
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward, goal_baseline_reward
from vlmrl.reward_models.clip_contrastive import ClipContrastiveReward
from vlmrl.rows import Rows


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def projection_form(s: np.ndarray, g: np.ndarray, b: np.ndarray, alpha: float) -> float:
    """VLM-RM's equation 3, word for word: project onto the line through b and g, mix, take the distance to g."""
    line = (g - b) / np.linalg.norm(g - b)
    projected = b + ((s - b) @ line) * line
    return 1 - 0.5 * float(np.sum((alpha * projected + (1 - alpha) * s - g) ** 2))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(2, 64))
def test_parity_with_the_papers_equation(alpha: float, seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    images, goal, baseline = unit(rng, 5, dim), unit(rng, dim), unit(rng, dim)
    expected = [projection_form(image, goal, baseline, alpha) for image in images]
    np.testing.assert_allclose(goal_baseline_reward(images, goal, baseline, alpha), expected, atol=1e-5)


def test_alpha_zero_is_the_cosine() -> None:
    rng = np.random.default_rng(0)
    images, goal = unit(rng, 7, 16), unit(rng, 16)
    np.testing.assert_allclose(goal_baseline_reward(images, goal, np.zeros(16), 0.0), images @ goal, atol=1e-6)


def test_reward_of_rows_and_of_several_cameras() -> None:
    encoder = BrightnessEncoder()
    reward = ClipReward("bright", baseline="dark", encoder=encoder)
    dark, bright = encoder.encode_texts(["dark"])[0], encoder.encode_texts(["bright"])[0]
    one = Rows(np.arange(2), {"embeddings": {"front": np.stack([dark, bright])}})
    np.testing.assert_allclose(reward(one), [0.0, 1.0], atol=1e-6)
    both = Rows(np.arange(1), {"embeddings": {"front": dark[None], "side": bright[None]}})
    np.testing.assert_allclose(reward(both), [0.5], atol=1e-6)


def test_several_prompts_are_averaged_and_not_renormalised() -> None:
    encoder = BrightnessEncoder()
    reward = ClipReward(["bright", "dark"], encoder=encoder)
    mean = encoder.encode_texts(["bright", "dark"]).mean(axis=0)
    picture = encoder.encode_texts(["bright"])
    expected = 1 - 0.5 * np.sum((picture[0] - mean) ** 2)
    np.testing.assert_allclose(reward(Rows(np.arange(1), {"embeddings": {"front": picture}})), [expected], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"goal": ""}, "empty sentence"),
        ({"goal": "  "}, "empty sentence"),
        ({"goal": ()}, "goal is empty"),
        ({"goal": "bright", "alpha": 1.5}, "alpha is 1.5"),
        ({"goal": "bright", "alpha": 0.5}, "give a baseline"),
        ({"goal": "bright", "baseline": "bright too", "alpha": 0.5}, "same embedding"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClipReward(**arguments, encoder=BrightnessEncoder())


@pytest.mark.parametrize(("views", "combine"), [("mean", np.mean), ("min", np.min)])
def test_views_are_combined_as_asked(views: str, combine: Any) -> None:
    encoder = BrightnessEncoder()
    pictures = {name: np.full((1, 8, 8, 3), level, np.uint8) for name, level in (("front", 250), ("side", 20))}
    embeddings = {name: encoder.encode_images(frames) for name, frames in pictures.items()}
    together = Rows(np.array([1]), {"embeddings": embeddings})
    alone = [Rows(np.array([1]), {"embeddings": {name: view}}) for name, view in embeddings.items()]
    for model in (
        ClipReward("bright", encoder=encoder, views=views),  # type: ignore[arg-type]
        ClipContrastiveReward("bright", "dark", encoder=encoder, views=views),  # type: ignore[arg-type]
    ):
        single = [float(model(rows)[0]) for rows in alone]
        assert single[0] > single[1] + 0.1
        assert np.isclose(model(together)[0], combine(single), atol=1e-6)


def test_a_threshold_comes_after_the_views_are_combined() -> None:
    encoder = BrightnessEncoder()
    embeddings = {
        name: encoder.encode_images(np.full((1, 8, 8, 3), level, np.uint8)) for name, level in (("a", 255), ("b", 100))
    }
    rows = Rows(np.array([1]), {"embeddings": embeddings})
    rewards = [
        ClipContrastiveReward("bright", "dark", threshold=0.5, encoder=encoder, views=views)(rows)[0]  # type: ignore[arg-type]
        for views in ("mean", "min")
    ]
    assert rewards == [1.0, 0.0]


def test_an_unknown_way_to_combine_views_is_refused() -> None:
    encoder = BrightnessEncoder()
    rows = Rows(np.array([1]), {"embeddings": {"a": encoder.encode_images(np.zeros((1, 8, 8, 3), np.uint8))}})
    with pytest.raises(UserError, match="Did you mean 'mean'"):
        ClipReward("bright", encoder=encoder, views="men")(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["ViT-B-32", OpenClipConfig("ViT-B-32", "openai")])
def test_a_name_or_settings_are_no_encoder(encoder: Any) -> None:
    with pytest.raises(UserError, match=r"is no encoder. Give one that is built, such as OpenClipConfig"):
        ClipReward("bright", encoder=encoder)
