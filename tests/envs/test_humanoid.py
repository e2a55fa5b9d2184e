from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vlmrl  # noqa: F401
from tests.patience import PATIENCE
from vlmrl.envs.humanoid import CAMERAS, Humanoid
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.errors import UserError


@pytest.fixture(scope="module")
def humanoid():
    env = Humanoid(render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    yield env
    env.close()


def pose(env: Humanoid, degrees: dict[str, float], **free: float) -> dict[str, np.ndarray]:
    """Put joints at angles, the rest straight, the lowest geom on the floor; return the state."""
    env.data.qpos[:] = 0
    env.data.qpos[3] = 1
    for name, value in degrees.items():
        env.data.joint(name).qpos[0] = np.deg2rad(value)
    if "pitch" in free:
        half = np.deg2rad(free["pitch"]) / 2
        env.data.qpos[3:7] = [np.cos(half), 0, np.sin(half), 0]
    env.data.qvel[:] = 0
    mujoco.mj_forward(env.model, env.data)
    lowest = min(env.data.geom(i).xpos[2] - _half_height(env, i) for i in range(1, env.model.ngeom))
    env.data.qpos[2] -= lowest
    mujoco.mj_forward(env.model, env.data)
    return env.simulator_state()


def _half_height(env: Humanoid, geom: int) -> float:
    size = env.model.geom_size[geom]
    capsule = env.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE
    return size[0] + (abs(env.data.geom(geom).xmat[8]) * size[1] if capsule else 0.0)


KNEES = ("right_knee", "left_knee")
HIPS = ("right_hip_y", "left_hip_y")


def legs(knee: float, hip: float) -> dict[str, float]:
    return {**dict.fromkeys(KNEES, knee), **dict.fromkeys(HIPS, hip)}


POSES = {
    # name: (joint angles in degrees, pitch of the trunk in degrees, tasks that hold)
    "standing": (legs(-2, 0), 0, {"standing"}),
    "tall kneel": (legs(-90, 0), 0, {"kneeling"}),
    "kneel on the heels": (legs(-155, -70), 0, {"kneeling"}),
    "squat": (legs(-120, -90), 20, set()),
    "sitting, legs ahead": (legs(-2, -90), 0, set()),
    "lying on the back": (legs(-2, 0), -90, set()),
    "lying on the front": (legs(-2, 0), 90, set()),
    "kneeling, bent to the floor": (legs(-110, -60), 75, set()),
}


@pytest.mark.parametrize("name", POSES)
def test_predicates_tell_poses_apart(humanoid: Humanoid, name: str) -> None:
    joints, pitch, expected = POSES[name]
    state = pose(humanoid, joints, pitch=pitch)
    held = {task for task in ("kneeling", "standing") if holds(PREDICATES.load(f"humanoid/{task}")(state))}
    assert held == expected


@pytest.mark.parametrize("task", ["kneeling", "standing"])
def test_the_dense_reward_is_one_exactly_where_the_predicate_holds(humanoid: Humanoid, task: str) -> None:
    predicate = PREDICATES.load(f"humanoid/{task}")
    for joints, pitch, expected in POSES.values():
        conditions = predicate(pose(humanoid, joints, pitch=pitch))
        reward = dense_reward(conditions)
        assert 0 <= reward <= 1
        assert (reward == 1) == (task in expected)


def test_the_dense_reward_rises_on_the_way_down_to_the_knees(humanoid: Humanoid) -> None:
    predicate = PREDICATES.load("humanoid/kneeling")
    rewards = [dense_reward(predicate(pose(humanoid, legs(knee, knee / 2)))) for knee in (-2, -30, -60, -90, -115)]
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0] + 0.3


def test_the_camera_really_applies(humanoid: Humanoid) -> None:
    """Each camera gives another picture, and the chosen one is what render() draws."""
    humanoid.reset(seed=0)
    views = {name: humanoid.render_camera(name) for name in CAMERAS}
    for name, view in views.items():
        env = gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array", width=64, height=64, camera=name)
        env.reset(seed=0)
        np.testing.assert_array_equal(env.render(), view)
        env.close()
    front, side, diagonal = (view.astype(int) for view in views.values())
    assert min(np.abs(a - b).mean() for a, b in ((front, side), (front, diagonal), (side, diagonal))) > 5
    # The front view is symmetric, the side view is not: both hands point the same way in it.
    asymmetry = {name: np.abs(view.astype(int) - view[:, ::-1]).mean() for name, view in views.items()}
    assert asymmetry["front"] < asymmetry["side"]


def test_the_lean_picture_is_nearly_the_default_one() -> None:
    pictures = []
    for profile in ("lean", "default"):
        env = Humanoid(render_mode="rgb_array", width=96, height=96, profile=profile)
        env.reset(seed=0)
        pictures.append(env.render().astype(float))
        env.close()
    difference = np.abs(pictures[0] - pictures[1])
    assert 0 < difference.mean() < 12


def test_checked_by_gymnasium_and_never_terminates() -> None:
    env = gym.make("vlmrl/Humanoid-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    env.action_space.seed(0)
    for t in range(1, 101):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert not terminated
        assert truncated == (t == 100)


def test_same_seed_same_episode() -> None:
    def episode() -> list[np.ndarray]:
        env = gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array", width=32, height=32)
        env.action_space.seed(1)
        seen = [env.reset(seed=3)[0]]
        seen += [env.step(env.action_space.sample())[0] for _ in range(20)]
        seen.append(env.render())
        env.close()
        return seen

    for a, b in zip(episode(), episode(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("given", "message"), [({"camera": "frnt"}, "Did you mean 'front'"), ({"profile": "leen"}, "Did you mean 'lean'")]
)
def test_unknown_names(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Humanoid(render_mode="rgb_array", **given)


def test_torch_is_loaded_before_an_opengl_context_exists() -> None:
    code = (
        "import sys, vlmrl.envs.humanoid as h\n"
        "assert 'torch' not in sys.modules\n"
        "import mujoco\n"
        "before = []\n"
        "real = mujoco.Renderer.__init__\n"
        "def spy(self, *a, **k): before.append('torch' in sys.modules); real(self, *a, **k)\n"
        "mujoco.Renderer.__init__ = spy\n"
        "env = h.Humanoid(render_mode='rgb_array', width=32, height=32); env.reset(seed=0); env.render(); env.close()\n"
        "assert before == [True], before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_without_opengl_there_is_one_clear_error() -> None:
    code = (
        "import vlmrl.envs.humanoid as h\n"
        "from vlmrl.errors import UserError\n"
        "env = h.Humanoid(render_mode='rgb_array', width=32, height=32); env.reset(seed=0)\n"
        "try:\n    env.render()\n"
        "except UserError as error:\n    assert 'apt-get install' in str(error), error\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    import os

    # GLFW needs a display; on a machine without one it stands for "no OpenGL".
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | {"MUJOCO_GL": "glfw"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=PATIENCE, env=environment)


def test_a_reset_says_how_the_episode_starts() -> None:
    env = gym.make("vlmrl/Humanoid-v0", start="mixed")
    seen = []
    for seed in range(8):
        _, info = env.reset(seed=seed)
        upright = env.unwrapped.simulator_state()["torso_up"][2] > 0.9
        assert info["start"] == ("standing" if upright else "fallen")
        seen.append(info["start"])
    assert set(seen) == {"standing", "fallen"}
