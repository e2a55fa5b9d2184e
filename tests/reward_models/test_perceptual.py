"""Steps that are known are found, in features that are known, and later steps count more."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401  (registers environments)
from vlmrl.commands import compose, plain
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.fit import with_recipe
from vlmrl.reward_models.perceptual import PerceptualConfig, PerceptualReward, Steps, split_steps
from vlmrl.rows import Rows
from vlmrl.workflows.config.fit import fit_settings
from vlmrl.workflows.fit import fit

LEVELS = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=float)  # two features tell three steps


def demonstration(seed: int, lengths: tuple[int, ...] = (6, 9, 7), noise: float = 0.05) -> np.ndarray:
    frames = np.repeat(LEVELS, lengths, axis=0)
    return frames + np.random.default_rng(seed).normal(0, noise, frames.shape)


def rows(embeddings: np.ndarray, **others: np.ndarray) -> Rows:
    return Rows(np.arange(len(embeddings)), {"embeddings": {"front": embeddings, **others}})


def test_borders_are_found_where_they_are() -> None:
    assert split_steps(demonstration(0), 3) == [6, 15]
    assert split_steps(demonstration(1, (3, 12, 4)), 3) == [3, 15]
    assert split_steps(demonstration(0), 1) == []
    with pytest.raises(ValueError, match="5 frames are too few for 3 steps"):
        split_steps(np.zeros((5, 2)), 3)


def test_no_other_division_varies_less() -> None:
    frames = np.random.default_rng(3).normal(size=(9, 3))

    def spread(borders: tuple[int, int]) -> float:
        return sum(float(part.std(axis=0).mean()) * len(part) for part in np.split(frames, borders))

    every = [(a, b) for a in range(2, 6) for b in range(a + 2, 8)]
    assert spread(tuple(split_steps(frames, 3))) == pytest.approx(min(map(spread, every)))  # type: ignore[arg-type]


def test_each_step_keeps_the_feature_that_tells_it() -> None:
    steps = Steps.found_in([demonstration(seed) for seed in range(3)], 2, 1, "e")
    assert steps.chosen.tolist() in ([[0], [1]], [[1], [1]])  # the middle is told by the first, the end by the second
    assert steps.chosen[1, 0] == 1 and steps.means[1, 0] == pytest.approx(1, abs=0.05)
    with pytest.raises(UserError, match="Demonstration 0 is too short: 3 frames"):
        Steps.found_in([np.zeros((3, 4))], 2, 1, "e")


def test_the_reward_rises_from_step_to_step_and_is_one_at_the_end_alone() -> None:
    steps = Steps.found_in([demonstration(seed) for seed in range(3)], 2, 4, "e")
    values = PerceptualReward(steps)(rows(LEVELS))
    assert values.dtype == np.float32 and values[0] < values[1] < values[2]
    assert values.min() >= 0 and values.max() <= 1
    # By hand: with means reached exactly, step 2 weighs 2 of 3 and step 1 is far away.
    exact = Steps(np.array([[0], [1]]), np.array([[1.0], [1.0]]), np.array([[0.1], [0.1]]), "e")
    np.testing.assert_allclose(PerceptualReward(exact)(rows(LEVELS)), [0, 1 / 3, 1], atol=1e-6)
    both = rows(LEVELS[2:], side=LEVELS[1:2])
    assert PerceptualReward(exact, "min")(both)[0] == pytest.approx(1 / 3, abs=1e-6)


def test_steps_belong_to_their_encoder(tmp_path: Path) -> None:
    encoder = MiniConfig().build("cpu")
    Steps(np.array([[0]]), np.zeros((1, 1)), np.ones((1, 1)), "another").save(tmp_path / "steps.npz")
    with pytest.raises(UserError, match="made with another encoder than mini"):
        PerceptualConfig(steps=str(tmp_path / "steps.npz")).build(None, encoder)
    with pytest.raises(UserError, match="it must name a file. It is made from a few demonstrations"):
        PerceptualConfig().build(None, encoder)
    (tmp_path / "steps.npz").write_text("no")
    with pytest.raises(UserError, match="holds no steps"):
        PerceptualConfig(steps=str(tmp_path / "steps.npz")).build(None, encoder)


def test_from_demonstrations_to_a_reward_that_knows_the_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pole comes up, from either side: upright gets more than hanging, though nobody said a word."""
    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=112, height=112)
    env.reset(seed=0)

    def picture(angle: float) -> np.ndarray:
        env.unwrapped.state = np.array([0.0, 0, angle, 0])  # type: ignore[attr-defined]
        return env.render()  # type: ignore[return-value]

    for i, side in enumerate((-1, 1)):
        folder = tmp_path / "clips" / f"up_{i}"
        folder.mkdir(parents=True)
        for t, angle in enumerate([3.0, 2.9, 2.7, 1.7, 1.5, 1.4, 0.1, 0.05, 0.0]):
            cv2.imwrite(str(folder / f"{t}.png"), picture(side * angle)[..., ::-1])
    values = plain(compose("fit", with_recipe(["reward=perceptual", f"dataset={tmp_path / 'clips'}", "device=cpu"])))
    report = fit(fit_settings({**values, "progress_bar": False, "run_dir": str(tmp_path / "out")}))
    assert report["borders"] == [[3, 6], [3, 6]]
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["borders"] == report["borders"]
    assert "reward=perceptual reward.steps=" in capsys.readouterr().out
    encoder = MiniConfig().build("cpu")
    reward = PerceptualConfig(steps=str(tmp_path / "out" / "steps.npz")).build(None, encoder)
    frames = encoder.encode_images(np.stack([picture(angle) for angle in (3.1, 1.5, 0.03)]))
    env.close()
    hanging, level, upright = reward(rows(frames))
    assert upright > level > hanging
    with pytest.raises(UserError, match="name them, dataset="):
        fit_settings({**values, "dataset": None, "run_dir": "x"})
