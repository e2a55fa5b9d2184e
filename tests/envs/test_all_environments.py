"""What holds for every environment of the suite, over the registry."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3
import yaml
from gymnasium.utils.env_checker import check_env

import vlmrl
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.errors import UserError

ALL_IDS = sorted(spec.id for spec in gym.registry.values() if spec.namespace == "vlmrl")
# Those of an extra are checked where it is installed: make test-metaworld, make test-nethack.
EXTRAS = {
    "vlmrl.envs.crafter": "crafter",
    "vlmrl.envs.kitchen": "gymnasium_robotics",
    "vlmrl.envs.metaworld": "metaworld",
    "vlmrl.envs.minigrid": "minigrid",
    "vlmrl.envs.minihack": "minihack",
    "vlmrl.envs.nethack": "nle",
}
IDS = [i for i in ALL_IDS if importlib.util.find_spec(EXTRAS.get(str(gym.spec(i).entry_point).split(":")[0], "vlmrl"))]
CONFIGS = Path(vlmrl.__file__).parent / "configs" / "env"
NAMES = {yaml.safe_load(path.read_text())["id"]: path.stem for path in CONFIGS.glob("*.yaml")}
SIZE = {"render_mode": "rgb_array", "width": 48, "height": 40}


def test_each_has_a_yaml_file_of_its_name() -> None:
    assert set(ALL_IDS) == {i for i in NAMES if i.startswith("vlmrl/")}
    for env_id in ALL_IDS:
        assert env_id.removeprefix("vlmrl/").removesuffix("-v0").lower() == NAMES[env_id].replace("_", "")


def parts(observation: object) -> list[np.ndarray]:
    """An observation, or those that a dict holds."""
    return [np.asarray(part) for part in (observation.values() if isinstance(observation, dict) else [observation])]


@pytest.mark.parametrize("env_id", IDS)
def test_checked_by_gymnasium_and_by_stable_baselines3(env_id: str) -> None:
    with warnings.catch_warnings():
        # Both advise bounded or normalised spaces, which Gymnasium's own environments do not have.
        warnings.filterwarnings("ignore", message=".*(infinity|symmetric|normalized|normalise).*")
        # MiniGrid's "image" has kinds of things in three channels, and is no picture.
        warnings.filterwarnings("ignore", message=".*(observation space image|minimal resolution for an image).*")
        # Maps want a features extractor of their own, which agents have (vlmrl.agents.features).
        warnings.filterwarnings("ignore", message=".*has an unconventional shape.*")
        check_env(gym.make(env_id, **SIZE).unwrapped)
        sb3.check_env(gym.make(env_id, **SIZE), skip_render_check=False)


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_seed_gives_the_same_episode(env_id: str) -> None:
    def episode(seed: int) -> list[np.ndarray]:
        env = gym.make(env_id, **SIZE)
        env.action_space.seed(1)
        seen = [*parts(env.reset(seed=seed)[0]), env.render()]
        for t in range(50):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert not terminated and not truncated
            assert env.observation_space.contains(observation)
            seen += [*parts(observation), np.array(reward)]
            seen += list(env.unwrapped.simulator_state().values()) if t % 10 == 0 else []
        seen.append(env.render())
        env.close()
        return seen

    first, second, other = episode(3), episode(3), episode(4)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()
    start = len(parts(gym.make(env_id).observation_space.sample()))
    assert any(not np.array_equal(a, b) for a, b in zip(first[:start], other[:start], strict=True))


@pytest.mark.parametrize("env_id", IDS)
def test_a_pickled_one_is_made_anew_with_the_same_arguments(env_id: str) -> None:
    camera = list(gym.make(env_id).unwrapped.cameras)[-1]
    env = gym.make(env_id, camera=camera, **SIZE)
    env.reset(seed=5)
    expected = env.render()
    again = pickle.loads(pickle.dumps(env))
    again.reset(seed=5)
    np.testing.assert_array_equal(again.render(), expected)
    assert expected.shape == (40, 48, 3)
    env.close()
    again.close()


@pytest.mark.parametrize("env_id", IDS)
def test_every_camera_shows_something_else_and_unknown_ones_are_refused(env_id: str) -> None:
    env = gym.make(env_id, **SIZE)
    env.reset(seed=0)
    if hasattr(env.unwrapped, "render_camera"):
        views = [env.unwrapped.render_camera(name).astype(int) for name in env.unwrapped.cameras]
        pairs = [(a, b) for i, a in enumerate(views) for b in views[:i]]
        assert len(views) >= 3 and min(np.abs(a - b).mean() for a, b in pairs) > 3
    assert env.render().std() > 5
    env.close()
    with pytest.raises(UserError, match="Did you mean"):
        gym.make(env_id, camera=next(iter(env.unwrapped.cameras)) + "t", **SIZE)


STARTS = [(env_id, start) for env_id in IDS for start in getattr(gym.make(env_id).unwrapped, "starts", ())]


@pytest.mark.parametrize(("env_id", "start"), STARTS)
def test_starts(env_id: str, start: str) -> None:
    """Upright ones start upright, fallen ones down, mixed ones both ways."""
    env = gym.make(env_id, start=start).unwrapped
    down = []
    for seed in range(8 if start == "mixed" else 3):
        observation, _ = env.reset(seed=seed)
        state = env.simulator_state()
        np.testing.assert_array_equal(env.reset(seed=seed)[0], observation)
        assert env.observation_space.contains(observation)
        down.append(abs(state["angle"]) > 3 if "angle" in state else state["torso_up"][2] < 0.5)
    expected = {"mixed": {True, False}, "fallen": {True}, "hanging": {True}}.get(start, {False})
    assert set(down) == expected


@pytest.mark.parametrize("entry", [e for e in PREDICATES if e.split("/")[0] in {NAMES[i] for i in IDS}])
def test_no_predicate_holds_where_the_task_says_it_starts(entry: str) -> None:
    """And its dense reward is within 0 and 1, below 1, and of one kind with the predicate, over some random steps."""
    name, task = entry.split("/")
    env_id = next(i for i, n in NAMES.items() if n == name)
    # These are done by standing as an episode starts, so that their episodes start down.
    start = {"standing": "fallen", "stand": "fallen", "balance": "hanging"}.get(task)
    env = gym.make(env_id, **({"start": start} if start else {}))
    predicate = PREDICATES.load(entry)
    env.action_space.seed(0)
    for seed in range(3):
        env.reset(seed=seed)
        for t in range(25):
            conditions = predicate(env.unwrapped.simulator_state())
            reward = dense_reward(conditions)
            assert 0 <= reward <= 1 and (reward == 1) == holds(conditions)
            assert t > 0 or not holds(conditions) or task == "jump"  # Gymnasium drops some of its robots from a height
            env.step(env.action_space.sample())
