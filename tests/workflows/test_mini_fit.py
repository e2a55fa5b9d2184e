"""Training the embedded encoder: it learns, it goes on where it was interrupted, and its figures are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.stats import auroc
from vlmrl.workflows.mini import exam, train
from vlmrl.workflows.mini.fit import MiniFitConfig, fit
from vlmrl.workflows.mini.frames import Order, render
from vlmrl.workflows.mini.lesson import STATEMENTS, Lesson
from vlmrl.workflows.mini.scenes import SCENES
from vlmrl.workflows.mini.states import save_states


def small(folder: Path, name: str = "out", **changes) -> MiniFitConfig:
    if not (folder / "round.npz").exists():
        qpos = np.zeros((6, 24))
        qpos[:, 2:4] = [1.4, 1.0]
        save_states(folder / "round.npz", [qpos] * 25)
    settings = {
        "frames": 88,
        "held_out": 44,
        "states": (str(folder / "round.npz"),),
        "state_frames": 8,
        "epochs": 2,
        "text_steps": 4,
        "batch_size": 32,
        "workers": 1,
        "progress": False,
    }
    return MiniFitConfig(out=str(folder / name), **{**settings, **changes})


@pytest.fixture(scope="module")
def short_exam():
    """The exam with one picture in 120, each shown 120 times: `test_mini_exam` knows all of it."""
    with pytest.MonkeyPatch.context() as patch:
        pictures = exam.pictures

        def few(env, states, *rest):
            return np.repeat(pictures(env, states[::120], *rest), 120, axis=0)[: len(states)]

        patch.setattr(exam, "pictures", few)
        yield


@pytest.fixture(scope="module")
def fitted(short_exam, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("fit")
    return folder / "out", fit(small(folder))


def test_leaves_weights_and_figures_and_nothing_else(fitted):
    out, report = fitted
    assert {path.name for path in out.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "figures.json",
    }
    assert json.loads((out / "figures.json").read_text())["exam"] == report["exam"]
    assert set(report["statements"]) == set(SCENES)
    assert 0 < report["megabytes"] <= 16
    encoder = MiniConfig(path=str(out)).build("cpu")
    assert encoder.image_size == (112, 112) and encoder.encode_texts(["a humanoid robot"]).shape == (1, 128)


def test_interrupted_run_goes_on_to_the_same_weights(fitted, short_exam, tmp_path, monkeypatch):
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

    sentences, said = train.draw_captions, []

    def interrupted_texts(rng):
        said.append(1)
        if len(said) == 3:  # of 4 steps; the words begin anew, and from the same seed
            raise KeyboardInterrupt
        return sentences(rng)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "draw_captions", interrupted_texts)
        fit(small(tmp_path))
    fit(small(tmp_path))
    weights = "open_clip_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (fitted[0] / weights).read_bytes()


def test_learns_to_read_pictures_and_words():
    names = ("humanoid", "cartpole", "mountaincar")
    lesson = Lesson.of({name: render(Order(name, 96, 0)) for name in names})
    unseen = Lesson.of({name: render(Order(name, 40, 1, vary=False)) for name in names})
    model = train.new_model("test_resnet", 0, lesson.geometry.shape[1])
    stage = train.ImageStage(model, lesson, epochs=6, batch_size=32, learning_rate=4e-3, seed=0)
    losses = [stage.run_epoch(progress=False)["divergence"] for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    train.train_texts(
        model, lesson, train.embed(model, lesson.pixels), steps=250, seed=0, batch_size=128, progress=False
    )
    import torch

    texts = ["a humanoid robot", "pole and cart", "a car in the mountain"]
    with torch.inference_mode():
        words = torch.nn.functional.normalize(
            model.clip.encode_text(train.open_clip.SimpleTokenizer(context_length=train.CONTEXT)(texts)), dim=-1
        )
    cosines = train.embed(model, unseen.pixels) @ words.numpy().T
    shown = np.repeat(np.arange(3), 40)
    assert all(auroc(cosines[:, i], shown == i)[0] > 0.95 for i in range(3))


@pytest.mark.parametrize("change", [{"frames": 0}, {"epochs": 0}, {"workers": 0}, {"learning_rate": 0.0}])
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


def test_unknown_degrees_teach_nothing():
    import torch

    degrees = torch.tensor([[0.5, float("nan")]])
    logits = torch.zeros((1, 2), requires_grad=True)
    train.divergence(logits, degrees, torch.tensor([[1.0, 0.0]])).backward()
    np.testing.assert_allclose(logits.grad.numpy(), 0, atol=1e-7)  # met, and masked
    train.divergence(logits, torch.tensor([[0.9, float("nan")]]), torch.tensor([[1.0, 0.0]])).backward()
    assert logits.grad[0, 0] < 0 and logits.grad[0, 1] == 0


def test_mirrored_targets_are_those_of_the_mirror_image():
    sets = {name: render(Order(name, 20, 2, vary=False)) for name in ("humanoid", "cartpole", "mountaincar")}
    lesson = Lesson.of(sets)
    knee = 3 * 3 + 2  # after head, torso and pelvis: the right knee's height, then the left one's
    heights = [sets["humanoid"].state[f"{side}_knee"][:, 2] for side in ("right", "left")]
    spread = heights[0].std() + 1e-3
    back = lesson.mirrored_geometry[:20, knee] * spread + heights[0].mean()
    np.testing.assert_allclose(back, heights[1], atol=1e-4)
    assert np.isnan(lesson.geometry[:20, 39:]).all() and np.isnan(lesson.geometry[20:, :39]).all()
    np.testing.assert_array_equal(lesson.mirrored["tilted left"][20:40], lesson.truths["tilted right"][20:40])
    assert lesson.mirrors.tolist() == [True] * 40 + [False] * 20
    rows, mirror = np.arange(20, 40), np.arange(20) % 2 == 0
    degrees = lesson.degrees(rows, mirror)[:, STATEMENTS.index("tilted left")]
    np.testing.assert_array_equal(degrees[::2], lesson.truths["tilted right"][20:40:2])
    np.testing.assert_array_equal(degrees[1::2], lesson.truths["tilted left"][21:40:2])
