from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO, SAC

from tests.agents.test_checkpoints import MAKERS, Stop, build, environments
from vlmrl.agents import checkpoints
from vlmrl.agents.callbacks import RewardLog
from vlmrl.agents.checkpoints import CheckpointCallback
from vlmrl.agents.keep_best import KeepBest


class Fixed:
    """Stands in for an algorithm: saves the step it is at."""

    num_timesteps = 0

    def save(self, path: Path) -> None:
        path.write_text(str(self.num_timesteps))


def scored(path: Path, *windows: list[float]) -> KeepBest:
    keeper = KeepBest(path, window=2)
    model = Fixed()
    keeper.model = model  # type: ignore[assignment]
    for step, returns in enumerate(windows, start=1):
        model.num_timesteps = keeper.num_timesteps = step
        for value in returns:
            keeper.add(value)
        keeper._on_rollout_end()
    return keeper


@pytest.mark.parametrize(
    ("windows", "best", "at"),
    [
        (([1.0], [3.0], [2.0, 2.5]), 2.25, 3),
        (([3.0, 1.0], [9.0], [-7.0]), 2.0, 1),  # one lucky episode counts in one score
        (([1.0, 1.0, 4.0], [1.9, 1.9]), 2.0, 1),  # all since the last score
        (([1.0, 1.0], [1.0, 1.0]), 1.0, 1),  # the first of equals
        (([5.0],), None, 0),
    ],
)
def test_the_best_window_decides(tmp_path: Path, windows: Any, best: float | None, at: int) -> None:
    path = tmp_path / "best.zip"
    keeper = scored(path, *windows)
    assert keeper.best == best and keeper.at == at
    assert path.exists() == (best is not None)
    if best is not None:
        assert path.read_text() == str(at)


def test_a_checkpoint_without_a_best_policy_forgets_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    scored(tmp_path / "a.zip", [1.0]).save(tmp_path / "checkpoint")
    later = scored(tmp_path / "b.zip", [1.0, 2.0])
    later.restore(tmp_path / "checkpoint")
    assert later.best is None and later._returns == [1.0] and not later.path.exists()


def callbacks(model: Any, folder: Path, truth: bool) -> tuple[KeepBest, list[Any]]:
    folder.mkdir(exist_ok=True)
    keeper = KeepBest(folder / "best.zip", window=4, truth=truth)
    rewards = checkpoints._reward_env(model).rewards
    log = RewardLog(rewards, lines=0, listeners=[] if truth else [keeper.add])
    return keeper, [log, keeper, CheckpointCallback(folder, every=100, patience=12, companions=[keeper])]


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_a_resumed_run_keeps_the_same_policy_to_the_bit(tmp_path: Path, name: str) -> None:
    whole = build(name, (7, 12))
    best, listed = callbacks(whole, tmp_path / "whole", truth=False)
    whole.learn(600, callback=listed)
    assert best.best is not None

    first = build(name, (7, 12))
    _, listed = callbacks(first, tmp_path / "parts", truth=False)
    first.learn(600, callback=[*listed, Stop(260)])
    (tmp_path / "parts" / "best.zip").write_text("of a future that never was")
    checkpoint = checkpoints.newest(tmp_path / "parts")
    resumed = KeepBest(tmp_path / "parts" / "best.zip", window=4)
    algorithm = MAKERS[name][0]
    second = checkpoints.restore(algorithm, checkpoint, environments((7, 12), name), "cpu", [resumed])
    log = RewardLog(checkpoints._reward_env(second).rewards, lines=0, listeners=[resumed.add])
    rest = 600 - second.num_timesteps
    second.learn(
        rest,
        reset_num_timesteps=False,
        callback=[log, resumed, CheckpointCallback(tmp_path / "parts", 100, 12, [resumed])],
    )
    assert (resumed.best, resumed.at, resumed._returns) == (best.best, best.at, best._returns)
    ours = algorithm.load(resumed.path, device="cpu").policy.state_dict()
    theirs = algorithm.load(best.path, device="cpu").policy.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_truth_can_decide(tmp_path: Path) -> None:
    model = build("ppo", (10, 10))
    keeper = KeepBest(tmp_path / "best.zip", window=2, truth=True)
    keeper.model = model
    keeper.locals = {"infos": [{"episode": {"r": 3.0}}, {}, {"episode": {"r": 1.0}}]}
    keeper._on_step()
    keeper._on_rollout_end()
    assert keeper.best == 2.0
    assert PPO.load(keeper.path, device="cpu").n_steps == model.n_steps


def test_an_on_policy_learner_keeps_the_policy_that_earned_the_score(tmp_path: Path) -> None:
    """What is saved is the policy before the update that these episodes lead to."""
    model = build("ppo", (10, 10))
    untrained = {key: value.clone() for key, value in model.policy.state_dict().items()}
    keeper, listed = callbacks(model, tmp_path / "run", truth=False)
    keeper.window = 2
    model.learn(20, callback=listed[:2])  # one rollout of one episode in each environment, then an update
    kept = PPO.load(keeper.path, device="cpu").policy.state_dict()
    assert all(torch.equal(kept[key], untrained[key]) for key in kept)
    assert any(not torch.equal(untrained[key], value) for key, value in model.policy.state_dict().items())


def test_nothing_is_saved_into_a_checkpoint_that_is_not_asked_for(tmp_path: Path) -> None:
    model = build("sac", (10, 10))
    assert isinstance(model, SAC)
    model.learn(40)
    checkpoint = checkpoints.save(model, tmp_path)
    assert sorted(path.name for path in checkpoint.path.iterdir()) == ["model.zip", "replay_buffer.pkl", "state.pkl"]
