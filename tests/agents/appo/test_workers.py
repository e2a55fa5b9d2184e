"""What a worker does with an environment of the suite; nothing here needs sample-factory."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agents.appo.worlds import TEXTS, Says
from tests.toys import CountingEnv
from vlmrl.agents.appo.shared import SharedScores, StepClock
from vlmrl.agents.appo.workers import EnvMaker, ModelReward, RewardAtCollection, TextReward
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.tasks import Task
from vlmrl.errors import UserError
from vlmrl.reward_models.ground_truth import GroundTruthReward
from vlmrl.reward_models.oni import OniConfig, OniReward
from vlmrl.reward_models.oni_labels import LabelTable
from vlmrl.rows import Row, stack, text_keys

NO_TASK = Task("none", goal="", baseline="")
SAYS = EnvSettings("tests.agents.appo.worlds:Says-v0", NO_TASK)


def published(labels: dict[str, float]) -> SharedScores:
    scores = SharedScores(100)
    scores.write(text_keys(list(labels)), np.array(list(labels.values()), dtype=np.float32), 3)
    return scores


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(TEXTS),
    st.integers(1, 30),
    st.floats(-5, 5),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 0.1, 2.0]),
)
def test_a_step_earns_what_the_reward_model_gives_it(
    text: str, count: int, native: float, beta: float, extrinsic: float
) -> None:
    table = LabelTable("", "aim", "a world", {"a door opens": 1.0, "a wall": 0.0})
    model = OniReward(OniConfig(extrinsic_coef=extrinsic, intrinsic_coef=0.4, beta=beta), table=table)
    row = Row(text=text, text_count=count, native_reward=native)
    reward = TextReward(published({"a door opens": 1.0, "a wall": 0.0}), extrinsic, 0.4, beta)
    total, parts = reward(row)
    np.testing.assert_allclose(total, model(stack([row], [1], model.needs))[0], rtol=1e-6, atol=1e-6)
    assert parts["extrinsic"] + parts["intrinsic"] == pytest.approx(total)
    assert parts["labelled_share"] == (text in ("a door opens", "a wall"))
    assert reward.closing()["label_version"] == 3


def test_a_label_counts_from_the_next_step_on_that_says_its_text() -> None:
    scores = published({})
    env = EnvMaker(SAYS, TextReward(scores, 0.0, 1.0, 1.0), 0, 0, Path(), Path(), StepClock(1)).probe()
    env.reset()
    rewards = [env.step(1)[1] for _ in range(4)]
    scores.write(text_keys(["a door opens"]), np.ones(1, dtype=np.float32), 4)
    rewards += [env.step(1)[1] for _ in range(8)]
    # "a door opens" is said at steps 1, 5 and 9: without a label, then the second and third time.
    np.testing.assert_allclose(rewards, [0, 0, 0, 0, 1 / 2, 0, 0, 0, 1 / 3, 0, 0, 0])


def test_the_figures_of_an_episode_come_with_its_last_step() -> None:
    reward = TextReward(published({"a door opens": 1.0}), 2.0, 1.0, 0.0)
    clock = StepClock(3)
    maker = EnvMaker(SAYS, reward, 0, 0, Path(), Path(), clock)
    env = RewardAtCollection(maker.probe().env, reward, 2, clock)
    env.reset(seed=99)
    infos = [env.step(1)[-1] for _ in range(20)]
    assert all("episode_extra_stats" not in info for info in infos[:-1])
    figures = infos[-1]["episode_extra_stats"]
    assert figures["rollout/ep_rew_mean"] == infos[-1]["true_objective"] == 5.0  # each fourth step, by the world itself
    assert figures["rollout/ep_vlm_rew_mean"] == pytest.approx(2.0 * 5 + 5)
    assert figures["rollout/ep_len_mean"] == 20
    assert figures["reward/extrinsic"] == pytest.approx(10 / 20) and figures["reward/intrinsic"] == pytest.approx(
        5 / 20
    )
    assert figures["reward/labelled_share"] == pytest.approx(5 / 20) and figures["reward/label_version"] == 3
    assert clock.steps == 20 and clock.stuck() == {}


def test_numbered_actions_begin_where_the_environment_says_and_vectors_are_cut_to_their_bounds() -> None:
    env = RewardAtCollection(_rows(Says()), ModelReward(GroundTruthReward()), 0)
    assert env.action_space == gym.spaces.Discrete(2)
    env.reset()
    assert env.step(1)[0][1] == 1 and env.step(0)[0][0] == 1

    seen: list[Any] = []

    class Watched(CountingEnv):
        def step(self, action: Any) -> Any:
            seen.append(action)
            return super().step(action)

    env = RewardAtCollection(_rows(Watched()), ModelReward(GroundTruthReward()), 0)
    env.reset()
    assert env.step(np.array([7.5], dtype=np.float32))[1] == -1.0
    np.testing.assert_array_equal(seen, [[1.0]])


def _rows(env: gym.Env) -> gym.Env:
    from vlmrl.envs.episode_ends import EndableMonitor
    from vlmrl.envs.row_writer import RowWriter
    from vlmrl.envs.tasks import TaskReward

    return RowWriter(EndableMonitor(TaskReward(env, NO_TASK)), {"reward"}, at_reset=False)


def test_texts_are_reported_with_how_often_they_were_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmrl.agents.appo.workers.FEED_S", 0.0)
    feed = get_context("spawn").Queue(2)
    reward = TextReward(published({}), 1.0, 1.0, 1.0)
    env = RewardAtCollection(
        EnvMaker(SAYS, reward, 0, 0, Path(), Path(), StepClock(1)).probe().env, reward, 5, feed=feed
    )
    env.reset()
    for _ in range(6):  # each step wants to report, and only two reports have room
        env.step(1)
    assert feed.get(timeout=30) == (5, {"a door opens": 1})
    assert feed.get(timeout=30) == (5, {"a wall": 1})
    env.step(1)
    assert feed.get(timeout=30) == (5, {"you find a key": 2, "a door opens": 1, "a wall": 1})  # nothing was lost
    feed.close()
    feed.cancel_join_thread()


def test_environments_start_each_in_its_own_way_and_the_same_way_every_time(tmp_path: Path) -> None:
    settings = EnvSettings("CartPole-v1", NO_TASK)

    def starts(index: int, first: int, n: int = 2) -> list[list[float]]:
        maker = EnvMaker(settings, ModelReward(GroundTruthReward()), 3, first, tmp_path, tmp_path, StepClock(4))
        env = maker("vlmrl", None, SimpleNamespace(env_id=index))
        try:
            return [env.reset(seed=index)[0].tolist() for _ in range(n)]
        finally:
            env.close()

    assert starts(0, 0) == starts(0, 0) != starts(1, 0)
    assert starts(0, 0)[1] == starts(0, 1, n=1)[0]  # a run that goes on at episode 1
    assert (tmp_path / "0.monitor.csv").is_file()


def test_what_breaks_an_environment_is_written_down(tmp_path: Path) -> None:
    import os

    settings = EnvSettings("tests.agents.appo.worlds:Breaks-v0", NO_TASK)
    maker = EnvMaker(settings, ModelReward(GroundTruthReward()), 0, 0, tmp_path, tmp_path / "errors", StepClock(1))
    env = maker("vlmrl", None, SimpleNamespace(env_id=0))
    env.reset()
    with pytest.raises(ValueError, match="collapsed"):
        for _ in range(301):
            if env.step(0)[2]:
                env.reset()
    note = (tmp_path / "errors" / f"{os.getpid()}.txt").read_text()
    assert note.startswith("Traceback") and "ValueError: the dungeon collapsed" in note


def test_actions_that_have_no_distribution_are_refused() -> None:
    class Several(CountingEnv):
        action_space = gym.spaces.MultiDiscrete([2, 3])  # type: ignore[assignment]

    if "Several-v0" not in gym.registry:
        gym.register("Several-v0", entry_point=Several, max_episode_steps=5)
    maker = EnvMaker(
        EnvSettings("Several-v0", NO_TASK), ModelReward(GroundTruthReward()), 0, 0, Path(), Path(), StepClock(1)
    )
    with pytest.raises(UserError, match="agent=ppo"):
        maker.probe()
