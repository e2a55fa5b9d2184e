from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toys import PointEnv
from vlmrl.envs.tasks import Condition, Task, TaskReward, above, below, dense_reward, holds
from vlmrl.errors import UserError

margins = st.floats(-10, 10)


@given(st.lists(st.tuples(margins, st.floats(0.01, 10)), min_size=1, max_size=4))
def test_dense_reward_is_one_exactly_where_the_predicate_holds(given_conditions: list[tuple[float, float]]) -> None:
    conditions = {str(i): Condition(*pair) for i, pair in enumerate(given_conditions)}
    reward = dense_reward(conditions)
    assert 0 <= reward <= 1
    # A margin so small that 1 + margin / scale rounds to 1 is no counterexample.
    if holds(conditions):
        assert reward == 1
    elif min(margin / scale for margin, scale in given_conditions) < -1e-9:
        assert reward < 1


def test_margins_point_inwards() -> None:
    assert below(1.0, limit=2.0, scale=1.0).margin == 1.0
    assert above(1.0, limit=2.0, scale=1.0).margin == -1.0


class Line(PointEnv):
    def simulator_state(self) -> dict[str, np.ndarray]:
        return {"position": np.float32(self.position)}


def right_half(state) -> dict[str, Condition]:  # noqa: ANN001
    return {"right": above(state["position"], 0.5, 0.5)}


def play(rule: str, positions: list[float], fraction: float = 0.5) -> dict:
    env = gym.wrappers.TimeLimit(Line(), len(positions))
    wrapped = TaskReward(env, Task("right", "g", "b", predicate=right_half, rule=rule, fraction=fraction))  # type: ignore[arg-type]
    wrapped.reset(seed=0)
    for position in positions:
        env.unwrapped.position = position
        _, reward, _, _, info = wrapped.step(np.zeros(1))
        assert info["original_reward"] == pytest.approx(position)
        assert reward == pytest.approx(min(1.0, position / 0.5))
        assert info["predicate"] == (position >= 0.5)
    return info


@pytest.mark.parametrize(
    ("rule", "positions", "fraction", "success"),
    [
        ("hold", [0.9, 0.9, 0.1, 0.1], 0.5, True),
        ("hold", [0.9, 0.1, 0.1, 0.1], 0.25, False),
        ("end", [0.9, 0.9, 0.9, 0.1], 0.75, False),
        ("end", [0.1, 0.1, 0.1, 0.9], 0.25, True),
    ],
)
def test_success_rules(rule: str, positions: list[float], fraction: float, success: bool) -> None:
    info = play(rule, positions)
    assert info["predicate_fraction"] == fraction
    assert info["is_success"] == success


def test_the_count_starts_anew_with_each_episode() -> None:
    env = TaskReward(gym.wrappers.TimeLimit(Line(), 2), Task("right", "g", "b", predicate=right_half))
    for position, expected in ((0.9, 1.0), (0.1, 0.0)):
        env.reset()
        for _ in range(2):
            env.unwrapped.position = position
            info = env.step(np.zeros(1))[4]
        assert info["predicate_fraction"] == expected


def test_without_a_predicate_the_environments_reward_stays() -> None:
    env = TaskReward(PointEnv(), Task("none", "g", "b"))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(1))
    assert reward == info["original_reward"] == env.unwrapped.position
    assert "predicate" not in info


def test_an_environment_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserError, match="simulator_state"):
        TaskReward(PointEnv(), Task("right", "g", "b", predicate=right_half))
