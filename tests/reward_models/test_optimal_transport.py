"""Plans against solvers that know the optimum, and rewards against what can be reckoned by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from tests.toys import BrightnessEncoder
from vlmrl.errors import UserError
from vlmrl.reward_models.optimal_transport import (
    Demonstrations,
    OptimalTransportConfig,
    OptimalTransportReward,
    cosine_distances,
    sinkhorn,
    transport,
)
from vlmrl.rows import Rows


def rows(embeddings: np.ndarray, **others: np.ndarray) -> Rows:
    return Rows(np.arange(len(embeddings)), {"embeddings": {"front": embeddings, **others}})


def turned(degrees: list[float]) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_a_sharp_plan_is_the_assignment_that_costs_least(seed: int) -> None:
    cost = np.random.default_rng(seed).uniform(size=(7, 7))
    plan = sinkhorn(cost, 1e-3, 5000)
    order, columns = linear_sum_assignment(cost)
    assert plan.argmax(axis=1).tolist() == columns.tolist()
    assert (plan * cost).sum() == pytest.approx(cost[order, columns].mean(), abs=1e-3)


@pytest.mark.parametrize("shape", [(3, 5), (6, 2), (1, 4)])
def test_with_other_numbers_of_frames_it_is_the_linear_program(shape: tuple[int, int]) -> None:
    n, m = shape
    cost = np.random.default_rng(n).uniform(size=shape)
    sums = np.array([np.repeat(np.eye(n)[i], m) for i in range(n)] + [np.tile(np.eye(m)[j], n) for j in range(m)])
    least = linprog(cost.ravel(), A_eq=sums, b_eq=[1 / n] * n + [1 / m] * m, bounds=(0, None)).fun
    assert (sinkhorn(cost, 1e-3, 5000) * cost).sum() == pytest.approx(least, abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), epsilon=st.floats(0.02, 2.0), seed=st.integers(0, 99))
def test_rows_and_columns_sum_up_and_entropy_only_costs(n: int, m: int, epsilon: float, seed: int) -> None:
    cost = np.random.default_rng(seed).uniform(size=(n, m))
    plan = sinkhorn(cost, epsilon, 2000)
    np.testing.assert_allclose(plan.sum(axis=0), np.full(m, 1 / m), rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), np.full(n, 1 / n), rtol=2e-3)
    assert (plan * cost).sum() >= (sinkhorn(cost, 0.01, 3000) * cost).sum() - 1e-2
    np.testing.assert_allclose(sinkhorn(cost, 1e6), np.full((n, m), 1 / (n * m)), rtol=1e-5)  # all entropy


def test_plans_do_not_depend_on_how_close_together_pictures_lie() -> None:
    cost = np.random.default_rng(0).uniform(size=(5, 4))
    plan, mean = transport(cost, 0.05, 500)
    nearer, smaller = transport(cost / 100, 0.05, 500)
    np.testing.assert_allclose(nearer, plan, rtol=1e-6)
    np.testing.assert_allclose(smaller, mean / 100, rtol=1e-6)


def test_each_frame_costs_its_distance_from_what_falls_to_it() -> None:
    wanted = Demonstrations.of([turned([0, 90])], "0")
    reward = OptimalTransportReward(wanted, epsilon=0.01, iterations=2000)
    values = reward(rows(turned([0, 60])))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0, -(1 - np.cos(np.radians(30)))], atol=1e-3)
    # The second frame is at 0 as well, but what is there is taken: half of what is at 90 must go somewhere.
    np.testing.assert_allclose(reward(rows(turned([0, 0]))), [-0.5, -0.5], atol=1e-3)


def test_the_closest_demonstration_counts() -> None:
    two = Demonstrations.of([turned([0, 0, 0]), turned([80, 90])], "0")
    assert len(two) == 2
    values = OptimalTransportReward(two, epsilon=0.01, iterations=2000)(rows(turned([80, 90, 80, 90])))
    np.testing.assert_allclose(values, 0, atol=1e-4)


def test_order_counts_only_with_a_weight() -> None:
    wanted = Demonstrations.of([turned([0, 30, 60, 90])], "0")
    there, back = rows(turned([0, 30, 60, 90])), rows(turned([90, 60, 30, 0]))
    plain, timed = (OptimalTransportReward(wanted, epsilon=0.01, time_weight=weight) for weight in (0.0, 1.0))
    assert plain(there).sum() == pytest.approx(plain(back).sum(), abs=1e-4)
    assert timed(there).sum() > timed(back).sum() + 0.5
    assert timed(there).sum() == pytest.approx(0, abs=1e-2)


def test_cameras_are_compared_one_by_one() -> None:
    wanted = Demonstrations.of([turned([0, 0])], "0")
    both = rows(turned([0, 0]), side=turned([90, 90]))
    np.testing.assert_allclose(OptimalTransportReward(wanted)(both), -0.5, atol=1e-6)
    np.testing.assert_allclose(OptimalTransportReward(wanted, views="min")(both), -1, atol=1e-6)


def test_projected_features_are_compared(tmp_path: Path) -> None:
    """Two frames that differ in what does not matter are one."""
    frames = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]], dtype=np.float32)
    mean, projection = np.array([0.5, 0.5, 0.5], dtype=np.float32), np.array([[1.0], [-1.0], [0.0]], dtype=np.float32)
    wanted = Demonstrations(frames, np.array([0, 2]), "0", mean, projection)
    wanted.save(tmp_path / "demonstrations.npz")
    read = Demonstrations.load(str(tmp_path / "demonstrations.npz"), BrightnessEncoder())
    reward = OptimalTransportReward(read, epsilon=0.01)
    np.testing.assert_allclose(reward(rows(frames * [1, 1, 7])), 0, atol=1e-6)
    assert cosine_distances(read.features(frames[:1]), read.features(frames[1:])) == pytest.approx(2)


def test_demonstrations_belong_to_their_encoder(tmp_path: Path) -> None:
    path = tmp_path / "demonstrations.npz"
    config = OptimalTransportConfig(demonstrations=str(path))
    with pytest.raises(UserError, match="there is no file"):
        config.build(None, BrightnessEncoder())
    Demonstrations.of([turned([0])], "another").save(path)
    with pytest.raises(UserError, match="made with another encoder than brightness"):
        config.build(None, BrightnessEncoder())
    path.write_text("no")
    with pytest.raises(UserError, match="holds no demonstrations"):
        config.build(None, BrightnessEncoder())
