"""Environments from outside the suite: any id that is registered with Gymnasium."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.resized_frames import ResizedFrames
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.tasks import Task
from vlmrl.errors import UserError

TASK = Task("none", "a pendulum pointing up", "a pendulum")


class Striped(gym.Env):
    """Left half dark, right half bright, 20 by 40 pixels; or what it is told to draw."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None, draw: object = None):
        self.render_mode, self.draw = render_mode, draw

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self):
        if self.draw is not None:
            return self.draw
        picture = np.zeros((20, 40, 3), np.uint8)
        picture[:, 20:] = 200
        return picture


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Striped-v0", Striped)
    yield
    del gym.registry["Striped-v0"]


@pytest.mark.parametrize(("height", "width"), [(20, 40), (10, 10), (60, 60), (10, 80)])
def test_pictures_have_the_size_that_is_asked_for(height: int, width: int) -> None:
    picture = ResizedFrames(Striped("rgb_array"), height, width).render()
    assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
    assert picture[:, : width // 2 - 1].max() < 30 and picture[:, width // 2 + 1 :].min() > 170


@pytest.mark.parametrize(
    "draw", [["ansi"], np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))], ids=["text", "grey", "float"]
)
def test_what_is_no_picture_is_refused(draw: object) -> None:
    with pytest.raises(UserError, match="uint8 RGB is needed"):
        ResizedFrames(Striped("rgb_array", draw), 8, 8).render()


def test_rows_of_any_registered_environment() -> None:
    env = make_env(EnvSettings("Pendulum-v1", TASK, height=24, width=30), fields={"frames"})
    _, info = env.reset(seed=0)
    assert info[ROW].frames["front"].shape == (24, 30, 3)
    for t in range(1, 201):
        *_, truncated, info = env.step(env.action_space.sample())
        assert truncated == (t == 200)
    assert info[ROW].reward == pytest.approx(info["original_reward"])
    env.close()


def test_the_same_without_pictures_draws_nothing() -> None:
    env = make_env(EnvSettings("Pendulum-v1", TASK))
    assert env.unwrapped.render_mode is None


def test_an_environment_without_a_limit_needs_one() -> None:
    with pytest.raises(UserError, match="max_episode_steps"):
        make_env(EnvSettings("Striped-v0", TASK))
    env = make_env(EnvSettings("Striped-v0", TASK, max_episode_steps=3))
    env.reset(seed=0)
    assert [env.step(np.zeros(1))[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("env_id", "kwargs", "message"), [
    ("Pendulm-v1", {}, "Pendulum"),
    ("no_such_module:Pendulum-v1", {}, "no_such_module"),
    ("Pendulum-v1", {"gravty": 9.8}, "gravty"),
    ("vlmrl/Hopper-v0", {"strt": "fallen"}, "strt"),
])  # fmt: skip
def test_what_cannot_be_made_says_why(env_id: str, kwargs: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(EnvSettings(env_id, TASK, kwargs=kwargs))


def test_a_task_names_its_start_and_the_user_has_the_last_word() -> None:
    task = Task("stand", "g", "b", cameras=("side",), start="fallen")
    for kwargs, fallen in (({}, True), ({"start": "standing"}, False)):
        env = make_env(EnvSettings("vlmrl/Hopper-v0", task, kwargs=kwargs))
        env.reset(seed=0)
        assert (env.unwrapped.simulator_state()["torso_up"][2] < 0.5) == fallen
