"""Implicit Q-learning and behaviour cloning: what they learn, and that they are algorithms like SB3's."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from tests.agents.offline.recordings import CORRIDOR, LINE, along_a_corridor, on_a_line
from tests.toys import PointEnv
from vlmrl.agents.offline.algorithm import OfflineAlgorithm
from vlmrl.agents.offline.bc import BC
from vlmrl.agents.offline.data import controlled, reward_factor
from vlmrl.agents.offline.iql import IQL
from vlmrl.agents.reference_policies import acting_part
from vlmrl.datasets.base import Transitions
from vlmrl.errors import UserError
from vlmrl.workflows.policies import algorithm_of

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [32, 32]}, "device": "cpu", "seed": 0, "learning_rate": 3e-3}
ALGORITHMS = [IQL, BC]


def test_on_mixed_data_iql_finds_the_best_actions_and_bc_the_usual_ones() -> None:
    data = on_a_line()
    env = Monitor(gym.wrappers.TimeLimit(PointEnv(), 20))
    returns = {}
    for kind, quick in ((IQL, {"tau": 0.05}), (BC, {})):  # Q follows in 400 updates
        model = kind("MlpPolicy", env, data, **SMALL, **quick).learn(400)
        env.reset(seed=0)
        returns[kind], _ = evaluate_policy(model, env, n_eval_episodes=10)
    env.reset(seed=0)
    best = _returns_of_always_right(env)
    assert returns[IQL] > 0.9 * best
    assert returns[BC] < 0.6 * best


def _returns_of_always_right(env: gym.Env, episodes: int = 10) -> float:
    totals = []
    for _ in range(episodes):
        env.reset()
        total, over = 0.0, False
        while not over:
            _, reward, _, over, _ = env.step(np.array([1.0]))
            total += float(reward)
        totals.append(total)
    return float(np.mean(totals))


def test_discrete_actions_and_known_values() -> None:
    """Along the corridor the best value is gamma^k, k steps before the end; a high expectile comes near to it."""
    data = along_a_corridor()
    rooms = np.arange(4)
    model = IQL(dataset=data, **CORRIDOR, **SMALL, gamma=0.9, expectile=0.99, beta=20.0, reward_scale=1.0, tau=0.05)
    model.learn(500)
    assert (model.predict(rooms, deterministic=True)[0] == 1).all()
    with torch.no_grad():
        values = model.policy.value_net(torch.eye(5)[:4]).squeeze(1)
    assert values.tolist() == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0], abs=0.1)
    cloned = BC(dataset=data, **CORRIDOR, **SMALL).learn(200)
    assert (cloned.predict(rooms, deterministic=True)[0] == 0).all()  # what the recordings do most
    torch.manual_seed(0)
    drawn = np.array([cloned.predict(rooms)[0] for _ in range(100)])
    assert drawn.mean() == pytest.approx(0.3, abs=0.06)  # and as often as they do it


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_what_is_saved_acts_alike_and_learns_on_to_the_bit(kind: type[OfflineAlgorithm], tmp_path: Path) -> None:
    data, seen = on_a_line(), np.linspace(0, 1, 7, dtype=np.float32)[:, None]
    whole = kind(dataset=data, **LINE, **SMALL, block_size=20).learn(80)
    half = kind(dataset=data, **LINE, **SMALL, block_size=20)
    half.learn(80, callback=StopAt(40))
    assert half.num_timesteps == 40
    half.save(tmp_path / "model.zip")
    loaded = kind.load(tmp_path / "model.zip", device="cpu")
    assert algorithm_of(tmp_path / "model.zip") == kind.__name__.lower()
    np.testing.assert_array_equal(
        loaded.predict(seen, deterministic=True)[0], half.predict(seen, deterministic=True)[0]
    )
    loaded.set_dataset(data)
    loaded.learn(40, reset_num_timesteps=False)
    for name, weights in whole.policy.state_dict().items():
        assert torch.equal(weights, loaded.policy.state_dict()[name]), name
    part = acting_part(whole)
    part.save(str(tmp_path / "policy.pth"))
    alone = type(part).load(str(tmp_path / "policy.pth"), device="cpu")
    np.testing.assert_array_equal(
        alone.predict(seen, deterministic=True)[0], whole.predict(seen, deterministic=True)[0]
    )


class StopAt(BaseCallback):
    def __init__(self, step: int):
        super().__init__()
        self._step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self._step


def test_actions_come_in_the_units_of_their_space() -> None:
    data = on_a_line(right=1.0)
    wide = Transitions(**{**vars(data), "actions": data.actions * 5 + 10})
    spaces = {"observation_space": LINE["observation_space"], "action_space": gym.spaces.Box(5, 15, (1,))}
    model = BC(dataset=wide, **spaces, **SMALL).learn(200)
    assert model.predict(np.array([0.5], dtype=np.float32), deterministic=True)[0] == pytest.approx(13.75, abs=0.5)
    drawn = model.predict(np.full((500, 1), 0.5, dtype=np.float32))[0]
    assert drawn.std() > 0.3 and drawn.min() >= 5 and drawn.max() <= 15


def test_a_space_without_bounds_takes_those_of_the_data() -> None:
    data = on_a_line()
    two = np.concatenate([data.actions * 3, np.full_like(data.actions, 7.0)], axis=1)
    spaces = {"observation_space": LINE["observation_space"], "action_space": gym.spaces.Box(-np.inf, np.inf, (2,))}
    model = BC(dataset=Transitions(**{**vars(data), "actions": two}), **spaces, **SMALL).learn(100)
    low, high = model.policy.action_low.numpy(), model.policy.action_high.numpy()
    assert low == pytest.approx([two[:, 0].min(), 6.5]) and high == pytest.approx([two[:, 0].max(), 7.5])
    assert model.predict(np.array([[0.5]], dtype=np.float32), deterministic=True)[0][0, 1] == pytest.approx(7, abs=0.2)


def test_dict_observations_have_the_order_of_the_dataset() -> None:
    from vlmrl.datasets.base import flatten

    space = gym.spaces.Dict({"z": gym.spaces.Discrete(3), "a": gym.spaces.Box(-1, 1, (2,))})
    seen = {"z": np.array([2, 0]), "a": np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)}
    model = BC(observation_space=space, action_space=LINE["action_space"], **SMALL)
    tensors, _ = model.policy.obs_to_tensor(seen)
    np.testing.assert_array_equal(model.policy._flatten(tensors).numpy(), flatten(space, seen))


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        (gym.spaces.Discrete(5, start=1), np.array([1, 5, 3])),
        (gym.spaces.MultiDiscrete([3, 2], start=[-1, 4]), np.array([[-1, 5], [1, 4]])),
        (
            gym.spaces.Dict({"room": gym.spaces.Discrete(4, start=2), "a": gym.spaces.Box(-1, 1, (1,))}),
            {"room": np.array([2, 5]), "a": np.array([[0.1], [0.2]], dtype=np.float32)},
        ),
    ],
)
def test_observations_that_do_not_start_at_0_are_seen_as_in_the_dataset(space: gym.Space, seen: Any) -> None:
    from vlmrl.datasets.base import flatten

    model = BC(observation_space=space, action_space=LINE["action_space"], **SMALL)
    tensors, _ = model.policy.obs_to_tensor(seen)
    np.testing.assert_array_equal(model.policy._flatten(tensors).numpy(), flatten(space, seen))
    assert len(model.predict(seen)[0]) == len(flatten(space, seen))


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_callbacks_of_sb3_find_the_environment_that_was_given(kind: type[OfflineAlgorithm], tmp_path: Path) -> None:
    env, other = (gym.wrappers.TimeLimit(PointEnv(), 20) for _ in range(2))
    evaluate = EvalCallback(Monitor(other), n_eval_episodes=2, eval_freq=2, verbose=0, warn=False)
    model = kind("MlpPolicy", env, on_a_line(episodes=5), **SMALL, block_size=10).learn(40, callback=evaluate)
    assert 0 < evaluate.last_mean_reward <= 20
    kept = model.get_env()
    assert kept is not None and kept.envs[0].unwrapped is env.unwrapped and model.n_envs == 1  # type: ignore[attr-defined]
    model.save(tmp_path / "model.zip")
    assert kind.load(tmp_path / "model.zip", device="cpu").get_env() is None
    assert kind.load(tmp_path / "model.zip", env=kept, device="cpu").get_env() is kept


def test_an_environment_that_was_made_here_is_closed_with_the_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control.pendulum import PendulumEnv

    closed = []
    monkeypatch.setattr(PendulumEnv, "close", lambda self: closed.append(self))
    model = BC("MlpPolicy", "Pendulum-v1", **SMALL)
    assert model.get_env() is not None and not closed
    del model
    gc.collect()
    assert len(closed) == 1


def test_rewards_are_scaled_by_the_spread_of_the_returns() -> None:
    data = on_a_line(episodes=3, length=2)
    rewards = np.array([1, 1, 0, 0, 2, 3], dtype=np.float32)  # returns 2, 0 and 5
    assert reward_factor(Transitions(**{**vars(data), "rewards": rewards}), "returns") == 2 / 5
    ids = np.array([0, 0, 0, 0, 1, 1])  # returns 2 and 5, and the longer has 4 steps
    assert reward_factor(Transitions(**{**vars(data), "rewards": rewards, "episode_ids": ids}), "returns") == 4 / 3
    assert reward_factor(data, "0.5") == 0.5
    same = Transitions(**{**vars(data), "rewards": np.full(6, 0.1, dtype=np.float32)})
    assert reward_factor(same, "returns") == 1.0


def test_rewards_are_centred_where_that_changes_nothing() -> None:
    data = on_a_line()
    assert not data.terminations.any()
    model = IQL(dataset=data, **LINE, **SMALL)
    seen = model.batch(torch.arange(len(data)))["rewards"].numpy()
    assert seen.mean() == pytest.approx(0, abs=1e-4) and seen.std() == pytest.approx(
        data.rewards.std() * reward_factor(data, "returns"), rel=1e-4
    )
    ends = along_a_corridor()  # a shift would pay for staying in it, or for leaving
    model = IQL(dataset=ends, **CORRIDOR, **SMALL, reward_scale=2.0)
    assert model.batch(torch.arange(len(ends)))["rewards"].numpy().tolist() == (2 * ends.rewards).tolist()
    model = IQL(dataset=data, **LINE, **SMALL, control="constant")
    assert np.abs(model.batch(torch.arange(len(data)))["rewards"].numpy()).max() < 1e-5


def test_a_great_mean_reward_does_not_keep_it_from_learning() -> None:
    """Values would have to climb to 100 / (1 - gamma) first, and 400 updates do not get there."""
    data = on_a_line()
    generous = Transitions(**{**vars(data), "rewards": data.rewards + 100})
    env = Monitor(gym.wrappers.TimeLimit(PointEnv(), 20))
    returns = {}
    for shift in ("centre", 0.0):
        model = IQL("MlpPolicy", env, generous, **SMALL, tau=0.05, reward_shift=shift).learn(400)
        env.reset(seed=0)
        returns[shift], _ = evaluate_policy(model, env, n_eval_episodes=10)
    best = _returns_of_always_right(env)
    assert returns["centre"] > 0.9 * best
    assert returns[0.0] < 0.85 * best


def test_controls_say_nothing_of_what_was_done() -> None:
    rewards = on_a_line().rewards
    assert controlled(rewards, "none", 0) is rewards
    assert np.unique(controlled(rewards, "constant", 0)) == pytest.approx([rewards.mean()], rel=1e-5)
    shuffled = controlled(rewards, "shuffled", 0)
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(rewards))
    assert abs(np.corrcoef(shuffled, rewards)[0, 1]) < 0.1
    model = IQL(dataset=on_a_line(), **LINE, **SMALL, control="shuffled", reward_scale=1.0, reward_shift=0.0)
    dealt = model.batch(torch.arange(len(rewards)))["rewards"].numpy()
    np.testing.assert_array_equal(dealt, shuffled)
    for control in ("constant", "shuffled"):  # their rewards are as great as those that they stand in for
        said = IQL(dataset=on_a_line(), **LINE, **SMALL, control=control)
        assert said.reward_factor == pytest.approx(reward_factor(on_a_line(), "returns"))


def test_normalised_observations_change_nothing_for_the_caller() -> None:
    data = on_a_line(right=1.0)
    far = Transitions(**{**vars(data), "observations": data.observations * 1e3 + 5e3,
                         "next_observations": data.next_observations * 1e3 + 5e3})  # fmt: skip
    spaces = {"observation_space": gym.spaces.Box(0, 1e4, (1,)), "action_space": LINE["action_space"]}
    model = BC(dataset=far, **spaces, **SMALL, normalize_observations=True)
    seen = model.policy.normalize(torch.from_numpy(far.observations))
    assert seen.mean().item() == pytest.approx(0, abs=1e-3) and seen.std().item() == pytest.approx(1, abs=1e-2)


def test_the_step_size_of_the_policy_alone_goes_down() -> None:
    model = IQL(**LINE, device="cpu", learning_rate=0.1)
    np.testing.assert_allclose(
        model._rates(np.array([0.0, 0.5, 1.0])), [[0.1, 0.1, 0.1], [0.1, 0.05, 0.1], [0.1, 0.0, 0.1]], atol=1e-9
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rewards": np.full(40, np.nan, dtype=np.float32)}, "rewards of transition 0 (episode 0) are not finite"),
        ({"actions": np.zeros((40, 2), dtype=np.float32)}, "actions have 2 numbers each, and the action space has 1"),
        ({"observations": np.zeros((40, 3), dtype=np.float32)}, "observations have 3 numbers each"),
        ({"terminations": np.zeros(39, dtype=bool)}, "40 rewards and 39 terminations"),
        ({name: value[:0] for name, value in vars(on_a_line(episodes=2)).items()}, "holds no transition"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(change: dict[str, np.ndarray], says: str) -> None:
    data = Transitions(**{**vars(on_a_line(episodes=2)), **change})
    with pytest.raises(UserError) as error:
        IQL(dataset=data, **LINE, device="cpu")
    assert says in str(error.value)


def test_actions_beyond_their_space_are_refused_and_rounded_ones_are_not() -> None:
    """Networks see the space as -1 to 1: actions of ±1 in a space of ±0.2 would reach them as ±5."""
    data = on_a_line(episodes=2)
    narrow = {**LINE, "action_space": gym.spaces.Box(-0.2, 0.2, (1,))}
    with pytest.raises(
        UserError, match=r"go from -0\.\d+ to \d\.\d+ \(number 0 .* allows -0\.2 to 0\.2\. Give the space"
    ):
        BC(dataset=data, **narrow, **SMALL)
    half = Transitions(**{**vars(data), "actions": np.full((len(data), 1), np.float16(0.2) * 1.0005, np.float32)})
    model = BC(dataset=half, **narrow, **SMALL)
    assert model._data is not None and model._data._table[:, 1].abs().max() < 1.002
    above = {**LINE, "action_space": gym.spaces.Box(0, np.inf, (1,))}
    with pytest.raises(UserError, match="allows 0 to inf"):
        BC(dataset=data, **above, **SMALL)


def test_misuse_is_named() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        IQL(**LINE, device="cpu").learn(1)
    with pytest.raises(UserError, match="Give the spaces"):
        BC(device="cpu")
    with pytest.raises(UserError, match="are pictures"):
        BC(observation_space=gym.spaces.Box(0, 255, (64, 64, 3), np.uint8), action_space=LINE["action_space"])
    with pytest.raises(UserError, match="reward_shift is 'much'"):
        IQL(**LINE, reward_shift="much")
    with pytest.raises(UserError, match="reward_scale is 'much'"):
        IQL(**LINE, reward_scale="much")
    with pytest.raises(UserError, match="go from 0 to 3, and the space allows 0 to 1"):
        data = along_a_corridor(episodes=3)
        IQL(dataset=Transitions(**{**vars(data), "actions": np.arange(len(data)) % 4}), **CORRIDOR, device="cpu")
