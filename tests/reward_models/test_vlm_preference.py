"""What the model learns from answers whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.preference_data import AnsweredPairs
from vlmrl.reward_models.vlm_preference import VlmPreferenceConfig, VlmPreferenceReward
from vlmrl.rows import Row, RowKey, Rows


def make(**settings: Any) -> VlmPreferenceReward:
    return VlmPreferenceConfig(
        **{"net_arch": (16,), "learning_rate": 1e-2, "max_epochs": 25, "ensemble": 2, **settings}
    ).build(Words(("up",)), None)


def vectors(n: int, seed: int, length: int = 1) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Clips of unit vectors; the first entry says how good a step is, in a narrow band as embeddings have it."""
    values = np.random.default_rng(seed).normal(0, 0.02, size=(n, length, 6)).astype(np.float32) + 0.4
    return [{"embeddings/front": clip} for clip in values], values[..., 0].sum(axis=1)


def answered(
    clips: list[dict[str, np.ndarray]], worth: np.ndarray, n: int, seed: int = 0, wrong: float = 0.0, tie: float = 0.0
) -> AnsweredPairs:
    rng, pairs = np.random.default_rng(seed), AnsweredPairs(0.2)
    for i, j in rng.integers(len(clips), size=(n, 2)):
        verdict = "left" if worth[i] > worth[j] else "right"
        if rng.random() < wrong:
            verdict = "right" if verdict == "left" else "left"
        pairs.add(clips[i], clips[j], "tie" if abs(worth[i] - worth[j]) <= tie else verdict)  # type: ignore[arg-type]
    return pairs


def agreement(model: VlmPreferenceReward, clips: list[dict[str, np.ndarray]], worth: np.ndarray) -> float:
    stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
    returns = model.clip_returns(stacked)
    assert returns is not None
    predicted = returns.mean(axis=0)
    i, j = np.random.default_rng(9).integers(len(clips), size=(2, 2000))
    return float(((predicted[i] > predicted[j]) == (worth[i] > worth[j]))[worth[i] != worth[j]].mean())


@pytest.mark.parametrize("settings", [{}, {"squash": False}, {"ties": "davidson"}, {"ties": "drop"}, {"rime": True}])
def test_it_learns_what_is_preferred_and_says_so_on_clips_it_never_saw(settings: dict[str, Any]) -> None:
    model = make(**settings)
    clips, worth = vectors(150, seed=0)
    metrics = {}
    for n in (60, 120) if settings.get("rime") else (120,):  # RIME distrusts what the version before finds odd
        metrics = model.update(answered(clips, worth, n, tie=0.002), seed=0)
    assert model.version == (2 if settings.get("rime") else 1)
    fresh, truth = vectors(300, seed=1)
    assert agreement(model, fresh, truth) > 0.85
    assert metrics["accuracy"] > 0.8 and metrics["brier"] < 0.2 and 0 <= metrics["ece"] < 0.35


def test_clips_of_several_steps_are_worth_the_sum_of_their_steps() -> None:
    model = make()
    clips, worth = vectors(200, seed=0, length=5)
    model.update(answered(clips, worth, 200), seed=0)
    single, truth = vectors(300, seed=1)  # credit goes to the steps, though only clips were compared
    assert agreement(model, single, truth) > 0.8


def test_training_stops_by_answers_held_out_and_not_by_what_it_knows_by_heart() -> None:
    """Answers that are pure chance can be learned by heart, and nothing can be learned from them."""
    clips, _ = vectors(300, seed=0)
    worth = np.random.default_rng(5).normal(size=300)
    noise = answered(clips, worth, 150, wrong=0.5)
    metrics = make(net_arch=(64, 64), max_epochs=100, learning_rate=3e-3, weight_decay=0.0).update(noise, seed=0)
    assert metrics["epochs"] < 30
    assert 0.2 < metrics["accuracy"] < 0.8
    assert metrics["brier"] < 0.33  # it is not sure of what it cannot know


def test_nothing_is_known_before_the_first_answers() -> None:
    model = make()
    clips, worth = vectors(10, seed=0)
    rows = Rows.from_arrays({"embeddings/front": np.concatenate([clip["embeddings/front"] for clip in clips])})
    assert model(rows).tolist() == [0.0] * 10
    assert np.isnan(model.uncertainty(rows)).all() and model.pop_uncertainty() is None
    with pytest.raises(ValueError, match="10 are needed"):
        model.update(answered(clips, worth, 9), seed=0)


def test_uncertainty_is_greater_where_there_were_no_answers() -> None:
    model = make(ensemble=4, squash=False)
    clips, worth = vectors(150, seed=0)
    model.update(answered(clips, worth, 120), seed=0)
    rng = np.random.default_rng(0)
    known = Rows.from_arrays({"embeddings/front": rng.normal(0.4, 0.02, size=(200, 6)).astype(np.float32)})
    strange = Rows.from_arrays({"embeddings/front": rng.normal(-0.4, 0.3, size=(200, 6)).astype(np.float32)})
    assert model.uncertainty(strange).mean() > 1.5 * model.uncertainty(known).mean()
    model(known)
    assert model.pop_uncertainty() == pytest.approx(model.uncertainty(known).mean(), rel=1e-5)


def test_the_same_answers_give_the_same_version_and_nobody_elses_draws_are_touched() -> None:
    clips, worth = vectors(50, seed=0)
    rows = Rows.from_arrays(clips[0])
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second, other = make(), make(), make()
    for model, seed in ((first, 0), (second, 0), (other, 1)):
        model.update(answered(clips, worth, 60), seed=seed)
    assert first(rows) == second(rows) != other(rows)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("network", ["embeddings", "cnn"])
def test_what_was_learned_is_saved_and_read(tmp_path: Path, network: str) -> None:
    model = make(input=network, image_size=55)
    rng = np.random.default_rng(0)
    name, shape = ("frames/front", (1, 55, 55, 3)) if network == "cnn" else ("embeddings/front", (1, 6))
    clips = [{name: (rng.random(shape) * 255).astype(np.uint8 if network == "cnn" else np.float32)} for _ in range(20)]
    model.update(answered(clips, rng.normal(size=20), 12), seed=0)
    path = tmp_path / "reward_model.safetensors"
    model.save(path)
    settings = {"net_arch": (16,), "ensemble": 2, "input": network, "image_size": 55, "weights": str(path)}
    again = VlmPreferenceConfig(**settings).build(None, None)
    rows = Rows.from_arrays(clips[0])
    assert again.version == 1 and again(rows) == model(rows)
    for wrong, message in (({"input": "state"}, "other inputs"), ({"ensemble": 3}, "another size")):
        with pytest.raises(UserError, match=message):
            VlmPreferenceConfig(**{**settings, **wrong}).build(None, None)
    path.write_text("nonsense")
    with pytest.raises(UserError, match="holds no reward model"):
        VlmPreferenceConfig(**settings).build(None, None)


def test_pictures_are_learned_from_and_kept_small() -> None:
    """The brighter picture is better."""
    model = make(input="cnn", image_size=55, ensemble=1, max_epochs=10, learning_rate=1e-3)
    levels = np.random.default_rng(0).integers(0, 256, size=40)
    clips = [{"frames/front": np.full((1, 55, 55, 3), level, np.uint8)} for level in levels]
    model.update(answered(clips, levels.astype(float), 60), seed=0)
    assert agreement(model, clips, levels.astype(float)) > 0.9
    row = model.prepare(RowKey(0, 0, 1), Row(frames={"front": np.full((112, 112, 3), 200, np.uint8)}))
    assert row.frames is not None and row.frames["front"].shape == (55, 55, 3)
    large = Rows.from_arrays({"frames/front": np.full((1, 112, 112, 3), 200, np.uint8)})
    small = Rows.from_arrays({"frames/front": row.frames["front"][None]})
    np.testing.assert_allclose(model(large), model(small), atol=1e-6)


def test_a_resnet_looks_at_two_cameras() -> None:
    model = make(input="resnet", image_size=55, ensemble=1, max_epochs=1, squash=False)
    views = np.random.default_rng(0).integers(0, 256, size=(10, 2, 1, 55, 55, 3), dtype=np.uint8)
    clips = [{"frames/front": front, "frames/side": side} for front, side in views]
    model.update(answered(clips, np.arange(10.0), 12), seed=0)
    rewards = model(Rows.from_arrays({name: np.concatenate([clip[name] for clip in clips]) for name in clips[0]}))
    swapped = model(Rows.from_arrays({"frames/front": views[:, 1, 0], "frames/side": views[:, 0, 0]}))
    assert len(set(rewards.tolist())) == 10 and not np.allclose(rewards, swapped)


def test_states_of_several_quantities_and_two_cameras() -> None:
    rng = np.random.default_rng(0)
    for field, shapes in (("state", {"angle": (), "joints": (3,)}), ("embeddings", {"front": (4,), "side": (4,)})):
        model = make(input=field)
        clips = [
            {f"{field}/{name}": rng.normal(size=(1, *shape)).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(80)
        ]
        worth = np.array([float(np.sum(clip[f"{field}/{next(iter(shapes))}"])) for clip in clips])
        model.update(answered(clips, worth, 120), seed=0)
        assert agreement(model, clips, worth) > 0.8


def test_held_out_answers_lie_among_the_others() -> None:
    pairs = AnsweredPairs(0.2)
    for _ in range(50):
        pairs.add({}, {}, "left")
    held = np.flatnonzero(pairs.is_held_out)
    assert len(held) == 10 and (np.diff(held) == 5).all()
    before = pairs.is_held_out
    pairs.add({}, {}, "tie")
    assert (pairs.is_held_out[:50] == before).all()  # an answer that was learned from is never held out later
    with pytest.raises(KeyError):
        pairs.add({}, {}, "abstain")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"input": "cnn", "image_size": 32}, "55 to 84"), ({"input": "resnet", "image_size": 224}, "55 to 84")],
)
def test_pictures_of_other_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VlmPreferenceConfig(**settings)
