"""Training the embedded encoder: it learns, it goes on where it was interrupted, and its figures are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.workflows.mini import train
from vlmrl.workflows.mini.fit import MiniFitConfig, fit
from vlmrl.workflows.mini.frames import render_frames
from vlmrl.workflows.mini.measure import auroc, pearson, ranks
from vlmrl.workflows.mini.states import save_states


def small(out: Path, **changes) -> MiniFitConfig:
    settings = {
        "frames": 96,
        "held_out": 40,
        "policy_frames": 10,
        "epochs": 2,
        "text_steps": 4,
        "batch_size": 32,
        "progress": False,
    }
    return MiniFitConfig(out=str(out), **{**settings, **changes})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("fit") / "whole"
    return out, fit(small(out))


def test_leaves_weights_and_figures_and_nothing_else(fitted):
    out, report = fitted
    assert {path.name for path in out.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "figures.json",
    }
    assert json.loads((out / "figures.json").read_text())["tasks"] == report["tasks"]
    assert report["tasks"]["humanoid/kneeling"].keys() == {"held out", "policy"}
    assert report["tasks"]["cartpole/balance"].keys() == {"held out"}
    assert 0 < report["megabytes"] <= 16
    encoder = MiniConfig(path=str(out)).build("cpu")
    assert encoder.image_size == (112, 112) and encoder.encode_texts(["a humanoid robot"]).shape == (1, 128)


def test_interrupted_run_goes_on_to_the_same_weights(fitted, tmp_path, monkeypatch):
    run_epoch = train.ImageStage.run_epoch

    def interrupted(self, progress=True):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(self, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.ImageStage, "run_epoch", interrupted)
        fit(small(tmp_path))
    with pytest.raises(UserError, match="interrupted run with other settings"):
        fit(small(tmp_path, seed=1))
    fit(small(tmp_path))
    weights = "open_clip_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (fitted[0] / weights).read_bytes()


def test_states_of_agents_are_trained_on_and_measured(tmp_path):
    qpos = np.zeros((6, 24))
    qpos[:, 2:4] = [1.4, 1.0]
    save_states(tmp_path / "round_1.npz", [qpos] * 5)
    report = fit(small(tmp_path / "out", epochs=1, states=(str(tmp_path / "round_1.npz"),), state_frames=16))
    assert report["tasks"]["humanoid/standing"]["round_1"]["frames"] == 10


def test_learns_to_read_pictures_and_words():
    frames = render_frames(256, 0, cartpole=0.5, vary=False, progress=False)
    unseen = render_frames(128, 1, cartpole=0.5, vary=False, progress=False)
    model = train.new_model("test_resnet", 0)
    stage = train.ImageStage(model, frames, epochs=6, batch_size=32, learning_rate=4e-3, seed=0)
    losses = [stage.run_epoch(progress=False)["divergence"] for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    train.train_texts(
        model, frames, train.embed(model, frames.pixels), steps=60, seed=0, batch_size=128, progress=False
    )
    import torch

    texts = ["a humanoid robot", "pole and cart"]
    with torch.inference_mode():
        words = torch.nn.functional.normalize(
            model.clip.encode_text(train.open_clip.SimpleTokenizer(context_length=train.CONTEXT)(texts)), dim=-1
        )
    cosines = train.embed(model, unseen.pixels) @ words.numpy().T
    right = (cosines.argmax(axis=1) == 1) == (unseen.source == "cartpole")
    assert right.mean() > 0.95


def test_round_keeps_the_states_that_an_agent_went_through(fitted, tmp_path):
    from vlmrl.workflows.mini.rounds import play_round
    from vlmrl.workflows.mini.states import load_states

    archive = tmp_path / "round_1.npz"
    path = str(fitted[0])
    report = play_round(path, "humanoid/kneeling", archive, steps=220, n_envs=1, every=10, progress=False)
    train_part, held_out = load_states(archive, "train"), load_states(archive, "held out")
    assert report["states"] == len(train_part) + len(held_out) == 20  # two whole episodes of 100 steps
    assert 0 <= report["predicate_fraction"] <= 1
    heights = train_part[:, 2]
    assert 1.2 < heights[0] < 1.5 and heights.min() < 1.0  # stands at first, and is down by the end


@pytest.mark.parametrize("change", [{"frames": 0}, {"epochs": 0}, {"learning_rate": 0.0}])
def test_settings_out_of_range(change, tmp_path):
    with pytest.raises(UserError, match=f"fit encoder=mini: {next(iter(change))}"):
        small(tmp_path, **change)


def test_unknown_tower_and_missing_states(tmp_path):
    with pytest.raises(UserError, match="no architecture 'resnet10tt'"):
        fit(small(tmp_path, tower="resnet10tt"))
    with pytest.raises(UserError, match="no archive of states"):
        fit(small(tmp_path, states=(str(tmp_path / "none.npz"),)))


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [train.one_cycle(part) for part in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(1, abs=0.01) and 0.1 < top / 100 < 0.2
    assert all(b >= a for a, b in zip(rates[:top], rates[1 : top + 1], strict=True)) and rates[-1] == pytest.approx(0)
    assert max(abs(np.diff(rates))) < 0.12


def test_mirrored_targets_are_those_of_the_mirror_image():
    frames = render_frames(40, 2, vary=False, progress=False)
    plain, mirrored, known = train.geometry_targets(frames)
    assert plain.shape == mirrored.shape == known.shape == (40, train.GEOMETRY)
    human = frames.source != "cartpole"
    knees = [3 * train.SEEN.index(f"{side}_knee") for side in ("right", "left")]
    np.testing.assert_allclose(mirrored[~human, -3], -plain[~human, -3], atol=1e-6)  # cart
    # Heights swap sides; they are standardised by side, so compare after undoing that.
    heights = [frames.state[f"{side}_knee"][human, 2] for side in ("right", "left")]
    spread = [column.std() + 1e-3 for column in heights]
    back = mirrored[human][:, knees[0] + 2] * spread[0] + heights[0].mean()
    np.testing.assert_allclose(back, heights[1], atol=1e-4)


def test_measures():
    assert auroc(np.array([True, True, False, False]), np.array([3.0, 2.0, 1.0, 0.0])) == 1
    assert auroc(np.array([True, False]), np.array([1.0, 1.0])) == 0.5
    assert auroc(np.array([True, True]), np.array([1.0, 2.0])) is None
    np.testing.assert_array_equal(ranks(np.array([10, 20, 20, 5])), [2, 3.5, 3.5, 1])
    assert pearson(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert pearson(np.zeros(5), np.arange(5.0)) is None
