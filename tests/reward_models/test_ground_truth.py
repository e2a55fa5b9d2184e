"""What the environment gave, in both of its meanings."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import vlmrl  # noqa: F401
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.envs.tasks import PREDICATES, Task, TaskReward
from vlmrl.reward_models.ground_truth import GroundTruthConfig
from vlmrl.rows import stack


def test_the_tasks_truth_and_the_environments_own_reward_are_two_things() -> None:
    task = Task("run", "a robot running fast", "a robot", predicate=PREDICATES.load("hopper/run"))
    env = RowWriter(TaskReward(gym.make("vlmrl/Hopper-v0"), task), {"native_reward", "reward"})
    env.reset(seed=0)
    rows, truth, native = [], [], []
    for _ in range(3):
        _, reward, _, _, info = env.step(np.full(3, 0.1, dtype=np.float32))
        rows.append(info[ROW])
        truth.append(reward)
        native.append(info["original_reward"])
    assert not np.allclose(truth, native)
    for of, expected in (("task", truth), ("environment", native)):
        model = GroundTruthConfig(of=of).build(None, None)  # type: ignore[arg-type]
        np.testing.assert_allclose(model(stack(rows, [1, 2, 3], model.needs)), expected, rtol=1e-6)
