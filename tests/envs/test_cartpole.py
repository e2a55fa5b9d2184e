from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vlmrl  # noqa: F401
from vlmrl.envs.cartpole import CartPole
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds


def at(x: float, angle: float) -> dict[str, np.ndarray]:
    env = CartPole()
    env.reset(seed=0)
    env.state = np.array([x, 0.0, angle, 0.0])
    return env.simulator_state()


@pytest.mark.parametrize(
    ("x", "degrees", "expected"),
    [
        (0, 0, True),
        (0, 11.9, True),
        (0, -11.9, True),
        (0, 12.1, False),
        (0, 180, False),
        (2.3, 0, True),
        (2.4, 0, False),
        (-2.4, 0, False),
    ],
)
def test_balance_at_its_thresholds(x: float, degrees: float, expected: bool) -> None:
    conditions = PREDICATES.load("cartpole/balance")(at(x, np.deg2rad(degrees)))
    assert holds(conditions) == expected
    assert (dense_reward(conditions) == 1) == expected


def test_it_swings_all_the_way_round_and_never_terminates() -> None:
    env = gym.make("vlmrl/CartPole-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    angles = []
    for t in range(1, 201):
        observation, reward, terminated, truncated, _ = env.step(1)
        assert not terminated and reward == 1
        assert truncated == (t == 200)
        assert env.observation_space.contains(observation)
        angles.append(observation[2])
    assert max(np.abs(angles)) > 3
    assert observation[0] == pytest.approx(2.4)


def test_the_picture_shows_the_pole() -> None:
    env = CartPole(render_mode="rgb_array", width=60, height=40)
    env.reset(seed=0)
    pictures = []
    for angle in (0.0, 1.0, np.pi):
        env.state = np.array([0.0, 0.0, angle, 0.0])
        picture = env.render()
        assert picture is not None and picture.shape == (40, 60, 3) and picture.dtype == np.uint8
        pictures.append(picture.astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    # Upright, the pole is in the upper half; hanging down, it is not.
    dark = [(picture[:20] < 240).any(axis=2).sum() for picture in pictures]
    assert dark[0] > 5 and dark[2] == 0
    env.close()


def test_a_negative_shows_the_same_with_white_for_black() -> None:
    pictures = []
    for negative in (False, True):
        env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=64, height=64, negative=negative)
        env.reset(seed=0)
        pictures.append(env.render())
        env.close()
    np.testing.assert_array_equal(pictures[1], 255 - pictures[0])
