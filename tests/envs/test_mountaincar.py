from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from vlmrl.envs.mountaincar import MountainCar
from vlmrl.envs.tasks import PREDICATES, Task, TaskReward, dense_reward, holds


def at(x: float, **kwargs) -> MountainCar:
    env = MountainCar(**kwargs)
    env.reset(seed=0)
    env.state = np.array([x, 0.0], dtype=np.float32)
    return env


@pytest.mark.parametrize(
    ("x", "expected"), [(-1.2, False), (-0.51, False), (-0.4, False), (0.449, False), (0.451, True), (0.6, True)]
)
def test_climb_at_its_limit(x: float, expected: bool) -> None:
    conditions = PREDICATES.load("mountaincar/climb")(at(x).simulator_state())
    assert holds(conditions) == expected
    assert (dense_reward(conditions) == 1) == expected
    assert (dense_reward(conditions) == 0) == (x <= -0.5)


def rock(env: gym.Env) -> list[dict]:
    """Push the way the car goes; returns the infos of an episode."""
    observation, _ = env.reset(seed=0)
    infos = []
    while True:
        observation, _, terminated, truncated, info = env.step(np.sign(observation[1:]) + (observation[1:] == 0))
        infos.append(info | {"terminated": terminated, "x": observation[0]})
        if terminated or truncated:
            return infos


def test_it_can_be_climbed_in_its_200_steps_and_is_not_ended_at_the_flag() -> None:
    task = Task("climb", "g", "b", predicate=PREDICATES.load("mountaincar/climb"), rule="end")
    env = TaskReward(gym.make("vlmrl/MountainCar-v0"), task)
    infos = rock(env)
    assert len(infos) == 200 and not infos[-1]["terminated"]
    assert infos[-1]["is_success"] and infos[-1]["x"] >= 0.45
    # A success is not remembered: an episode in which the car stays in the valley is none (VLM-RM counted it as one).
    env.reset(seed=1)
    for _ in range(200):
        info = env.step(np.zeros(1, dtype=np.float32))[4]
    assert not info["is_success"] and info["predicate_fraction"] == 0


def test_it_ends_at_the_flag_if_asked_to() -> None:
    infos = rock(gym.make("vlmrl/MountainCar-v0", terminate_at_goal=True))
    assert infos[-1]["terminated"] and len(infos) < 200


def test_the_car_is_red_and_goes_where_it_is() -> None:
    places = []
    for x in (-1.0, -0.5, 0.0, 0.5):
        picture = at(x, render_mode="rgb_array", width=300, height=200).render()
        assert picture.shape == (200, 300, 3) and picture.dtype == np.uint8
        red = (picture[..., 0] > 150) & (picture[..., 1] < 80) & (picture[..., 2] < 80)
        rows, columns = np.nonzero(red)
        assert red.sum() > 60
        assert columns.mean() == pytest.approx((x + 1.2) / 1.8 * 300, abs=8)
        places.append(rows.mean())
    assert places[1] > places[0] > places[3] and places[1] > places[2]  # lowest in the valley, highest at the flag


def test_the_flag_is_yellow_and_the_plain_drawing_is_bare() -> None:
    textured, plain = (
        at(-0.5, render_mode="rgb_array", width=300, height=200, textured=textured).render()
        for textured in (True, False)
    )
    yellow = (textured[..., 0] > 220) & (textured[..., 1] > 180) & (textured[..., 2] < 60)
    rows, columns = np.nonzero(yellow)
    assert yellow.sum() > 50 and columns.mean() == pytest.approx((0.45 + 1.2) / 1.8 * 300, abs=15) and rows.mean() < 50
    assert (plain == 255).all(axis=2).mean() > 0.9
    assert len(np.unique(textured.reshape(-1, 3), axis=0)) > 1000


def test_without_a_render_mode_there_is_no_picture() -> None:
    assert at(0.0).render() is None
