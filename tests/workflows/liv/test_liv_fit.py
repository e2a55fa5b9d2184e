"""LIV's loss against a calculation of its own, and the whole of `fit reward=liv`, interrupted and not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.toys import BrightnessEncoder
from vlmrl.commands import compose, plain
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.fit import with_recipe
from vlmrl.workflows.config.fit import FitConfig, fit_settings
from vlmrl.workflows.liv.clips import GOALS, Clips, gather, rendered
from vlmrl.workflows.liv.config import LivFitConfig
from vlmrl.workflows.liv.fit import fit, split
from vlmrl.workflows.liv.measure import measure
from vlmrl.workflows.liv.objective import Moments, contrastive_loss, liv_loss, triplet_loss, value_loss
from vlmrl.workflows.liv.train import crop


def made(n: int = 4, seed: int = 0) -> tuple[Moments, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(5, n, 6, generator=generator, dtype=torch.float64)
    return Moments(*frames), torch.randn(n, 6, generator=generator, dtype=torch.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_loss_is_that_of_the_paper_worked_out_row_by_row() -> None:
    moments, texts = made()
    first, goal, now, then, told = (part.numpy() for part in moments)
    words, gamma, n = texts.numpy(), 0.9, len(texts)
    start = np.mean([cosine(first[i], goal[i]) for i in range(n)])  # (1 - gamma) S is the cosine
    steps = [np.exp(cosine(now[i], goal[i]) / (1 - gamma) + 1 - gamma * cosine(then[i], goal[i]) / (1 - gamma))
             for i in range(n)]  # fmt: skip
    value = -start + np.log(np.mean(steps))
    table = np.array([[cosine(told[i], words[j]) for j in range(n)] for i in range(n)])
    rows = np.log(np.exp(table).sum(axis=1)) - np.diag(table)
    columns = np.log(np.exp(table).sum(axis=0)) - np.diag(table)
    contrast = (rows.mean() + columns.mean()) / 2
    generator = torch.Generator()
    assert float(value_loss(moments, moments.goal, gamma, 0, generator)) == pytest.approx(value, abs=1e-6)
    assert float(contrastive_loss(moments.told, texts)) == pytest.approx(contrast, abs=1e-9)
    assert float(liv_loss(moments, texts, gamma, 0, 0.0, generator)) == pytest.approx(value + contrast, abs=1e-6)
    told_values = float(value_loss(moments, texts, gamma, 0, generator))
    whole = float(liv_loss(moments, texts, gamma, 0, 2.0, generator))
    assert whole == pytest.approx(value + contrast + 2 * told_values, abs=1e-6)


def test_negatives_add_steps_of_other_clips() -> None:
    moments, _ = made()
    plain_loss = value_loss(moments, moments.goal, 0.9, 0, torch.Generator().manual_seed(1))
    more = value_loss(moments, moments.goal, 0.9, 3, torch.Generator().manual_seed(1))
    same = Moments(*(part[:1].repeat(4, 1) for part in moments))  # all clips alike: negatives are the clip itself
    alone = value_loss(same, same.goal, 0.9, 0, torch.Generator())
    twice = value_loss(same, same.goal, 0.9, 3, torch.Generator())
    first_term = -torch.nn.functional.cosine_similarity(same.first, same.goal).mean()
    assert float(twice - alone) == pytest.approx(float(alone - first_term), abs=1e-9)
    assert float(more) != pytest.approx(float(plain_loss))


def test_the_triplet_loss_is_zero_where_every_margin_is_kept() -> None:
    words = torch.eye(3, 6)
    away = torch.zeros(3, 6)
    away[:, 5] = 1
    moments = Moments(first=away, goal=words, now=words + away, then=words, told=words)
    assert float(triplet_loss(moments, words, 0.1)) == 0
    assert float(triplet_loss(moments._replace(now=words), words, 0.1)) == pytest.approx(0.1)
    # Clips with one and the same sentence are not pushed apart.
    alike = words[:1].repeat(3, 1)
    assert float(triplet_loss(Moments(away, alike, alike + away, alike, alike), alike, 0.1)) == 0


def test_one_crop_for_all_pictures_of_a_clip() -> None:
    stack = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), dtype=np.uint8), 5, axis=0)
    cut = crop(stack, 0.2, np.random.default_rng(1))
    assert cut.shape == stack.shape and (cut == cut[0]).all() and not np.array_equal(cut, stack)


def test_rendered_clips_end_where_their_sentence_says() -> None:
    sources = [(source.text, np.stack(list(source.frames))) for source in rendered(10, (48, 48), 0)]
    assert [text for text, _ in sources] == [text for _, text, _ in GOALS] * 2
    ends = {text: frames[-1] for text, frames in sources}

    def drawn(text: str) -> tuple[int, int]:  # first and last row of pole and cart; in negatives they are bright
        rows = np.flatnonzero((ends[text].max(axis=-1) > 60).any(axis=1))
        return int(rows[0]), int(rows[-1])

    upright, level, hanging = (drawn(text) for _, text, _ in GOALS[:3])
    assert upright[0] < level[0] - 8 and abs(upright[1] - level[1]) <= 1
    assert hanging[1] > level[1] + 5 and abs(hanging[0] - level[0]) <= 1
    assert all(np.abs(frames[0].astype(int) - frames[-1]).max() > 100 for _, frames in sources)


def test_clips_are_divided_within_each_sentence() -> None:
    learned, held_out = split(("a", "b") * 10, 0.3, 0)
    assert len(held_out) == 6 and sum(i % 2 for i in held_out) == 3 and not set(learned) & set(held_out)
    with pytest.raises(UserError, match="too few to learn from some"):
        split(("a", "b"), 0.3, 0)


def config(folder: Path, **changes) -> LivFitConfig:
    quick = {"clips": 10, "steps": 4, "batch_size": 3, "threads": 1, "progress": False, "crop": 0.5}
    return LivFitConfig(**{"out": str(folder), **quick, **changes})


def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    from vlmrl.workflows.liv import train

    whole = fit(config(tmp_path / "whole"))
    monkeypatch.setattr("vlmrl.workflows.liv.fit.SAVE_EVERY", 1)
    step = train.Training._step
    monkeypatch.setattr(train.Training, "_step", lambda self, i: (_ for _ in ()).throw(KeyboardInterrupt) if i == 2
                        else step(self, i))  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        fit(config(tmp_path / "cut"))
    assert (tmp_path / "cut" / "training.pt").is_file()
    with pytest.raises(UserError, match="interrupted run with other settings"):
        fit(config(tmp_path / "cut", steps=9))
    monkeypatch.setattr(train.Training, "_step", step)
    went_on = fit(config(tmp_path / "cut"))
    assert went_on["losses"] == whole["losses"] and went_on["after"] == whole["after"]
    name = "open_clip_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "figures.json", "open_clip_config.json", name,
    ]  # fmt: skip
    assert MiniConfig(path=str(tmp_path / "cut")).build("cpu").dim == 128  # encoder=mini encoder.path=<out>
    assert json.loads((tmp_path / "cut" / "figures.json").read_text())["clips"]["held_out"] == 5
    assert "own sentence is closest" in capsys.readouterr().out


@pytest.mark.parametrize("objective", ["liv", "triplet"])
def test_the_least_loss_makes_cosines_values(objective: str) -> None:
    """Embeddings that are free to go where they like: along both clips the cosine with the sentence comes to rise."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 4, 8, generator=generator, requires_grad=True)
    texts = torch.randn(2, 8, generator=generator, requires_grad=True)
    optimizer = torch.optim.Adam([frames, texts], lr=0.03)
    losses = []
    for step in range(300):
        now = step % 3
        moments = Moments(frames[:, 0], frames[:, 3], frames[:, now], frames[:, now + 1], frames[:, 3])
        if objective == "liv":
            loss = liv_loss(moments, texts, 0.9, 0, 1.0, generator)
        else:
            loss = triplet_loss(moments._replace(now=frames[:, 1 + step % 2]), texts, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-9:]) < np.mean(losses[:9]) - 0.1
    values = torch.nn.functional.cosine_similarity(frames, texts[:, None], dim=-1).detach().numpy()
    assert (values[:, 3] > values[:, 0]).all()
    other = torch.nn.functional.cosine_similarity(frames[:, 3], texts.flip(0), dim=-1).detach().numpy()
    assert (values[:, 3] > other).all()


def test_values_must_mean_the_same_in_every_clip_to_be_told_apart_together() -> None:
    """Both clips rise, but one begins above where the other ends."""
    shades = np.array([0.2, 0.6, 0.7, 0.9])
    frames = np.broadcast_to((255 * shades).astype(np.uint8)[:, None, None, None], (4, 8, 8, 3))
    found = measure(BrightnessEncoder(), Clips(frames, np.array([0, 2, 4]), ("bright", "bright")), [0, 1])
    assert found["ends_higher"]["mean"] == 1 and found["value_order"]["mean"] == 1
    assert found["auroc"]["mean"] == 0.75


def test_recorded_clips_need_sentences(tmp_path: Path) -> None:
    import cv2

    for name in ("one", "two"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "clips" / name / f"{i}.png"), np.full((20, 30, 3), 40 * i, np.uint8))
    with pytest.raises(UserError, match="clip one does not say what is done in it"):
        gather(str(tmp_path / "clips"), 0, "", (16, 16), tmp_path, 0, False)
    lines = [f"{name},{text}" for name, text in (("one", "open"), ("two", "shut")) for _ in range(3)]
    (tmp_path / "clips" / "steps.csv").write_text("\n".join(["episode,text", *lines]))
    clips: Clips = gather(str(tmp_path / "clips"), 0, "", (16, 16), tmp_path, 0, False)
    assert clips.texts == ("open", "shut") and clips.of(1).shape == (3, 16, 16, 3) and clips.of(1)[2].mean() == 80
    with pytest.raises(UserError, match="has no camera 'side'"):
        gather(str(tmp_path / "clips"), 0, "side", (16, 16), tmp_path / "clips", 0, False)


def settings(*overrides: str) -> FitConfig:
    values = plain(compose("fit", with_recipe(list(overrides))))
    return fit_settings({**values, "run_dir": "somewhere"})


def test_a_reward_is_fitted_as_naturally_as_an_encoder() -> None:
    liv = settings("reward=liv", "dataset=my_clips", "fit.objective=triplet")
    assert liv.recipe_name == "liv" and liv.recipe.dataset == "my_clips" and liv.recipe.objective == "triplet"
    assert settings("encoder=mini").recipe_name == "mini"
    with pytest.raises(UserError, match="'mini' draws its own frames"):
        settings("encoder=mini", "dataset=my_clips")
    with pytest.raises(UserError, match="'clip' has no training recipe. Available: .*liv, mini, .*perceptual"):
        settings("reward=clip")
    with pytest.raises(UserError, match="fit.gamma is 1"):
        settings("reward=liv", "fit.gamma=1")
