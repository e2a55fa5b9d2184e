"""`vlmrl.train` from recordings, as a person runs it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from tests.agents.offline.recordings import LINE, on_a_line
from vlmrl.agents.offline.iql import IQL
from vlmrl.commands import compose, plain
from vlmrl.datasets.base import Episode
from vlmrl.datasets.minari import MinariData
from vlmrl.datasets.writers import WRITERS, Recording
from vlmrl.errors import UserError
from vlmrl.workflows.config.evaluate import evaluate_settings
from vlmrl.workflows.config.train import TrainConfig, resumed_settings, train_settings
from vlmrl.workflows.evaluate import evaluate
from vlmrl.workflows.run_folder import RunFolder
from vlmrl.workflows.train_offline import train_offline

QUICK = ["total_timesteps=40", "checkpoint_every=20", "eval_episodes=2",
         "n_envs=2", "video=false", "progress_bar=false", "device=cpu", "threads=1"]  # fmt: skip


def settings(tmp_path: Path, *overrides: str) -> TrainConfig:
    values = plain(compose("train", [*QUICK, f"video_dir={tmp_path / 'videos'}", *overrides]))
    if values["agent"]["name"] in ("iql", "bc"):
        values["agent"] |= {"net_arch": [8], "block_size": 10}
    return train_settings({**values, "run_dir": str(tmp_path / "runs" / "scene" / "run")})


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a cart and pole that is pushed at random, with the scene that it comes from."""
    from vlmrl.envs.make import EnvSettings, make_env

    config = train_settings(plain(compose("train", ["env=cartpole", "reward=ground_truth"])))
    env = make_env(EnvSettings(config.env.id, config.make_task(), 64, 64))
    metadata = {"env": vars(config.env), "task": vars(config.task)}
    return record(tmp_path_factory.mktemp("data") / "cartpole-v0", env, metadata)


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a point on a line, and keep to oneself what that was."""
    path = tmp_path_factory.mktemp("data") / "line-v0"
    writer = WRITERS.load("minari")(str(path))
    writer.start(recording(**LINE))
    data = on_a_line(episodes=4, length=5)
    for i in range(4):
        rows = slice(5 * i, 5 * i + 5)
        seen = np.concatenate([data.observations[rows], data.next_observations[rows][-1:]])
        writer.add(
            Episode(
                i,
                5,
                seen,
                data.actions[rows],
                data.rewards[rows].astype(np.float64),
                data.terminations[rows],
                data.timeouts[rows],
            )  # fmt: skip
        )
    writer.finish()
    return path


def record(path: Path, env: gym.Env, metadata: dict[str, Any]) -> Path:
    writer = WRITERS.load("minari")(str(path))
    writer.start(recording(env.observation_space, env.action_space, metadata))
    env.action_space.seed(0)
    for number in range(3):
        seen, actions, rewards, over = [env.reset(seed=number)[0]], [], [], False
        while not over:
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(float(reward))
            over = terminated or truncated
        ends = np.zeros(len(rewards), dtype=bool)
        cut = ends.copy()
        cut[-1] = True
        writer.add(Episode(number, len(rewards), np.stack(seen), np.stack(actions), np.array(rewards), ends, cut))
    writer.finish()
    env.close()
    return path


def recording(
    observation_space: gym.Space, action_space: gym.Space, metadata: dict[str, Any] | None = None
) -> Recording:
    return Recording(
        observation_space=observation_space, action_space=action_space, fps=None, text="", env_spec=None,
        metadata=metadata or {}, description="made by a test",
    )  # fmt: skip


def test_without_env_the_policy_is_measured_where_it_was_recorded(tmp_path: Path, cartpole: Path) -> None:
    folder = train_offline(settings(tmp_path, "env=none", f"dataset={cartpole}"))
    result = json.loads(folder.result.read_text())
    assert set(result["policies"]) == {"trained", "untrained", "random", "zero"}
    assert result["policies"]["trained"]["success"]["interval"]
    assert result["data"]["episodes"] == 3 and result["steps"] == 40
    assert folder.read_config()["env"]["name"] == "cartpole"
    assert (folder.path / "progress.csv").read_text().count("\n") >= 2
    assert list(folder.path.glob("events.out.tfevents.*"))
    values = plain(compose("evaluate", ["episodes=2", "n_envs=2", "progress_bar=false", "threads=1", "device=cpu"]))
    measured = evaluate(evaluate_settings({**values, "runs": [str(folder.path)], "run_dir": str(tmp_path / "again")}))
    (episodes,) = measured.values()
    assert len(episodes.success) == 2


def test_with_no_environment_anywhere_the_policy_is_saved(
    tmp_path: Path, nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_offline(settings(tmp_path, "env=none", "agent=bc", f"dataset={nowhere}"))
    assert json.loads(folder.result.read_text())["policies"] == {}
    said = capsys.readouterr().out
    assert "no environment; the policy is saved" in said and "vlmrl.evaluate env=<name>" in said
    with pytest.raises(UserError, match="env=none names no environment"):
        values = plain(compose("evaluate", ["episodes=1"]))
        evaluate(evaluate_settings({**values, "runs": [str(folder.path)], "run_dir": str(tmp_path / "again")}))


def test_an_environment_of_another_kind_is_refused(tmp_path: Path, nowhere: Path) -> None:
    with pytest.raises(UserError, match="and this environment has"):
        train_offline(settings(tmp_path, "env=cartpole", "agent=iql", "reward=ground_truth", f"dataset={nowhere}"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("agent", ["iql", "bc"])
def test_a_resumed_run_ends_in_the_same_weights(
    tmp_path: Path, nowhere: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["env=none", f"agent={agent}", f"dataset={nowhere}", "agent.dropout=0.1"]
    whole = train_offline(settings(tmp_path / "whole", *overrides))
    # Ctrl-C in the middle: what was learned is saved, and the run goes on from there.
    stopped = interrupted(monkeypatch, settings(tmp_path / "half", *overrides), after=30)
    assert json.loads(stopped.result.read_text())["steps"] == 30
    monkeypatch.undo()
    again = resumed_settings(
        {"resume": str(stopped.path), "run_dir": str(stopped.path)}, stopped.read_config(), ["resume"]
    )
    train_offline(again)
    kind = again.agent.config.algorithm()
    for name, weights in kind.load(whole.model).policy.state_dict().items():
        assert torch.equal(weights, kind.load(stopped.model).policy.state_dict()[name]), name
    with pytest.raises(UserError, match="nothing left to do.*stands at step 40"):
        train_offline(again)


def interrupted(monkeypatch: pytest.MonkeyPatch, config: TrainConfig, after: int) -> RunFolder:
    class Press(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == after:
                signal.raise_signal(signal.SIGINT)
            return True

    learn = IQL.__mro__[1].learn  # of all learners of recordings

    def pressed(self: Any, steps: int, callback: Sequence[BaseCallback], **kwargs: Any) -> Any:
        stop, *others = callback
        return learn(self, steps, [Press(), stop, *others], **kwargs)

    monkeypatch.setattr(IQL.__mro__[1], "learn", pressed)
    return train_offline(config)


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, nowhere: Path) -> None:
    dataset = Path(shutil.copytree(nowhere, tmp_path / "line-v0"))
    folder = train_offline(settings(tmp_path, "env=none", f"dataset={dataset}"))
    again = resumed_settings(
        {"resume": str(folder.path), "run_dir": str(folder.path), "total_timesteps": 80},
        folder.read_config(),
        ["resume", "total_timesteps"],
    )
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        file["episode_2/rewards"][3] += 0.25
    with pytest.raises(UserError, match="has changed since the run"):
        train_offline(again)
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        file["episode_2/rewards"][3] -= 0.25
    assert json.loads(train_offline(again).result.read_text())["steps"] == 80


def test_pictures_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    writer = WRITERS.load("minari")(str(tmp_path / "pictures-v0"))
    writer.start(recording(space, LINE["action_space"]))
    ends = np.arange(5) == 4
    writer.add(
        Episode(0, 5, np.zeros((6, 8, 8, 3), np.uint8), np.zeros((5, 1), np.float32), np.zeros(5), ends, ends & False)
    )
    writer.finish()

    def never(*_: Any) -> Any:
        raise AssertionError("an episode was read")

    monkeypatch.setattr(MinariData, "episode", never)
    with pytest.raises(UserError, match="are pictures"):
        train_offline(settings(tmp_path, "env=none", "agent=bc", f"dataset={tmp_path / 'pictures-v0'}"))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["env=none", "agent=iql"], "agent=iql learns from recordings: dataset="),
        (["env=cartpole", "agent=ppo", "dataset=x"], "dataset= is for agents that learn from recordings"),
        (["env=none", "agent=sac"], "agent=sac needs an environment"),
        (["env=none", "dataset=x", "use_as=potential"], "use_as=potential is for agents that act"),
        (["env=none", "dataset=x", "keep=best"], "keep=best is for agents that act"),
        (["env=none", "dataset=x", "agent.reward_scale=-1"], "reward_scale is '-1'"),
        (["env=none", "dataset=nothing/like_this-v0"], "dataset=nothing/like_this-v0 is no dataset"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        train_offline(settings(tmp_path, *overrides))
    assert says in str(error.value)


def test_the_papers_settings_are_presets(tmp_path: Path) -> None:
    config = settings(tmp_path, "env=none", "dataset=x", "preset=iql_antmaze").agent.config
    assert (config.expectile, config.beta) == (0.9, 10.0)
    assert (float(config.reward_scale), float(config.reward_shift)) == (1.0, -1.0)
    config = settings(tmp_path, "env=none", "dataset=x", "preset=iql_kitchen_adroit").agent.config
    assert (config.expectile, config.beta, config.dropout) == (0.7, 0.5, 0.1)
