"""FrankaKitchen. What needs Gymnasium-Robotics runs with `make test-metaworld`; the rest everywhere."""

from __future__ import annotations

import importlib.util
import sys

import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401
from vlmrl.commands import compose, plain
from vlmrl.envs.kitchen import JOINTS
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import train_settings

needs_robotics = pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is None, reason="needs vlmrl[kitchen]: make test-metaworld"
)
ID = "vlmrl/Kitchen-v0"
LIMITS = {  # joints just outside and just inside, rad or m
    "microwave": ([-0.44], [-0.46]),
    "slide_cabinet": ([0.06], [0.08]),
    "hinge_cabinet": ([0.0, 1.14], [0.0, 1.16]),
    "light_switch": ([-0.38, -0.05], [-0.40, -0.05]),
}


def predicate(task: str):
    return PREDICATES.load(f"kitchen/{task}")


def state(task: str, joints: list[float]) -> dict[str, np.ndarray]:
    return {task: np.array(joints, dtype=np.float32)}


def test_every_task_is_tried() -> None:
    assert {entry.split("/")[1] for entry in PREDICATES if entry.startswith("kitchen/")} == set(LIMITS)


@pytest.mark.parametrize("task", LIMITS)
def test_a_task_composes_with_the_kitchen(task: str) -> None:
    settings = train_settings(plain(compose("train", ["env=kitchen", f"task={task}", "reward=ground_truth"])))
    made = settings.make_task()
    assert (settings.env.id, made.name) == (ID, task)
    assert made.rule == "hold" and 0 < made.fraction <= 1 / 280  # once is enough


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(UserError, match=r"'gymnasium_robotics'.*vlmrl\[kitchen\].*make setup-metaworld"):
        gym.make(ID)


@pytest.mark.parametrize("task", LIMITS)
def test_predicates_at_their_limits(task: str) -> None:
    outside, inside = LIMITS[task]
    assert not holds(predicate(task)(state(task, outside)))
    assert holds(predicate(task)(state(task, inside)))


@pytest.mark.parametrize("task", LIMITS)
def test_the_truth_rises_as_things_are_moved(task: str) -> None:
    inside = np.array(LIMITS[task][1])
    rewards = [dense_reward(predicate(task)(state(task, list(share * inside)))) for share in (0, 0.3, 0.6, 0.8, 1)]
    assert rewards[0] == pytest.approx(0, abs=1e-6) and rewards[-1] == 1
    assert rewards == sorted(set(rewards))


@needs_robotics
@pytest.mark.parametrize("task", LIMITS)
def test_success_is_what_franka_kitchen_says(task: str) -> None:
    import mujoco

    env = gym.make(ID).unwrapped
    told = []
    for joints in LIMITS[task]:
        env.reset(seed=0)
        env.data.qpos[list(JOINTS[task])] = joints
        mujoco.mj_forward(env.model, env.data)
        np.testing.assert_allclose(env.simulator_state()[task], joints, atol=1e-6)
        # What is told of this state, without a step that would move it.
        goals = env._kitchen.goal
        env._kitchen.compute_reward(
            {name: env.data.qpos[list(JOINTS[name.replace(" ", "_")])] for name in goals}, goals, {}
        )
        told.append(task.replace("_", " ") in env._kitchen.step_task_completions)
        assert holds(predicate(task)(env.simulator_state())) == told[-1]
    assert told == [False, True]


@needs_robotics
def test_the_joints_are_franka_kitchens() -> None:
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import BONUS_THRESH, OBS_ELEMENT_INDICES

    from vlmrl.envs.kitchen_tasks import LIMIT

    assert LIMIT == BONUS_THRESH
    assert {name.replace(" ", "_"): tuple(joints) for name, joints in OBS_ELEMENT_INDICES.items()} == JOINTS


@needs_robotics
def test_the_reward_counts_what_is_done_and_nothing_ends_the_episode() -> None:
    env = gym.make(ID)
    assert env.spec is not None and env.spec.max_episode_steps == 280
    env.reset(seed=0)
    core = env.unwrapped
    rewards = []
    for things in ({}, {22: -0.8}, {22: -0.8, 19: 0.4}):
        for joint, value in things.items():
            core.data.qpos[joint] = value
        _, reward, terminated, truncated, info = env.step(np.zeros(9, dtype=np.float32))
        assert not terminated and not truncated
        rewards.append(reward)
        assert len(info["step_task_completions"]) == reward
    assert rewards == [0, 1, 2]


@needs_robotics
@pytest.mark.parametrize(("task", "camera"), [("microwave", "microwave"), ("slide_cabinet", "cabinets")])
def test_a_task_is_seen_by_its_camera(task: str, camera: str) -> None:
    import mujoco

    env = gym.make(ID, render_mode="rgb_array", width=64, height=64, camera=camera).unwrapped
    env.reset(seed=0)
    closed = env.render().astype(int)
    assert closed.std() > 20
    np.testing.assert_array_equal(env.render(), closed)
    env.data.qpos[list(JOINTS[task])] = LIMITS[task][1]
    mujoco.mj_forward(env.model, env.data)
    assert np.abs(env.render() - closed).mean() > 1.5
    env.close()


@needs_robotics
def test_states_for_audits_are_of_both_labels() -> None:
    env = gym.make(ID).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for task in LIMITS:
        done = []
        for _ in range(60):
            env.draw_state(rng)
            done.append(holds(predicate(task)(env.simulator_state())))
        assert 2 <= sum(done) <= 58
