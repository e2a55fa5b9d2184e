"""Judges that need no endpoint: what they say, and when they keep silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.judges.clips import clip, comparison
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Comparison, Message, TextQuestion, question_key
from vlmrl.judges.desk import Desk
from vlmrl.judges.encoder import EncoderJudge, EncoderJudgeConfig
from vlmrl.judges.ground_truth import GroundTruthConfig, GroundTruthJudge
from vlmrl.judges.human import HumanConfig
from vlmrl.judges.hybrid import HybridConfig, HybridJudge
from vlmrl.judges.replay import ReplayConfig
from vlmrl.judges.store import AnswerStore


class RedEncoder:
    """Embeds a picture as (red, sqrt(1 - red^2)); every sentence means red."""

    name, fingerprint, image_size, dim = "red", "red", (8, 8), 2
    calls = 0

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        self.calls += 1
        red = frames[..., 0].mean((1, 2)).astype(np.float32) / 255
        return np.stack([red, np.sqrt(1 - red**2)], axis=1)

    def encode_texts(self, texts: Any) -> np.ndarray:
        return np.array([[1, 0]] * len(texts), dtype=np.float32)

    def check_env(self, env: str) -> None:
        pass


def with_truth(left: list[float], right: list[float]) -> Comparison:
    return Comparison("go", clip(0, len(left)), clip(1, len(right)), np.array(left), np.array(right))


def truth(store: AnswerStore, questions: list[Comparison], **settings: Any) -> list[Answer]:
    return Desk(GroundTruthJudge(GroundTruthConfig(**settings)), store).ask(questions)


def test_the_oracle_prefers_the_greater_sum(store: AnswerStore) -> None:
    questions = [with_truth([0, 2], [1, 0.5]), with_truth([0, 0], [0, 1]), with_truth([1, 0], [0, 1])]
    assert [answer.verdict for answer in truth(store, questions)] == ["left", "right", "tie"]
    myopic = truth(store, [with_truth([3, 0], [0, 2])], gamma=0.5)
    assert myopic[0].verdict == "right"  # 3 * 0.5 < 2


def test_skips_and_ties_are_two_things(store: AnswerStore) -> None:
    questions = [with_truth([0.1], [0.2]), with_truth([1.0], [1.05]), with_truth([0.2], [1.0])]
    answers = truth(store, questions, skip_below=0.5, equal_within=0.1)
    assert [answer.verdict for answer in answers] == ["abstain", "tie", "right"]


def test_a_noisy_teacher_errs_as_often_as_bradley_and_terry_say(store: AnswerStore) -> None:
    questions = [Comparison("go", clip(0), clip(1), np.array([1 + k * 1e-9]), np.zeros(1)) for k in range(2000)]
    answers = truth(store, questions, beta=1.0)
    left = np.mean([answer.verdict == "left" for answer in answers])
    assert left == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    assert answers[0].confidence == pytest.approx(1 / (1 + np.exp(-1)))
    mistaken = truth(store, questions, mistake=0.2)
    assert np.mean([answer.verdict == "right" for answer in mistaken]) == pytest.approx(0.2, abs=0.03)
    # The same question is answered the same, in any order and company.
    again = GroundTruthJudge(GroundTruthConfig(beta=1.0)).ask(questions[::-1], None)  # type: ignore[arg-type]
    assert [answer.verdict for _, answer in again][::-1] == [answer.verdict for answer in answers]


def test_the_truth_is_part_of_the_question_only_for_who_reads_it() -> None:
    known, unknown = comparison(0.1, 0.9), Comparison("a red picture", clip(0.1), clip(0.9))
    for judge, same in [(GroundTruthJudge(), False), (EncoderJudge(EncoderJudgeConfig(), RedEncoder()), True)]:
        assert (question_key(known, judge) == question_key(unknown, judge)) == same
    with pytest.raises(UserError, match="needs the ground-truth reward"):
        list(GroundTruthJudge().ask([unknown], None))  # type: ignore[arg-type]


def test_order_goal_and_pixels_are_part_of_the_question() -> None:
    judge = EncoderJudge(EncoderJudgeConfig(), RedEncoder())
    question = comparison(0.1, 0.9)
    others = [question.swapped(), comparison(0.1, 0.9, "another goal"), comparison(0.1, 0.9, frames=2)]
    keys = {question_key(entry, judge) for entry in [question, *others]}
    assert len(keys) == 4
    margin = EncoderJudge(EncoderJudgeConfig(margin=0.1), RedEncoder())
    assert question_key(question, margin) not in keys


def test_the_encoder_takes_what_looks_more_like_the_goal(store: AnswerStore) -> None:
    encoder = RedEncoder()
    desk = Desk(EncoderJudge(EncoderJudgeConfig(margin=0.05), encoder), store)
    answers = desk.ask([comparison(0.9, 0.1), comparison(0.1, 0.9), comparison(0.5, 0.52), comparison(0.9, 0.8)])
    assert [answer.verdict for answer in answers] == ["left", "right", "tie", "left"]
    confidences = [answer.confidence for answer in answers]
    assert confidences[2] is None and confidences[0] > confidences[3] > 0.5  # type: ignore[operator]
    asked = encoder.calls
    desk.ask([comparison(0.9, 0.1)])
    assert encoder.calls == asked


def test_the_last_frame_alone(store: AnswerStore) -> None:
    left = np.concatenate([clip(1.0, 3), clip(0.0)])
    question = Comparison("red", left, clip(0.5, 4))
    verdicts = [
        Desk(EncoderJudge(EncoderJudgeConfig(frames=frames), RedEncoder()), store).ask([question])[0].verdict
        for frames in ("mean", "last")
    ]
    assert verdicts == ["left", "right"]


def test_the_embedded_encoder_judges_poles(tmp_path: Path) -> None:
    import gymnasium as gym

    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    clips = []
    for angle in (0.0, 0.5):
        env.unwrapped.state = np.array([0.0, 0.0, angle, 0.0])  # type: ignore[attr-defined]
        clips.append(np.asarray(env.render())[None])
    env.close()
    desk = EncoderJudgeConfig().open_desk(None, "cpu", tmp_path / "answers.sqlite")
    question = Comparison("a pole balanced upright on a cart", clips[0], clips[1])
    assert [answer.verdict for answer in desk.ask([question, question.swapped()])] == ["left", "right"]
    desk.close()


def test_judges_say_what_they_cannot_answer(store: AnswerStore) -> None:
    with pytest.raises(UserError, match="judge=ground_truth answers questions of the kind comparison"):
        Desk(GroundTruthJudge(), store).ask([TextQuestion((Message("user", ("hello",)),))])


def test_recorded_answers_are_replayed_either_way_round(tmp_path: Path, store: AnswerStore) -> None:
    Desk(GroundTruthJudge(), store).ask([comparison(0.9, 0.1), comparison(0.5, 0.5)])
    replay = ReplayConfig(source=str(store.path), unknown="abstain")
    desk = replay.open_desk(None, "cpu", tmp_path / "other.sqlite")
    asked = [comparison(0.9, 0.1), comparison(0.1, 0.9), comparison(0.5, 0.5), comparison(0.3, 0.5)]
    answers = desk.ask(asked)
    assert [answer.verdict for answer in answers] == ["left", "right", "tie", "abstain"]
    assert answers[1].judge == "ground_truth"
    desk.close()
    strict = ReplayConfig(source=str(store.path)).open_desk(None, "cpu", tmp_path / "third.sqlite")
    with pytest.raises(UserError, match="knows no answer to this comparison"):
        strict.ask(asked)
    strict.close()


def test_mistakes_of_replay(tmp_path: Path, store: AnswerStore) -> None:
    with pytest.raises(UserError, match="needs recorded answers"):
        ReplayConfig()
    with pytest.raises(UserError, match="There is no answer store"):
        ReplayConfig(source=str(tmp_path / "none.sqlite")).build()
    with pytest.raises(UserError, match="holds no answers"):
        ReplayConfig(source=str(store.path)).build()
    Desk(GroundTruthJudge(), store).ask([comparison(0.9, 0.1)])
    with pytest.raises(UserError, match="has answers of: ground_truth"):
        ReplayConfig(source=str(store.path), judge="human").build()


def test_people_are_waited_for_without_waiting(store: AnswerStore) -> None:
    desk = HumanConfig(raters=2, gold_gap=0.5).open_desk(None, "cpu", store.path)
    sure, close = desk.submit([comparison(0.9, 0.1), comparison(0.5, 0.4)])
    assert desk.collect() == [] and desk.pending == 2
    waiting = store.questions(waiting=True)
    assert [(entry.key, entry.gold, entry.raters) for entry in waiting] == [(sure, "left", 2), (close, None, 2)]
    np.testing.assert_array_equal(store.clip(waiting[0].left or b""), clip(0.9))
    store.rate(sure, "ann", "left", 1.0)
    assert desk.collect() == []
    store.rate(sure, "bob", "left", 1.0)
    store.rate(close, "ann", "right", 1.0)
    store.rate(close, "bob", "left", 1.0)
    answers = dict(desk.collect())
    assert answers[sure].verdict == "left" and answers[sure].confidence == 1.0
    assert answers[close].verdict == "abstain" and desk.pending == 0
    assert store.take_back("bob") is None  # in use
    again = HumanConfig(raters=2).open_desk(None, "cpu", store.path)
    assert again.ask([comparison(0.9, 0.1)])[0].verdict == "left"
    assert again.ask([comparison(0.3, 0.1)])[0].error == "waits for people"
    desk.close()
    again.close()


def test_people_who_fail_control_questions_are_not_counted(store: AnswerStore) -> None:
    desk = HumanConfig(gold_gap=0.5, min_gold_accuracy=0.8).open_desk(None, "cpu", store.path)
    keys = desk.submit([comparison(0.9, k / 100) for k in range(6)])
    for key in keys:
        store.rate(key, "careless", "right", 1.0)
    assert desk.collect() == []
    for key in keys:
        store.rate(key, "careful", "left", 1.0)
    assert {answer.verdict for _, answer in desk.collect()} == {"left"}
    desk.close()


def test_only_what_the_automatic_judge_is_unsure_of_goes_to_people(store: AnswerStore) -> None:
    config = HybridConfig(automatic={"name": "encoder", "logit_scale": 20}, min_confidence=0.9)
    judge = HybridJudge(config, config.first.build(RedEncoder()))
    desk = Desk(judge, store)
    sure, unsure, tie = desk.submit([comparison(0.1, 0.9), comparison(0.5, 0.52), comparison(0.5, 0.5)])
    assert [(key, answer.verdict) for key, answer in desk.collect()] == [(sure, "right")]
    waiting = {entry.key: entry for entry in store.questions(waiting=True)}
    assert set(waiting) == {unsure, tie}
    hint = waiting[unsure].hint
    assert hint is not None and hint.verdict == "right" and hint.judge == "encoder"
    store.rate(unsure, "ann", "left", 1.0)
    assert [(key, answer.verdict) for key, answer in desk.collect()] == [(unsure, "left")]
    assert HybridConfig().uses_encoder and not HybridConfig().reads_truth
    for wrong, said in [({"name": "human"}, "Unknown judge.automatic.name"), ({"name": "encoder", "x": 1}, "key 'x'")]:
        with pytest.raises(UserError, match=said):
            HybridConfig(automatic=wrong)
