"""Rounds of questions, from the judge to the learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.agents.test_learning import AGENTS
from tests.toys import BrightnessEncoder, PointEnv
from vlmrl.agents import checkpoints
from vlmrl.agents.clip_pool import ClipPool
from vlmrl.agents.preference_rounds import PreferenceRounds
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.judges.base import Answer, Calls, Comparison, Question
from vlmrl.judges.desk import Desk
from vlmrl.judges.ground_truth import GroundTruthConfig, GroundTruthJudge
from vlmrl.judges.store import AnswerStore
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.vlm_preference import VlmPreferenceConfig
from vlmrl.serving.scorer import LocalScorer

SETTINGS = {"net_arch": (16,), "learning_rate": 1e-2, "max_epochs": 15, "ensemble": 2, "queries": 20, "interact": 500}


class CountingJudge(GroundTruthJudge):
    """A teacher without mistakes that counts what it is asked; some questions it does not answer."""

    def __init__(self, verdict: str = "") -> None:
        super().__init__(GroundTruthConfig())
        self.asked = 0
        self._verdict_of_all = verdict

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
        self.asked += len(questions)
        for i, answer in super().ask(questions, calls):
            yield i, Answer(self._verdict_of_all, judge=self.name, error="out") if self._verdict_of_all else answer  # type: ignore[arg-type]


def build(
    store: Path, judge: Any, first_at: int = 200, lengths: tuple[int, ...] = (20, 20, 20, 20), **settings: Any
) -> tuple[RewardVecEnv, PreferenceRounds]:
    config = VlmPreferenceConfig(**{**SETTINGS, **settings})
    model = config.build(Words(("bright",)), BrightnessEncoder())  # type: ignore[arg-type]
    pool = ClipPool(
        frozenset({config.field}), config.segment, config.clip_frames, config.clips_per_episode, config.episodes
    )
    rewards = LazyRewards(
        model,
        LocalScorer(model.encoder) if config.uses_encoder else None,  # type: ignore[arg-type]
        RewardScale(enabled=True, centre=True),
        listener=pool,
    )

    def factory(i: int) -> Any:
        def make() -> gym.Env:
            env = Monitor(gym.wrappers.TimeLimit(PointEnv(), lengths[i]))
            return SeededEpisodes(RowWriter(env, rewards.needs, at_reset=False), seed=0, index=i)

        return make

    env = RewardVecEnv(DummyVecEnv([factory(i) for i in range(len(lengths))]), rewards)
    rounds = PreferenceRounds(model, rewards, pool, Desk(judge, AnswerStore(store)), "be bright", 0, first_at)
    return env, rounds


def truth(model: BaseAlgorithm) -> float:
    return float(np.mean([episode["r"] for episode in list(model.ep_info_buffer or ())[-20:]]) / 20)


@pytest.mark.parametrize(("agent", "segment"), [("sac", 5), ("ppo", 1)])
def test_the_point_goes_where_the_judge_says(tmp_path: Path, agent: str, segment: int) -> None:
    """The teacher prefers the right; the learner knows its answers and no reward. As in `test_learning.py`."""
    env, rounds = build(tmp_path / "answers.sqlite", GroundTruthJudge(), segment=segment)
    config, steps = AGENTS[agent]
    model = config.build(env, seed=0, device="cpu")
    model.learn(steps, callback=rounds)
    assert truth(model) > 0.75
    summary = rounds.summary()
    assert summary["agrees_with_truth"] == 1.0 and summary["versions"][-1]["accuracy"] > 0.85
    assert summary["questions"] == sum(summary["answers"].values())
    # A few pairs look like others: the point's picture has 256 shades.
    assert 19 * (1 + steps // 500) < summary["questions"] <= 20 * (1 + steps // 500)
    newest = summary["versions"][-1]["relabelled"]
    assert newest == (summary["versions"][-1]["step"] if agent == "sac" else 0)


@pytest.mark.parametrize("verdict", ["abstain", "error"])
def test_a_judge_that_does_not_answer_ends_no_training_and_teaches_nothing(tmp_path: Path, verdict: str) -> None:
    env, rounds = build(tmp_path / "answers.sqlite", CountingJudge(verdict), lengths=(10, 10))
    model = AGENTS["sac"][0].build(env, seed=0, device="cpu")
    model.learn(260, callback=rounds)
    assert model.num_timesteps >= 260
    assert rounds.summary()["versions"] == [] and not model.replay_buffer.rewards.any()


def test_no_more_is_asked_than_was_allowed(tmp_path: Path) -> None:
    judge = CountingJudge()
    env, rounds = build(tmp_path / "answers.sqlite", judge, lengths=(10, 10), interact=100, queries=15, max_queries=40)
    AGENTS["ppo"][0].build(env, seed=0, device="cpu").learn(800, callback=rounds)
    assert judge.asked == rounds.summary()["questions"] == 40


class Stop(BaseCallback):
    """Ends a run that was meant to be longer, as a kill would: nothing is saved."""

    def __init__(self, at: int):
        super().__init__()
        self._at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self._at


def test_a_killed_run_asks_nothing_twice_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    lengths, settings = (7, 12), {"interact": 100, "queries": 10, "max_epochs": 4}

    def run(name: str, judge: CountingJudge, steps: int, stop: int | None, resume: bool) -> BaseAlgorithm:
        env, rounds = build(tmp_path / f"{name}.sqlite", judge, first_at=60, lengths=lengths, **settings)
        if resume:
            newest = checkpoints.newest(tmp_path / name)
            model = checkpoints.restore(AGENTS["sac"][0].algorithm(), newest, env, "cpu", [rounds])
        else:
            model = AGENTS["sac"][0].build(env, seed=1, device="cpu")
        saver = checkpoints.CheckpointCallback(tmp_path / name, every=150, patience=12, companions=[rounds])
        callbacks: list[BaseCallback] = [rounds, saver, *([Stop(stop)] if stop else [])]
        model.learn(steps - model.num_timesteps, callback=callbacks, reset_num_timesteps=not resume)
        return model

    judges = [CountingJudge() for _ in range(3)]
    whole = run("whole", judges[0], 420, None, False)
    run("parts", judges[1], 420, 330, False)
    np.random.seed(99)
    torch.manual_seed(99)
    second = run("parts", judges[2], 420, None, True)
    assert judges[1].asked + judges[2].asked == judges[0].asked > 0
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[key]), key
    np.testing.assert_array_equal(whole.replay_buffer.rewards, second.replay_buffer.rewards)  # type: ignore[attr-defined]


def test_questions_show_what_happened(tmp_path: Path) -> None:
    """The picture, the truth and what the model learns from are those of the same steps."""
    seen: list[Comparison] = []

    class Looking(CountingJudge):
        def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
            seen.extend(question for question in questions if isinstance(question, Comparison))
            return super().ask(questions, calls)

    env, rounds = build(tmp_path / "answers.sqlite", Looking(), segment=4, lengths=(20, 20))
    AGENTS["ppo"][0].build(env, seed=0, device="cpu").learn(200, callback=rounds)
    assert len(seen) == 20
    for question in seen:
        for clip, rewards in ((question.left, question.left_truth), (question.right, question.right_truth)):
            assert rewards is not None
            np.testing.assert_allclose(clip[:, 0, 0, 0] / 255, rewards, atol=1 / 255)
    steps = rounds._pairs.steps()["embeddings/front"]
    angle = np.arctan2(steps[..., 1], steps[..., 0]) * 2 / np.pi
    np.testing.assert_allclose(angle[:, 0], np.stack([question.left_truth for question in seen]), atol=1e-2)
