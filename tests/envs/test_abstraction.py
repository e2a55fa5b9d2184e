"""What programs are told of an environment, and what they read of it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401
from vlmrl.envs.abstraction import StateReader, record
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.errors import UserError
from vlmrl.quantities import Quantity
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.runtime import View, tree_of
from vlmrl.reward_models.programs.prompt import opening, text

SUITE = ["Ant", "CartPole", "HalfCheetah", "Hopper", "Humanoid", "MountainCar", "Walker2d"]


def _view(reader: StateReader, flat: np.ndarray) -> Any:
    layout = [(list(path), leaf.start, list(leaf.shape)) for path, leaf in reader.abstraction.leaves()]
    return View("state", tree_of(layout), [flat])


@pytest.fixture(scope="module")
def moved() -> tuple[Any, StateReader, Any]:
    env = gym.make("vlmrl/Humanoid-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(30):
        env.step(env.action_space.sample())
    reader = StateReader(env)
    return env.unwrapped, reader, _view(reader, reader()[None])


def test_positions_axes_and_joints_are_those_of_the_simulator(moved: tuple[Any, StateReader, Any]) -> None:
    env, _, state = moved
    data = env.data
    np.testing.assert_array_equal(state.bodies.left_shin.position[0], data.body("left_shin").xpos)
    np.testing.assert_array_equal(state.bodies.torso.rotation[0], data.body("torso").xmat.reshape(3, 3))
    np.testing.assert_array_equal(state.geoms.right_hand.position[0], data.geom("right_hand").xpos)
    assert state.joints.right_knee.angle[0] == data.joint("right_knee").qpos[0]
    assert state.joints.right_knee.velocity[0] == data.joint("right_knee").qvel[0]
    np.testing.assert_array_equal(state.joints.root.position[0], data.qpos[:3])
    np.testing.assert_array_equal(state.joints.root.angular_velocity[0], data.qvel[3:6])


def test_velocities_are_those_that_mujoco_computes(moved: tuple[Any, StateReader, Any]) -> None:
    import mujoco

    env, _, state = moved
    for name in ("torso", "left_foot", "right_lower_arm"):
        expected = np.zeros(6)
        body = env.model.body(name).id
        mujoco.mj_objectVelocity(env.model, env.data, mujoco.mjtObj.mjOBJ_XBODY, body, expected, 0)
        np.testing.assert_allclose(getattr(state.bodies, name).angular_velocity[0], expected[:3], atol=1e-9)
        np.testing.assert_allclose(getattr(state.bodies, name).velocity[0], expected[3:], atol=1e-9)


def test_contacts_with_the_floor_are_told() -> None:
    env = gym.make("vlmrl/Humanoid-v0", start="fallen")
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.zeros(17, dtype=np.float32))
    reader = StateReader(env)
    core: Any = env.unwrapped
    state = _view(reader, reader()[None])
    floor = core.model.geom("floor").id
    expected = set()
    for contact in core.data.contact:
        first, second = int(contact.geom1), int(contact.geom2)
        if floor in (first, second):
            expected.add(core.model.geom(second if first == floor else first).name)
    told = {path[1] for path, leaf in reader.abstraction.leaves() if leaf.name == "floor_contact"}
    touching = {name for name in told if getattr(state.geoms, name).floor_contact[0]}
    assert touching == expected and expected and touching != told


@pytest.mark.parametrize("name", SUITE)
def test_every_number_has_its_own_place_and_a_meaning(name: str) -> None:
    env = gym.make(f"vlmrl/{name}-v0")
    abstraction = StateReader(env).abstraction
    taken = np.zeros(abstraction.size, dtype=int)
    for path, leaf in abstraction.leaves():
        assert all(part.isidentifier() for part in path), path
        assert leaf.meaning, path
        taken[leaf.start : leaf.start + leaf.size] += 1
    free = any(path[-1] == "quaternion" for path, _ in abstraction.leaves())
    assert (taken == 1).all(), (name, free)
    states, actions = record(env, 40, seed=1)
    assert states.shape == (40, abstraction.size) and np.isfinite(states).all()
    assert actions.shape == (40, len(abstraction.action))
    again, _ = record(env, 40, seed=1)
    np.testing.assert_array_equal(states, again)


@pytest.mark.parametrize("name", SUITE)
def test_neither_source_nor_reward_of_the_environment_is_told(name: str) -> None:
    env = gym.make(f"vlmrl/{name}-v0")
    abstraction = StateReader(env).abstraction
    prompt = text(opening(abstraction, Words(("a goal",)), ""))
    for cls in type(env.unwrapped).__mro__:
        if not cls.__module__.startswith(("gymnasium.envs", "vlmrl.envs")):
            continue
        for line in inspect.getsource(cls).splitlines():
            code = line.strip()
            if len(code) > 25 and re.search(r"[=(]", code) and not re.match(r"[\"'(|]", code):
                assert code not in prompt, code
    leaked = r"_reward|healthy|ctrl_cost|forward_reward|reward_weight|terminat|simulator_state|predicate"
    assert not re.search(leaked, prompt.replace("compute_dense_reward", ""))


def test_a_row_carries_the_numbers_where_they_are_needed() -> None:
    env = RowWriter(gym.make("vlmrl/Hopper-v0"), {"quantities", "action"})
    _, info = env.reset(seed=0)
    assert info[ROW].quantities.dtype == np.float64
    _, _, _, _, info = env.step(np.array([0.1, 0.2, 0.3], dtype=np.float32))
    state = _view(StateReader(env), info[ROW].quantities[None])
    assert state.joints.rootz.position[0] == env.unwrapped.data.qpos[1]  # type: ignore[attr-defined]
    assert RowWriter(gym.make("vlmrl/Hopper-v0"), {"action"}).reset(seed=0)[1][ROW].quantities is None


class _Own(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(3, start=5)
    described_state = {"where": ("m", (2,)), "height": ("m", ())}
    described_action = ("which way, 5 to 7",)

    def __init__(self) -> None:
        self.actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(int(action))
        return np.zeros(1, dtype=np.float32), 0.0, False, False, {}

    def simulator_state(self) -> dict[str, Any]:
        return {"height": np.float32(3), "where": np.array([1, 2], dtype=np.float32), "hidden": 9}


def test_an_environment_of_ones_own_describes_itself() -> None:
    env = _Own()
    reader = StateReader(env)
    assert reader.abstraction.dt is None
    assert [leaf for _, leaf in reader.abstraction.leaves()] == [
        Quantity("where", "m", (2,), 0),
        Quantity("height", "m", (), 2),
    ]
    np.testing.assert_array_equal(reader(), [1, 2, 3])
    record(env, 30, 0)
    assert set(env.actions) == {5, 6, 7}
    assert "hidden" not in reader.abstraction.text()


def test_an_environment_that_does_not_is_told_how() -> None:
    with pytest.raises(UserError, match="described_state"):
        StateReader(gym.make("Pendulum-v1"))
    env = _Own()
    env.described_state = {**_Own.described_state, "mass": ("kg", ())}  # type: ignore[misc]
    with pytest.raises(UserError, match="mass"):
        StateReader(env)()


def test_gymnasiums_own_mujoco_environments_need_no_adapter() -> None:
    reader = StateReader(gym.make("Swimmer-v5"))
    assert {path[0] for path, _ in reader.abstraction.leaves()} == {"bodies", "geoms", "joints"}
