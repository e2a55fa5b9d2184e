"""The humanoid's predicates: against poses that are within its powers, and against frames that were labelled by eye."""

from __future__ import annotations

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest

from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.humanoid_poses import NEGATIVE, POSITIVE, Pose, hold, joint_angles, put
from vlmrl.envs.humanoid_tasks import knee_bends
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds

TASKS = {entry.split("/")[1]: PREDICATES.load(entry) for entry in PREDICATES if entry.startswith("humanoid/")}
ALSO = {"arms_raised": {"standing"}, "hands_on_hips": {"standing"}, "arms_crossed": {"standing"}}  # poses of the arms
EVERY = [(task, name) for task, poses in POSITIVE.items() for name in poses]
# Frames that the limits were set by, and frames that were labelled only afterwards.
LABELS = {name: Path(__file__).with_name(f"humanoid_labels{name}.json") for name in ("", "_held_out")}


@pytest.fixture(scope="module")
def env():
    env = Humanoid()
    env.reset(seed=0)
    return env


def fulfilled(env: Humanoid) -> set[str]:
    state = env.simulator_state()
    return {task for task, predicate in TASKS.items() if holds(predicate(state))}


def test_there_are_vlm_rms_eight_and_each_has_a_pose() -> None:
    assert len(TASKS) == 8
    assert set(POSITIVE) == set(TASKS)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_a_pose_lies_within_the_joints_limits_and_is_its_task(env: Humanoid, task: str, name: str) -> None:
    angles = joint_angles(env, POSITIVE[task][name])
    low, high = env.model.jnt_range[1:].T
    assert (low - 1e-9 <= angles).all() and (angles <= high + 1e-9).all()
    put(env, POSITIVE[task][name])
    assert fulfilled(env) == {task} | ALSO.get(task, set())


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_a_pose_is_held_for_25_steps_within_the_torques_of_the_actions(env: Humanoid, task: str, name: str) -> None:
    pose = POSITIVE[task][name]
    put(env, pose)
    seen = []

    def look() -> None:
        assert (np.abs(env.data.ctrl) <= 0.4).all()
        seen.append(holds(TASKS[task](env.simulator_state())))

    start = env.data.time
    hold(env, joint_angles(env, pose), 25, look)
    assert env.data.time - start == pytest.approx(25 * 0.015)
    assert seen == [True] * 25


@pytest.mark.parametrize("name", NEGATIVE)
def test_a_pose_near_those_of_the_tasks_is_told_from_them(env: Humanoid, name: str) -> None:
    pose, expected = NEGATIVE[name]
    put(env, pose)
    assert fulfilled(env) == expected


@pytest.mark.parametrize("task", TASKS)
def test_the_dense_reward_rises_from_standing_to_the_pose(env: Humanoid, task: str) -> None:
    start = Pose(pitch=-90) if task == "standing" else Pose()
    rewards = []
    for pose in (start, next(iter(POSITIVE[task].values()))):
        put(env, pose)
        rewards.append(dense_reward(TASKS[task](env.simulator_state())))
    assert rewards[0] < 0.9 and rewards[1] == 1


def test_a_joint_that_there_is_not(env: Humanoid) -> None:
    with pytest.raises(KeyError, match="ankle"):
        put(env, Pose({"ankle": 10}))


def test_knees_bend_as_far_as_their_joints_say(env: Humanoid) -> None:
    for degrees in (2, 45, 90, 150):
        put(env, Pose({"right_knee": -degrees, "left_knee": -2}))
        right, left = np.rad2deg(knee_bends(env.simulator_state()))
        assert right == pytest.approx(degrees, abs=5) and left == pytest.approx(2, abs=5)


def judged(env: Humanoid, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and verdicts, each (frames, tasks) bool."""
    frames = json.loads(LABELS[labels].read_text())["frames"]
    shown, said = np.zeros((2, len(frames), len(TASKS)), dtype=bool)
    for i, frame in enumerate(frames):
        assert set(frame["shows"]) <= set(TASKS)
        env.data.qpos[:], env.data.qvel[:] = frame["qpos"], 0
        mujoco.mj_forward(env.model, env.data)
        verdicts = fulfilled(env)
        shown[i] = [task in frame["shows"] for task in TASKS]
        said[i] = [task in verdicts for task in TASKS]
    return shown, said


def test_predicates_agree_with_frames_labelled_by_eye(env: Humanoid) -> None:
    shown, said = judged(env, "")
    assert len(shown) >= 200
    assert (shown.sum(axis=0) >= 7).all()  # each pose is among them
    agreement = dict(zip(TASKS, (shown == said).mean(axis=0), strict=True))
    assert min(agreement.values()) >= 0.95, agreement
    # Most frames show any one pose not, so that also of those that show it, or are said to, most must be agreed on.
    found = (shown & said).sum(axis=0) / shown.sum(axis=0)
    right = (shown & said).sum(axis=0) / said.sum(axis=0)
    assert min(found) >= 0.8 and min(right) >= 0.8, (found, right)


def test_they_agree_with_frames_that_the_limits_were_not_set_by(env: Humanoid) -> None:
    shown, said = judged(env, "_held_out")
    assert len(shown) >= 60
    assert (shown == said).mean() >= 0.95
    assert (shown & said).sum() / shown.sum() >= 0.8 and (shown & said).sum() / said.sum() >= 0.8
