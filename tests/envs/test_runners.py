from __future__ import annotations

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import vlmrl  # noqa: F401
from vlmrl.envs.hopper import Hopper
from vlmrl.envs.mujoco_scene import lowest_point
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.errors import UserError

PLANAR = ("HalfCheetah", "Hopper", "Walker2d")
RUNNERS = ("Ant", *PLANAR)


def make(name: str, **kwargs):
    env = gym.make(f"vlmrl/{name}-v0", **kwargs).unwrapped
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("camera", ["side", "front", "diagonal"])
def test_the_camera_follows_the_runner_over_a_floor_without_end(name: str, camera: str) -> None:
    env = make(name, render_mode="rgb_array", width=64, height=64, camera=camera)
    # Colours of the floor are white where its squares are; the runner's are not.
    near = env.render().astype(int)
    env.data.qpos[0] += 1000  # squares of half a metre: the floor looks the same there
    mujoco.mj_forward(env.model, env.data)
    far = env.render().astype(int)
    assert np.abs(near - far).mean() < 1
    env.data.qpos[0] += 0.25
    mujoco.mj_forward(env.model, env.data)
    assert np.abs(env.render() - far).mean() > 5  # and it moves by under the runner
    env.close()


@pytest.mark.parametrize("name", RUNNERS)
def test_the_open_floor_changes_no_physics(name: str) -> None:
    base = {"Ant": "Ant-v5", "HalfCheetah": "HalfCheetah-v5", "Hopper": "Hopper-v5", "Walker2d": "Walker2d-v5"}[name]
    ours, theirs = make(name), gym.make(base).unwrapped
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.uniform(-1, 1, ours.action_space.shape)
        reward = ours.step(action)[1]
        assert reward == pytest.approx(theirs.step(action)[1])
    np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)


@pytest.mark.parametrize("name", ["Ant", "Hopper", "Walker2d"])
def test_it_terminates_only_if_asked_to(name: str) -> None:
    for wanted in (False, True):
        env = make(name, start="fallen", terminate_when_unhealthy=wanted)
        if name == "Ant":
            env.data.qpos[2] = 3.0  # only a leap is unhealthy to Gymnasium's ant, being on its back is not
        assert env.step(np.zeros(env.action_space.shape))[2] == wanted


@pytest.mark.parametrize("name", RUNNERS)
def test_the_state_says_where_everything_is(name: str) -> None:
    env = make(name)
    action = env.action_space.high
    for _ in range(20):
        before = env.simulator_state()["torso"]
        env.step(action)
        state = env.simulator_state()
        # Over a step the torso goes about as far as its velocity says.
        assert (state["torso"] - before)[0] / env.dt == pytest.approx(float(state["velocity"][0]), abs=2.0)
    assert state["lowest"] < state["feet"].min() < state["torso"][2] + 1
    assert state["lowest"] == pytest.approx(lowest_point(env.model, env.data))
    assert np.linalg.norm(state["torso_up"]) == pytest.approx(1, abs=1e-5)


def test_the_lowest_point_of_a_capsule_and_a_sphere() -> None:
    body = "<body pos='0 0 2'><freejoint/><geom type='capsule' size='.1 .5' {}/><geom type='sphere' size='.3'/></body>"
    for orientation, expected in (("", 2 - 0.6), ("euler='0 90 0'", 2 - 0.3), ("euler='0 60 0'", 2 - 0.35)):
        text = (
            "<mujoco><worldbody><geom type='plane' size='1 1 1'/>" + body.format(orientation) + "</worldbody></mujoco>"
        )
        model = mujoco.MjModel.from_xml_string(text)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        assert lowest_point(model, data) == pytest.approx(expected)


@pytest.mark.parametrize("name", PLANAR)
def test_pitch_counts_whole_turns(name: str) -> None:
    env = make(name)
    for turn in (0.0, 2 * np.pi, -4 * np.pi):
        env.data.qpos[2] = turn
        mujoco.mj_forward(env.model, env.data)
        state = env.simulator_state()
        assert state["pitch"] == pytest.approx(turn, abs=1e-5)
        assert state["torso_up"][2] == pytest.approx(1, abs=1e-5)


GOOD = {
    "velocity": (5.0, 0.0, 0.0),
    "torso_up": (0.0, 0.0, 1.0),
    "torso": (0.0, 0.0, 1.2),
    "feet": (0.06, 0.06),
    "lowest": 0.0,
    "pitch": 0.0,
}
STILL = {"velocity": (0.1, 0.0, 0.0)}


def state(**changes: object) -> dict[str, np.ndarray]:
    return {name: np.array(value, dtype=np.float32) for name, value in (GOOD | changes).items()}


def lean(degrees: float) -> tuple[float, float, float]:
    return (float(np.sin(np.deg2rad(degrees))), 0.0, float(np.cos(np.deg2rad(degrees))))


SPEED = {"ant": 1.0, "halfcheetah": 3.0, "hopper": 1.0, "walker2d": 1.5}
STAND = {"ant": (20, 0.4), "halfcheetah": (20, 0.5), "hopper": (15, 1.1), "walker2d": (15, 1.1)}
CASES = [
    *[(f"{name}/run", {"velocity": (speed + d, 0, 0)}, d > 0) for name, speed in SPEED.items() for d in (-0.05, 0.05)],
    *[(f"{name}/run", {"velocity": (-5, 0, 0)}, False) for name in SPEED],
    *[(f"{name}/run", {"torso_up": lean(45 + d)}, d < 0) for name in SPEED for d in (-1, 1)],
    *[(f"{name}/stand", {**STILL, "torso_up": lean(angle + d)}, d < 0)
      for name, (angle, _) in STAND.items() for d in (-1, 1)],
    *[(f"{name}/stand", {**STILL, "torso": (0, 0, z + d)}, d > 0)
      for name, (_, z) in STAND.items() for d in (-0.02, 0.02)],
    *[(f"{name}/stand", {"velocity": (0, 0, 0.5 + d)}, d < 0) for name in STAND for d in (-0.05, 0.05)],
    *[(f"{name}/stand", {**STILL, "feet": (0.06, 0.3)}, False) for name in STAND if name != "ant"],
    *[(f"{name}/jump", {"lowest": 0.1 + d}, d > 0) for name in SPEED for d in (-0.01, 0.01)],
    *[(f"{name}/flip", {"pitch": sign * np.deg2rad(320 + d), "torso_up": lean(d - 39)}, d > 0)
      for name in STAND if name != "ant" for sign in (-1, 1) for d in (-1, 1)],
    *[(f"{name}/flip", {"pitch": 2 * np.pi, "torso_up": lean(41)}, False) for name in STAND if name != "ant"],
    *[(f"{name}/flip", {"pitch": 2 * np.pi, "torso": (0, 0, z + d)}, d > 0)
      for name, z in (("halfcheetah", 0.4), ("hopper", 0.9), ("walker2d", 0.9)) for d in (-0.02, 0.02)],
]  # fmt: skip


@pytest.mark.parametrize(("entry", "changes", "expected"), CASES, ids=str)
def test_predicates_at_their_limits(entry: str, changes: dict, expected: bool) -> None:
    conditions = PREDICATES.load(entry)(state(**changes))
    assert holds(conditions) == expected
    assert (dense_reward(conditions) == 1) == expected


def test_every_task_of_every_runner_is_tried_both_ways() -> None:
    tried = {(entry, expected) for entry, _, expected in CASES}
    names = [entry for entry in PREDICATES if entry.split("/")[0] in SPEED]
    assert tried == {(entry, expected) for entry in names for expected in (True, False)}


@pytest.mark.parametrize("name", PLANAR)
def test_turning_over_pays_more_the_further_it_gets(name: str) -> None:
    env = make(name)
    predicate = PREDICATES.load(f"{name.lower()}/flip")
    rewards = []
    for degrees in (0, 90, 180, 270, 330):
        env.data.qpos[2] = np.deg2rad(degrees)
        mujoco.mj_forward(env.model, env.data)
        rewards.append(dense_reward(predicate(env.simulator_state())))
    assert rewards == sorted(set(rewards)) and rewards[0] == 0 and rewards[-1] == 1


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'fallen'"):
        make("Hopper", start="falen")
    with pytest.raises(UserError, match="rgb_array"):
        Hopper(render_mode="human")
