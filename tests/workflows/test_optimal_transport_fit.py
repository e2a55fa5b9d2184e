"""From demonstrations and preferences to a reward that training, relabelling and audits use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401  (registers environments)
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.fit import with_recipe
from vlmrl.reward_models.optimal_transport import Demonstrations, OptimalTransportConfig
from vlmrl.rows import Rows
from vlmrl.workflows.config.fit import fit_settings
from vlmrl.workflows.config.relabel import relabel_settings
from vlmrl.workflows.config.train import train_settings
from vlmrl.workflows.embedded_clips import read_preferences
from vlmrl.workflows.fit import fit
from vlmrl.workflows.optimal_transport.align import align, costs, principal
from vlmrl.workflows.optimal_transport.config import OptimalTransportFitConfig
from vlmrl.workflows.optimal_transport.fit import divide
from vlmrl.workflows.relabel.run import relabel
from vlmrl.workflows.train import train

QUIET = ("device=cpu", "progress_bar=false")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poles that come up and stay, as demonstrations, and six clips of which half do."""
    folder = tmp_path_factory.mktemp("transport")
    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=112, height=112)
    env.reset(seed=0)

    def write(path: Path, angles: tuple[float, ...]) -> None:
        path.mkdir(parents=True)
        for t, angle in enumerate(angles):
            env.unwrapped.state = np.array([0.0, 0, angle, 0])  # type: ignore[attr-defined]
            cv2.imwrite(str(path / f"{t}.png"), env.render()[..., ::-1])

    for i, side in enumerate((-1, 1)):
        write(folder / "shown" / f"up_{i}", tuple(side * angle for angle in (2.8, 2.0, 1.2, 0.5, 0.1, 0.0)))
    for i in range(6):
        ways = (2.9, 2.1, 1.1, 0.4, 0.05) if i % 2 == 0 else (2.9, 2.5, 2.9, 2.6, 3.0)
        write(folder / "mixed" / f"clip_{i}", tuple(angle + 0.03 * i for angle in ways))
    env.close()
    lines = [f"clip_{a},clip_{b}" for a in (0, 2, 4) for b in (1, 3, 5)]
    (folder / "preferences.csv").write_text("\n".join(["better,worse", *lines]) + "\n")
    return folder


def fitted(clips: Path, out: Path, *overrides: str) -> dict:
    values = plain(compose("fit", with_recipe(["reward=optimal_transport", "device=cpu", *for_hydra(overrides)])))
    return fit(fit_settings({**values, "progress_bar": False, "run_dir": str(out)}))


def test_what_matters_to_people_is_learned_and_what_does_not_is_left() -> None:
    """The demonstration differs from the better clips in what is loud and does not matter."""
    rng = np.random.default_rng(0)

    def clip(quiet: float) -> np.ndarray:
        loud = 4 * rng.normal(size=3)  # of the whole film, as the colour of a table
        return np.stack([[quiet, *(loud + 0.1 * rng.normal(size=3))] for _ in range(4)]).astype(np.float32)

    config = OptimalTransportFitConfig(
        out="x", dataset="x", steps=60, batch_size=8, learning_rate=0.05, temperature=0.2, progress=False
    )
    wanted = Demonstrations.of([clip(1.0)], "0")
    films = [clip(1.0 if i % 2 == 0 else -1.0) for i in range(28)]
    pairs = [(i, j) for i in range(0, 20, 2) for j in range(1, 20, 2)]
    start = principal(wanted, films[:20], 4)
    aligned, losses = align(start, films, pairs, config)

    def agreement(demonstrations: Demonstrations) -> float:
        cost = costs(demonstrations, films[20:], config.epsilon)
        return float(np.mean(cost[::2, None] < cost[None, 1::2]))

    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert agreement(aligned) > 0.9 > agreement(start)
    again, _ = align(start, films, pairs, config)
    np.testing.assert_array_equal(again.projection, aligned.projection)


def test_held_out_comparisons_have_a_clip_that_nothing_was_learned_from() -> None:
    pairs = [(i, j) for i in range(5) for j in range(5, 10)]
    learned, held_out = divide(pairs, 10, 0.3, 0)
    seen = {i for pair in learned for i in pair}
    assert sorted(learned + held_out) == pairs and all(set(pair) - seen for pair in held_out)
    with pytest.raises(UserError, match="too few"):
        divide([(0, 1)], 2, 0.5, 0)


def test_from_clips_and_preferences_to_demonstrations(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aligned = ("fit.steps=10", f"fit.clips={clips / 'mixed'}", f"fit.preferences={clips / 'preferences.csv'}")
    report = fitted(clips, tmp_path / "out", f"dataset={clips / 'shown'}", "fit.dim=8", *aligned)
    assert report["demonstrations"] == [6, 6] and sum(report["pairs"].values()) == 9
    assert report["after"]["mean"] == 1  # up against down is no riddle
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["pairs"] == report["pairs"]
    assert "reward=optimal_transport reward.demonstrations=" in capsys.readouterr().out.replace("\n", " ")
    model = OptimalTransportConfig(str(tmp_path / "out" / "demonstrations.npz")).build(None, MiniConfig().build("cpu"))
    assert model.demonstrations.projection.shape == (128, 8)
    with pytest.raises(UserError, match="says of no clip that it succeeded"):
        fitted(clips, tmp_path / "x", f"dataset={clips / 'shown'}", f"fit.clips={clips / 'mixed'}")
    with pytest.raises(UserError, match="embeddings have 128"):
        fitted(clips, tmp_path / "x", f"dataset={clips / 'shown'}", "fit.dim=200", *aligned)
    with pytest.raises(UserError, match="name the dataset that holds them"):
        fitted(clips, tmp_path / "x", f"dataset={clips / 'shown'}", "fit.preferences=x.csv")
    with pytest.raises(UserError, match="name them, dataset="):
        fitted(clips, tmp_path / "x")


def test_preferences_name_clips(tmp_path: Path) -> None:
    from vlmrl.workflows.audit.clips import Clip, Label

    films = [Clip(i, f"clip_{i}", "", {}, [], Label()) for i in range(3)]
    path = tmp_path / "preferences.csv"
    path.write_text("better,worse\nclip_0,2\n1,clip_0\n")
    assert read_preferences(str(path), films) == [(0, 2), (1, 0)]
    for text, said in (
        ("better,worse\nclip_0,clip_9\n", "clip_9"),
        ("better,worse\n1,1\n", "with itself"),
        ("better,worse\n", "no comparison"),
        ("a,b\n", "has the columns a, b"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_preferences(str(path), films)
    with pytest.raises(UserError, match="there is no file"):
        read_preferences("nowhere.csv", films)


@pytest.fixture(scope="module")
def demonstrations(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demonstrations")
    fitted(clips, out, f"dataset={clips / 'shown'}")
    return out / "demonstrations.npz"


def test_recordings_are_relabelled_with_what_the_whole_episode_earns(
    clips: Path, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [f"dataset={clips / 'mixed'}", "reward=optimal_transport", f"reward.demonstrations={demonstrations}"]
    values = plain(compose("relabel", for_hydra([*asked, "encoder.any_env=true", "out=table.csv", *QUIET])))
    relabel(relabel_settings(values))
    lines = [line.split(",") for line in Path("table.csv").read_text().splitlines()[1:]]
    found = {name: [float(value) for own, _, value in lines if own == name and value] for name, _, _ in lines}
    assert np.mean(found["clip_0"]) > np.mean(found["clip_1"])
    encoder = MiniConfig().build("cpu")
    frames = np.stack([cv2.imread(str(clips / "mixed" / "clip_0" / f"{t}.png"))[..., ::-1] for t in range(5)])
    model = OptimalTransportConfig(str(demonstrations)).build(None, encoder)
    rewards = model(Rows(np.arange(5), {"embeddings": {"front": encoder.encode_images(frames)}}))
    np.testing.assert_allclose(found["clip_0"][-4:], rewards[1:], atol=1e-4)


def test_an_agent_with_a_replay_buffer_trains_on_it_and_others_are_refused(
    demonstrations: Path, tmp_path: Path
) -> None:
    asked = ["env=cartpole", "agent=dqn", "reward=optimal_transport", f"reward.demonstrations={demonstrations}"]
    small = ["total_timesteps=96", "n_envs=1", "env.max_episode_steps=10", "audit=false", *QUIET]
    rest = [
        "agent.learning_starts=20",
        "agent.train_freq=4",
        "agent.gradient_steps=1",
        "eval_episodes=1",
        "video=false",
    ]
    values = plain(compose("train", for_hydra([*asked, *small, *rest]))) | {"run_dir": str(tmp_path / "run")}
    folder = train(train_settings(values))
    policies = json.loads(folder.result.read_text())["policies"]
    assert -10 * 2 <= policies["trained"]["model_reward"]["mean"] < 0
    early = train_settings(values)
    early = replace(early, run_dir=str(tmp_path / "early"))
    early = replace(early, agent=replace(early.agent, config=replace(early.agent.config, learning_starts=5)))
    with pytest.raises(UserError, match=r"raise agent.learning_starts \(5\)"):
        train(early)
    on_policy = plain(compose("train", for_hydra([*asked, "agent=ppo", *small])))
    with pytest.raises(UserError, match="PPO learns from rollouts"):
        train(train_settings(on_policy | {"run_dir": str(tmp_path / "ppo")}))
    assert not (tmp_path / "early").exists() and not (tmp_path / "ppo").exists()  # said before anything is made
