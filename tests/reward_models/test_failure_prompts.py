"""Prompts for failures: read by the text tower in front of sentences, one a cluster; and what a reward makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest
import torch

import vlmrl  # noqa: F401  (registers environments)
from tests.toys import BrightnessEncoder
from vlmrl.commands import compose, plain
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.fit import with_recipe
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.failure_prompts import FailurePromptConfig, FailurePromptReward, FailurePrompts, pooled
from vlmrl.rows import Rows
from vlmrl.workflows.config.fit import fit_settings
from vlmrl.workflows.failure_prompts.fit import divide, figures
from vlmrl.workflows.failure_prompts.learn import PromptedText, spherical_kmeans
from vlmrl.workflows.fit import fit
from vlmrl.workflows.liv.train import load_base

GOAL = "pole vertically upright on top of the cart"


def test_clusters_are_found_by_direction() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3)
    vectors = np.repeat(centres, 5, axis=0) + 0.1 * rng.normal(size=(15, 3))
    found = spherical_kmeans(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 3, 0)
    assert [len(set(part)) for part in np.split(found, 3)] == [1, 1, 1] and len(set(found)) == 3


def test_the_newest_frames_stand_for_a_clip() -> None:
    frames = np.array([[1.0, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(pooled(frames, 1), frames)
    np.testing.assert_allclose(pooled(frames, 2), [[1, 0], [0.5**0.5, 0.5**0.5], [0, 1]])


def test_a_prompt_stands_in_front_of_its_sentence() -> None:
    base = load_base("", "cpu")
    weights = [parameter.clone() for parameter in base.model.parameters()]
    text = PromptedText(base, [GOAL, "a horizontal pole on a cart"], 2, 3, 0)
    # The first word of the sentence, three times more, as a prompt: what the tower makes of such a text as it is.
    with torch.no_grad():
        plainly = torch.nn.functional.normalize(base.model.encode_text(text._ids).float(), dim=-1)
        text.prompts.data = text._embedding.weight[text._ids[:, 1:4]].reshape(text.prompts.shape).clone()
        np.testing.assert_allclose(text.embeddings().reshape(4, -1), plainly, atol=1e-5)
    text.embeddings().sum().backward()
    assert text.prompts.grad is not None and text.prompts.grad.abs().min() > 0
    assert all(torch.equal(a, b) for a, b in zip(weights, base.model.parameters(), strict=True))
    with pytest.raises(UserError, match="more than the 32 tokens"):
        PromptedText(base, [GOAL], 1, 29, 0)


def test_the_likeliest_failure_weighs_most() -> None:
    prompts = FailurePrompts(("bright",), np.array([[[1.0, 0.0], [0.6, 0.8]]], dtype=np.float32), 0.1, 1, "0")
    reward = FailurePromptReward("bright", prompts, BrightnessEncoder())
    frames = np.array([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    values = reward(Rows(np.arange(3), {"embeddings": {"front": frames}}))
    logits = frames @ np.array([[0, 1.0], [1, 0], [0.6, 0.8]]).T / 0.1
    np.testing.assert_allclose(values, np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1), rtol=1e-5)
    assert values[0] > 0.8 and values[1] < 0.2 and values[2] < 0.01
    with pytest.raises(UserError, match="bright"):
        FailurePromptReward("brigth", prompts, BrightnessEncoder())


def test_prompts_belong_to_their_encoder(tmp_path: Path) -> None:
    path = tmp_path / "prompts.npz"
    config = FailurePromptConfig(prompts=str(path))
    with pytest.raises(UserError, match="there is no file"):
        config.build(Words(("bright",)), BrightnessEncoder())
    prompts = FailurePrompts(("bright",), np.ones((1, 1, 2), dtype=np.float32), 0.1, 3, "0")
    prompts.save(path)
    assert config.build(Words(("bright",)), BrightnessEncoder()).context == 2
    with pytest.raises(UserError, match="takes one sentence"):
        config.build(Words(("bright", "light")), BrightnessEncoder())
    FailurePrompts(("bright",), prompts.failures, 0.1, 1, "another").save(path)
    with pytest.raises(UserError, match="made with another encoder than brightness"):
        config.build(Words(("bright",)), BrightnessEncoder())
    path.write_text("no")
    with pytest.raises(UserError, match="holds no prompts"):
        config.build(Words(("bright",)), BrightnessEncoder())


def test_clips_are_held_out_of_either_outcome() -> None:
    done = np.array([True] * 6 + [False] * 4)
    held_out = divide(np.zeros(10, dtype=int), done, ["x"], 0.3, 0)
    assert held_out[:6].sum() == 2 and held_out[6:].sum() == 2
    with pytest.raises(UserError, match="'x': 3 clips fail"):
        divide(np.zeros(9, dtype=int), done[:9], ["x"], 0.3, 0)


def test_figures_by_hand() -> None:
    found = figures(np.array([0.9, 0.7, 0.8, 0.1]), np.array([True, True, False, False]))
    assert found["auroc"]["mean"] == 0.75 and found["false_positives"]["mean"] == 0.5


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poles that come up, and poles that fail in two ways: half-way, or past the top and down again."""
    folder = tmp_path_factory.mktemp("failures") / "clips"
    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=112, height=112)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    lines, outcomes = ["episode,text"], ["episode,success"]
    for i in range(24):
        end = (0.0, 0.0, 1.2, 2.6)[i % 4]  # half of them succeed
        name = f"clip_{i:02d}"
        (folder / name).mkdir(parents=True)
        for t, angle in enumerate((3.0, 1.5, end + rng.uniform(-0.15, 0.15))):
            env.unwrapped.state = np.array([rng.uniform(-1, 1), 0, angle * rng.choice([-1, 1]), 0])  # type: ignore[attr-defined]
            cv2.imwrite(str(folder / name / f"{t}.png"), env.render()[..., ::-1])
            lines.append(f"{name},{GOAL}")
        outcomes.append(f"{name},{'true' if end == 0 else 'false'}")
    env.close()
    (folder / "steps.csv").write_text("\n".join(lines) + "\n")
    (folder.parent / "outcomes.csv").write_text("\n".join(outcomes) + "\n")
    return folder


def test_from_clips_to_a_reward_that_knows_failures(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = clips.parent / "outcomes.csv"
    asked = ["reward=failure_prompts", f"dataset={clips}", f"fit.labels={labels}", "fit.clusters=2", "device=cpu"]
    values = plain(compose("fit", with_recipe([*asked, "fit.steps=40"])))
    report = fit(fit_settings({**values, "progress_bar": False, "run_dir": str(tmp_path / "out")}))
    assert report["losses"][-1] < report["losses"][0]
    assert sum(report["clusters"][GOAL]) == 8 and min(report["clusters"][GOAL]) > 0
    assert report["after"]["auroc"]["mean"] >= report["before"]["auroc"]["mean"]
    assert report["after"]["auroc"]["mean"] > 0.9
    assert report["after"]["false_positives"]["mean"] <= report["before"]["false_positives"]["mean"]
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["clips"] == {"learned": 16, "held_out": 8}
    assert "reward=failure_prompts reward.prompts=" in capsys.readouterr().out
    reward = FailurePromptConfig(str(tmp_path / "out" / "prompts.npz")).build(Words((GOAL,)), MiniConfig().build("cpu"))
    assert reward.prompts.failures.shape == (1, 2, 128)
    without = {**values, "fit": {**values["fit"], "labels": ""}, "progress_bar": False, "run_dir": str(tmp_path / "x")}
    with pytest.raises(UserError, match="does not say whether it succeeded"):
        fit(fit_settings(without))
    with pytest.raises(UserError, match="name them, dataset="):
        fit_settings({**values, "dataset": None, "run_dir": "x"})
