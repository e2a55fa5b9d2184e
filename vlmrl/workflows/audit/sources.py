"""Where the states of an audit come from.

A source sets an environment up in the states of one *group*, one after the other, and yields at each. States of one
episode resemble each other and make a group; a state that was put up by itself is a group of one. A group must be run
to its end before another source touches the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.humanoid_poses import NEGATIVE, POSITIVE, Pose, hold, joint_angles, put
from vlmrl.envs.mujoco_scene import MujocoScene, lowest_point
from vlmrl.workflows.predicates import WAYS, between, passes_through_itself, shake

LONGEST = 100  # steps of an episode that is looked at
PER_EPISODE = 5  # states taken from one episode
HOLDS = (1, 5, 20)  # steps that a random action is held; a new one each step moves heavy bodies hardly at all


class Source(NamedTuple):
    """A source.

    Attributes:
        group: Sets up the states of one group.
        patience: States in a row that may be of no use, or groups that have none, before no more are drawn: few where
            each is simulated, many where it costs next to nothing.
    """

    group: Callable[[], Iterator[None]]
    patience: int


SIMULATED, PUT_UP = 20, 300


def sources(env: gym.Env, task: str, rng: np.random.Generator) -> dict[str, Source]:
    """Return every source that an environment has: episodes for all, states that are put up where it is known how.

    Args:
        env: The environment, reset at least once.
        task: Name of the task; where poses of it are known, they and what lies around its limits are a source.
        rng: Source of everything that is random.

    Returns:
        {where the states come from: the source}.
    """
    inner = env.unwrapped
    found: dict[str, Source] = {"random policy": Source(lambda: _episode(env, rng), SIMULATED)}
    if hasattr(inner, "draw_state"):
        found["any state"] = Source(lambda: _drawn(env, inner, rng), PUT_UP)
    elif isinstance(inner, MujocoScene):
        found["fallen"] = Source(lambda: _fallen(env, inner, rng), SIMULATED)
        found["any body"] = Source(lambda: _body(inner, rng), PUT_UP)
    elif _state_is_observed(inner):
        found["any state"] = Source(lambda: _observable(inner, rng), PUT_UP)
    if isinstance(inner, Humanoid):
        known = list(POSITIVE.get(task, {}).values())
        if known:
            found["poses of the task"] = Source(lambda: _pose(inner, known, rng), PUT_UP)
            found["around its limits"] = Source(lambda: _around(inner, task, rng), PUT_UP)
        others = [pose for name, poses in POSITIVE.items() if name != task for pose in poses.values()]
        others += [pose for pose, _ in NEGATIVE.values()]
        found["other poses"] = Source(lambda: _pose(inner, others, rng), PUT_UP)
        found["held poses"] = Source(lambda: _held(env, inner, [*known, *others], rng), SIMULATED)
    return found


def _episode(env: gym.Env, rng: np.random.Generator) -> Iterator[None]:
    """States at random times of an episode of random actions, each held for a while."""
    limit = min(LONGEST, (env.spec.max_episode_steps if env.spec else None) or LONGEST)
    env.reset(seed=int(rng.integers(2**31)))
    yield from _act(env, rng, limit, PER_EPISODE)


def _drawn(env: gym.Env, inner: Any, rng: np.random.Generator) -> Iterator[None]:
    """A state that the environment itself puts up: it says in `draw_state(rng)` what can be where."""
    env.reset(seed=int(rng.integers(2**31)))
    inner.draw_state(rng)
    yield


def _fallen(env: gym.Env, scene: MujocoScene, rng: np.random.Generator) -> Iterator[None]:
    """A body at rest on the floor, and what random actions make of it."""
    env.reset(seed=int(rng.integers(2**31)))
    scene.fall()
    yield
    yield from _act(env, rng, 30, PER_EPISODE - 1)


def _act(env: gym.Env, rng: np.random.Generator, limit: int, n: int) -> Iterator[None]:
    """Act at random for up to `limit` steps from where the environment is, and yield at `n` of them."""
    chosen = set(rng.choice(np.arange(1, limit + 1), min(n, limit), replace=False).tolist())
    held = int(rng.choice(HOLDS))
    env.action_space.seed(int(rng.integers(2**31)))
    action: Any = None
    for t in range(1, max(chosen) + 1):
        if (t - 1) % held == 0:
            action = env.action_space.sample()
        _, _, terminated, truncated, _ = env.step(action)
        if t in chosen:
            yield
        if terminated or truncated:
            return


def _body(scene: MujocoScene, rng: np.random.Generator) -> Iterator[None]:
    """Joints anywhere within their limits, trunk level, tipped or turned over, on the floor or above it, in motion."""
    import mujoco

    model, data = scene.model, scene.data
    free = model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE  # a planar body starts with x, z and pitch
    root, height = (1, 2) if free else (3, 1)
    joints = model.jnt_qposadr[root:]
    low, high = model.jnt_range[root:].T
    mujoco.mj_resetData(model, data)
    data.qpos[:] = scene.init_qpos
    data.qpos[joints] += rng.choice([0.1, 0.3, 1.0]) * (rng.uniform(low, high) - data.qpos[joints])
    tilt = rng.choice([0.1, 0.4, 1.5]) * rng.standard_normal()
    if free:
        axis = rng.uniform(-np.pi, np.pi)
        mujoco.mju_axisAngle2Quat(data.qpos[3:7], np.array([np.cos(axis), np.sin(axis), 0.0]), tilt)
    else:
        data.qpos[2] = tilt + rng.choice([-2 * np.pi, 0.0, 2 * np.pi], p=[0.2, 0.6, 0.2])  # after a somersault
    mujoco.mj_forward(model, data)
    data.qpos[height] -= lowest_point(model, data) - (rng.uniform(0, 0.6) if rng.random() < 0.4 else 0.0)
    if rng.random() < 0.5:
        data.qvel[0] = rng.uniform(-1, 4)
        data.qvel[height] = rng.standard_normal()
    mujoco.mj_forward(model, data)
    if not passes_through_itself(scene):
        yield


def _state_is_observed(env: Any) -> bool:
    """Whether the whole state is an array `state` that is also the observation, as in Gymnasium's classic control."""
    space = env.observation_space
    state = getattr(env, "state", None)
    return isinstance(space, gym.spaces.Box) and state is not None and np.shape(state) == space.shape


def _observable(env: Any, rng: np.random.Generator) -> Iterator[None]:
    """A state anywhere within the bounds of observations; what has no bounds is normal."""
    low, high = env.observation_space.low.astype(np.float64), env.observation_space.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    drawn = rng.standard_normal(low.shape)
    drawn[bounded] = rng.uniform(low[bounded], high[bounded])
    env.state = drawn
    yield


def _pose(env: Humanoid, poses: list[Pose], rng: np.random.Generator) -> Iterator[None]:
    """A pose, shaken a little or a lot."""
    shake(env, rng, poses[rng.integers(len(poses))], rng.choice([3.0, 8.0, 14.0]))
    if not passes_through_itself(env):
        yield


def _around(env: Humanoid, task: str, rng: np.random.Generator) -> Iterator[None]:
    """A state on the way from a task's pose across one of its limits."""
    ways = list(WAYS[task].values())
    inside, outside = ways[rng.integers(len(ways))]
    shake(env, rng, between(inside, outside, rng.uniform(0, 1)), rng.choice([1.0, 4.0]))
    if not passes_through_itself(env):
        yield


def _held(env: gym.Env, humanoid: Humanoid, poses: list[Pose], rng: np.random.Generator) -> Iterator[None]:
    """A body that tries to hold a pose, from standing or from the pose itself: what a policy half-way there does."""
    pose = poses[rng.integers(len(poses))]
    env.reset(seed=int(rng.integers(2**31)))
    target = joint_angles(humanoid, pose)
    if rng.random() < 0.5:
        put(humanoid, pose)
    for _ in range(PER_EPISODE - 2):
        hold(humanoid, target, int(rng.integers(4, 20)))
        yield
