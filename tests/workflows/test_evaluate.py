"""Policies from outside, measured like runs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from sb3_contrib import CrossQ
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

from tests.patience import PATIENCE
from vlmrl import evaluate as command
from vlmrl.commands import compose, plain
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.tasks import PREDICATES, Task
from vlmrl.errors import UserError
from vlmrl.workflows.config.evaluate import EvaluateConfig, evaluate_settings
from vlmrl.workflows.config.scene import import_plugins
from vlmrl.workflows.policies import (
    CallablePolicy,
    SampledPolicy,
    ZeroPolicy,
    algorithm_of,
    as_policy,
    load_zip,
    open_policy,
)
from vlmrl.workflows.rollouts import Episodes, RandomPolicy, record_clip, record_grid, run_episodes

CARTPOLE = ["env=cartpole", "reward=ground_truth", "progress_bar=false", "threads=1", "device=cpu", "n_envs=2"]
BOX = gym.spaces.Box(-2, 2, (1,), np.float32)
SEEN = gym.spaces.Box(-8, 8, (3,), np.float32)
LEFT_OR_RIGHT = gym.spaces.Discrete(2)
CART = gym.spaces.Box(-5, 5, (4,), np.float32)


def lean(observation: np.ndarray) -> int:
    """Push the cart to the side to which the pole falls."""
    return int(observation[2] + 0.3 * observation[3] > 0)


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    for algorithm in (PPO, A2C, DQN, SAC, TD3, CrossQ):
        env = "Pendulum-v1" if algorithm in (SAC, TD3, CrossQ) else "CartPole-v1"
        kwargs: dict[str, Any] = {} if algorithm in (PPO, A2C) else {"buffer_size": 8}
        policy_kwargs = {"net_arch": [4]}
        algorithm("MlpPolicy", env, device="cpu", policy_kwargs=policy_kwargs, **kwargs).save(
            folder / f"{algorithm.__name__.lower()}.zip"
        )
    return folder


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn", "sac", "td3", "crossq"])
def test_a_zip_says_whose_it_is(zips: Path, name: str) -> None:
    path = zips / f"{name}.zip"
    assert algorithm_of(path) == name
    seen, acts = (CART, LEFT_OR_RIGHT) if name in ("ppo", "a2c", "dqn") else (SEEN, BOX)
    low_and_high = gym.make("CartPole-v1").observation_space if acts is LEFT_OR_RIGHT else seen
    policy = open_policy(str(path), low_and_high, acts)
    actions, _ = policy.predict(np.zeros((2, *seen.shape), np.float32), deterministic=True)
    assert actions.shape == (2, *acts.shape)


def test_a_zip_that_does_not_say_it_asks(zips: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.zip"
    with zipfile.ZipFile(zips / "ppo.zip") as source, zipfile.ZipFile(own, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                content = content.replace(b"stable_baselines3.common.policies", b"my_project.my_policies")
            target.writestr(name, content)
    with pytest.raises(UserError, match=r"does not say which algorithm .*my_project.my_policies.*=a2c\|.*TQC"):
        algorithm_of(own)
    assert isinstance(load_zip(own, "ppo", "cpu"), PPO)
    assert isinstance(load_zip(own, "stable_baselines3:PPO", "cpu"), PPO)


def test_what_no_zip_can_be(zips: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.zip"
    junk.write_text("no zip")
    with pytest.raises(UserError, match=r"junk.zip is no zip of Stable-Baselines3 \(BadZipFile"):
        load_zip(junk, None, "cpu")
    with zipfile.ZipFile(junk, "w") as file:
        file.writestr("something", "else")
    with pytest.raises(UserError, match="is no zip of Stable-Baselines3"):
        load_zip(junk, None, "cpu")
    with pytest.raises(UserError, match="nowhere.zip: there is no such file"):
        load_zip(tmp_path / "nowhere.zip", None, "cpu")
    with pytest.raises(UserError, match="cannot be loaded with algorithm=sac: .* Name the right one: a2c, "):
        load_zip(zips / "ppo.zip", "sac", "cpu")
    with pytest.raises(UserError, match="Unknown algorithm 'poo'. Did you mean 'ppo'"):
        load_zip(zips / "ppo.zip", "poo", "cpu")
    with pytest.raises(UserError, match="algorithm=json:loads is no algorithm"):
        load_zip(zips / "ppo.zip", "json:loads", "cpu")


def test_a_policy_of_another_environment_is_refused(zips: Path) -> None:
    with pytest.raises(UserError, match=r"sac.zip sees a box of shape \(3,\) .* has a box of shape \(4,\)"):
        open_policy(str(zips / "sac.zip"), CART, BOX)
    wider = gym.spaces.Box(-3, 3, (1,), np.float32)
    with pytest.raises(UserError, match=r"acts in a box of shape \(1,\) within \[-2, 2\], .* within \[-3, 3\]"):
        open_policy(str(zips / "sac.zip"), SEEN, wider)
    with pytest.raises(UserError, match=r"acts in Discrete\(2\), and this environment has Discrete\(3\)"):
        open_policy(str(zips / "ppo.zip"), CART, gym.spaces.Discrete(3))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_policies.py").write_text(
        "import numpy as np\n"
        "def half(observation):\n    return observation[:1] / 2\n"
        "class Steady:\n    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        return np.ones((len(observation), 1), dtype=np.float32), state\n"
        "class Needy:\n    def __init__(self, what):\n        pass\n"
        "steady = Steady()\nNUMBER = 3\n"
    )
    (tmp_path / "broken_policies.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_policies", None)


@pytest.mark.parametrize(("attribute", "action"), [("half", 0.5), ("steady", 1.0), ("Steady", 1.0)])
def test_functions_objects_and_classes_act(module: None, attribute: str, action: float) -> None:
    policy = open_policy(f"own_policies:{attribute}", SEEN, BOX)
    actions, _ = policy.predict(np.ones((2, 3), dtype=np.float32), None, np.ones(2, dtype=bool), deterministic=True)
    np.testing.assert_array_equal(actions, np.full((2, 1), action, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_policies:halve", "Unknown attribute of module 'own_policies': 'halve'. Did you mean 'half'"),
        ("own_polices:half", "policy: there is no module 'own_polices'"),
        ("own_policies:NUMBER", "is int; it must be a function from observation to action, or have a method predict"),
        ("own_policies:Needy", "is a class that needs arguments to be made: .*what"),
        ("half", "policy=half is no policy. Give the path of a zip"),
    ],
)
def test_each_wrong_name_has_its_message(module: None, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_policy(name, SEEN, BOX)


def test_a_mistake_inside_a_module_keeps_its_traceback(module: None) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        open_policy("broken_policies:half", SEEN, BOX)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        import_plugins(["broken_policies"])


@pytest.mark.parametrize(
    ("space", "given", "taken"),
    [
        (BOX, [1], [1.0]),
        (BOX, np.array([-7.0]), [-2.0]),  # cut to the bounds
        (LEFT_OR_RIGHT, 1, 1),
        (LEFT_OR_RIGHT, np.int32(0), 0),
    ],
)
def test_what_a_function_gives_is_an_action(space: gym.Space, given: Any, taken: Any) -> None:
    actions, _ = CallablePolicy("own", lambda observation: given, space).predict(np.zeros((1, 3)))
    np.testing.assert_array_equal(actions[0], taken)
    assert actions.dtype == space.dtype


@pytest.mark.parametrize(
    ("space", "given"),
    [(BOX, [1, 2]), (BOX, [np.nan]), (BOX, None), (BOX, "left"), (LEFT_OR_RIGHT, 2), (LEFT_OR_RIGHT, 0.5)],
)
def test_what_is_no_action_is_refused(space: gym.Space, given: Any) -> None:
    with pytest.raises(UserError, match="The policy 'own' gave .*, which is no action of "):
        CallablePolicy("own", lambda observation: given, space).predict(np.zeros((1, 3)))


class Script:
    """A policy as Meta-World's scripts are."""

    def get_action(self, observation: np.ndarray) -> np.ndarray:
        return observation[:1] * 3


def test_a_script_with_get_action_is_a_policy() -> None:
    actions, _ = as_policy("own", Script, BOX).predict(np.array([[0.5, 9.0], [1.0, 9.0]]))
    np.testing.assert_array_equal(actions, [[1.5], [2.0]])


def test_a_function_sees_parts_of_dicts_too() -> None:
    policy = CallablePolicy("own", lambda observation: observation["a"] / 2, BOX)
    actions, _ = policy.predict({"a": np.array([[1.0], [2.0]]), "b": np.zeros((2, 3))})
    np.testing.assert_allclose(actions, [[0.5], [1.0]])


def test_zero_is_the_action_nearest_to_none() -> None:
    for space, action in ((BOX, [0]), (gym.spaces.Box(1, 2, (2,)), [1, 1]), (gym.spaces.Discrete(3, start=5), 5)):
        actions, _ = ZeroPolicy(space).predict(np.zeros((2, 1)))
        np.testing.assert_array_equal(actions, [action, action])
        assert space.contains(actions[0])


def settings(*overrides: str) -> EvaluateConfig:
    given = [override.partition("=")[0] for override in overrides]
    return evaluate_settings(plain(compose("evaluate", list(overrides))), given)


def test_settings_of_a_policy_from_outside() -> None:
    config = settings("policy=[a.zip,m:f]", "env=cartpole", "reward=clip", "reward.alpha=0.5")
    assert (config.runs, config.policy) == ((), ("a.zip", "m:f"))
    assert config.scene is not None
    assert (config.scene.env.name, config.scene.task.name) == ("cartpole", "balance")
    assert config.scene.reward.config.alpha == 0.5
    assert evaluate_settings(json.loads(json.dumps(config.plain()))) == config
    beside = settings("policy=m:f", "runs=last")
    assert (beside.runs, beside.policy, beside.scene) == (("last",), ("m:f",), None)
    assert evaluate_settings(beside.plain()) == beside


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy=a.zip"], "policy=a.zip comes without an environment: name one as for training, env=<name>"),
        (["policy=['']", "env=cartpole"], "policy holds an empty name"),
        (["env=cartpole"], "env= is for a policy from outside, policy=...; a run has settings of its own"),
        (["runs=last", "policy=zero", "reward.alpha=0.5"], r"reward.alpha= needs the environment .* env=<name>"),
        (["policy=zero", "env=cartpole", "agent=dqn"], "agent= means nothing to evaluate"),
        (["policy=zero", "env=cartpole", "task=kneeling"], "Unknown task of environment 'cartpole': 'kneeling'"),
        (["policy=zero", "env=carpole"], "Unknown env 'carpole'. Did you mean 'cartpole'"),
        (["policy=zero", "env=cartpole", "plugins=no_such_module"], "plugins: there is no module 'no_such_module'"),
    ],
)
def test_evaluate_refuses(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides)


def test_functions_of_a_program_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zips: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A policy that balances is told from one that does not, and one figure is worked out by hand."""
    monkeypatch.chdir(tmp_path)
    results = command.evaluate({"lean": lean}, *CARTPOLE, "episodes=3", f"policy=[zero,{zips / 'ppo.zip'}]")
    assert list(results) == ["zero", str(zips / "ppo.zip"), "lean"]
    assert results["lean"].success == [True] * 3 and results["zero"].success == [False] * 3
    assert min(results["lean"].fraction) > 0.95 > 0.5 > max(results["zero"].fraction)
    assert results["lean"].length == [200] * 3
    # reward=ground_truth: the two sums are the same figures
    np.testing.assert_allclose(results["zero"].truth, results["zero"].model_reward, rtol=1e-4)
    output = capsys.readouterr().out
    assert "a: zero" in output and "c: lean" in output
    (result,) = tmp_path.glob("runs/evaluate/*/result.json")
    summary = json.loads(result.read_text())["lean"]["success"]
    assert summary["mean"] == 1
    np.testing.assert_allclose(summary["interval"], [0.4385, 1], atol=1e-4)  # Wilson, 3 of 3


def test_a_program_may_write_sentences_as_people_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    goal = "goal=pole upright, on top of the cart"
    results = command.evaluate({"left": lambda observation: 0}, *CARTPOLE, goal, "episodes=1")
    assert results["left"].success == []  # a sentence of one's own has no check
    assert len(results["left"].truth) == 1


def test_the_same_starts_for_every_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    starts: dict[str, list[tuple[float, ...]]] = {"a": [], "b": []}

    def watch(name: str) -> Any:
        def act(observation: np.ndarray) -> int:
            if np.abs(observation).max() <= 0.05:
                starts[name].append(tuple(map(float, observation)))
            return 0

        return act

    command.evaluate({name: watch(name) for name in starts}, *CARTPOLE, "episodes=3")
    assert starts["a"] == starts["b"]
    assert len(starts["a"]) >= 3


def test_a_grid_has_a_column_a_policy_and_a_row_a_start(tmp_path: Path) -> None:
    cartpole = EnvSettings("vlmrl/CartPole-v0", Task("balance", "", "", predicate=PREDICATES.load("cartpole/balance")),
                           max_episode_steps=12)  # fmt: skip
    longer = EnvSettings("CartPole-v1", Task("none", "", ""), max_episode_steps=5)
    space = gym.spaces.Discrete(2)
    columns = {"a": (CallablePolicy("lean", lean, space), cartpole), "b": (RandomPolicy(space, 0), longer)}
    path = tmp_path / "films" / "grid.mp4"
    record_grid(columns, path, n_episodes=3, seed=7, length=100, size=96)
    frames = np.stack([frame for frame in imageio.get_reader(path)])
    assert frames.shape == (13, 3 * 96, 2 * 96, 3)
    left, right = frames[:, :, :96].astype(int), frames[:, :, 96:].astype(int)
    assert np.abs(left[-1] - left[0]).max() > 50
    assert np.abs(right[-1] - right[6]).mean() < 1  # that episode has ended: its last picture stays
    green = left[-1, 40, 1]
    assert green[1] > green[0] + 80 and green[1] > green[2] + 80  # the pole is up


def test_a_film_shows_the_first_steps_of_long_episodes(tmp_path: Path) -> None:
    """Games last thousands of steps, and nobody looks at a film of an hour."""
    cartpole = EnvSettings("vlmrl/CartPole-v0", Task("none", "", ""), max_episode_steps=40)
    policy = RandomPolicy(gym.spaces.Discrete(2), 0)
    record_clip({"random": policy}, cartpole, tmp_path / "clip.mp4", n_episodes=2, seed=7, length=9, size=96)
    assert sum(1 for _ in imageio.get_reader(tmp_path / "clip.mp4")) == 2 * (1 + 9)


def test_an_object_keeps_its_state_and_is_told_of_starts() -> None:
    class Counter:
        """Acts by the number of steps since its episode began, which it keeps in its state."""

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
            count = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state + 1)
            seen.append(count.copy())
            return np.zeros(len(observation), dtype=int), count

    from vlmrl.envs.lazy_rewards import LazyRewards
    from vlmrl.envs.make import make_vec_env
    from vlmrl.reward_models.ground_truth import GroundTruthReward

    seen: list[np.ndarray] = []
    task = Task("balance", "", "", predicate=PREDICATES.load("cartpole/balance"))
    env = make_vec_env(
        EnvSettings("vlmrl/CartPole-v0", task, max_episode_steps=4), LazyRewards(GroundTruthReward()), 2, 0
    )
    run_episodes(Counter(), env, 4)
    env.close()
    np.testing.assert_array_equal(np.array(seen)[:, 0], [0, 1, 2, 3] * 2)


def command_line(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_run_beside_policies_from_outside(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def lean(observation):\n    return int(observation[2] + observation[3] / 3 > 0)\n"
    )
    few = ["progress_bar=false", "threads=1", "device=cpu", "n_envs=2"]
    trained = command_line(
        tmp_path, "vlmrl.train", "env=cartpole", "reward=ground_truth", "agent.n_steps=32", "agent.batch_size=32",
        "total_timesteps=64", "eval_episodes=1", "video=false", "env.max_episode_steps=40", *few,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr[-2000:]
    measured = command_line(
        tmp_path, "vlmrl.evaluate", "runs=last", "policy=[zero,own:lean]", "episodes=2", "video=true",
        "video_episodes=2", *few,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr[-2000:]
    (result,) = tmp_path.glob("runs/evaluate/*/result.json")
    summaries = json.loads(result.read_text())
    run, *others = summaries
    assert run.startswith("runs/cartpole-balance-ground_truth-ppo/") and others == ["zero", "own:lean"]
    assert summaries["own:lean"]["success"]["mean"] == 1
    assert f"a: {run}" in measured.stdout and "c: own:lean" in measured.stdout
    (clip,) = (tmp_path / "videos").glob("evaluate_*.mp4")
    frames = np.stack([frame for frame in imageio.get_reader(clip)])
    assert frames.shape == (41, 2 * 224, 3 * 224, 3)


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def both(observation):\n    return 0, 1\n")
    result = command_line(
        tmp_path, "vlmrl.evaluate", "policy=own:both", "env=cartpole", "reward=ground_truth", "progress_bar=false"
    )
    assert result.returncode == 2
    assert result.stderr == "Error: The policy 'own:both' gave (0, 1), which is no action of Discrete(2).\n"


def test_mixed_starts_are_reported_apart() -> None:
    from vlmrl.workflows.report import results_table

    episodes = Episodes(
        truth=[1.0, 2.0, 5.0],
        model_reward=[0.1, 0.2, 0.6],
        fraction=[0.0, 0.5, 1.0],
        success=[False, False, True],
        length=[9, 9, 9],
        start=["fallen", "fallen", "standing"],
    )
    summary = episodes.summary()
    assert summary["by_start"]["fallen"]["truth"]["mean"] == 1.5
    assert summary["by_start"]["standing"]["success"]["mean"] == 1
    assert {part["episodes"] for part in summary["by_start"].values()} == {1, 2}
    table = results_table({"a": summary}, "")
    assert list(table.columns[0].cells) == ["a", "  fallen start", "  standing start"]
    assert "by_start" not in episodes.started("fallen").summary()


def test_each_episode_is_counted_by_how_it_started() -> None:
    """The first 8 starts of cart and pole, mixed; the predicate tells from the state alone how each one began."""
    from vlmrl.envs.lazy_rewards import LazyRewards
    from vlmrl.envs.make import make_vec_env
    from vlmrl.reward_models.ground_truth import GroundTruthReward

    task = Task("balance", "", "", predicate=PREDICATES.load("cartpole/balance"), start="mixed", rule="end")
    settings = EnvSettings("vlmrl/CartPole-v0", task, max_episode_steps=1)
    env = make_vec_env(settings, LazyRewards(GroundTruthReward()), 2, 0)
    episodes = run_episodes(RandomPolicy(env.action_space, 0), env, 8)
    assert len(env.rewards) == 0
    env.close()
    assert episodes.start == ["upright" if success else "hanging" for success in episodes.success]
    assert set(episodes.start) == {"upright", "hanging"}
    np.testing.assert_allclose(episodes.truth, episodes.model_reward, atol=1e-5)


def test_a_policy_may_be_measured_by_drawn_actions() -> None:
    model = PPO("MlpPolicy", gym.make("CartPole-v1"), seed=0, device="cpu")
    observation = np.zeros((64, 4), dtype=np.float32)
    likeliest, _ = model.predict(observation, deterministic=True)
    assert len(set(likeliest.tolist())) == 1
    before = torch.get_rng_state()
    drawn = [SampledPolicy(model, seed) for seed in (1, 1, 2)]
    first, second, other = ([policy.predict(observation, deterministic=True)[0] for _ in range(2)] for policy in drawn)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(first[0].tolist())) == 2
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])
