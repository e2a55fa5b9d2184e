"""The exam of the embedded encoder: fixed before training, labelled by the predicates, and what it says is right."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from vlmrl.encoders.mini import WEIGHTS
from vlmrl.errors import UserError
from vlmrl.workflows.mini import exam
from vlmrl.workflows.mini.captions import FORMS, draw_captions
from vlmrl.workflows.mini.scenes import SCENES


@pytest.fixture(scope="module")
def archive():
    with np.load(exam.EXAM) as opened:
        return dict(opened)


def test_digest_is_that_of_manifest_and_card():
    digest = hashlib.sha256(exam.EXAM.read_bytes()).hexdigest()
    assert digest == exam.read_manifest()["sha256"]
    assert digest in (WEIGHTS / "README.md").read_text()
    assert exam.EXAM.stat().st_size < 700_000


@pytest.mark.parametrize("task", exam.TASKS)
def test_labels_are_the_predicates(archive, task):
    judge = exam.Judge()
    states, kinds = archive[f"{task}/states"], archive[f"{task}/kinds"]
    assert states.dtype == np.float16
    assert [judge.kind(task, state) for state in states.astype(np.float64)] == kinds.tolist()
    judge.close()
    assert np.bincount(kinds).tolist() == [exam.POSITIVES, exam.NEAR, exam.FAR]
    counts = exam.read_manifest()["states"][task]
    assert counts["on policy"] == archive[f"{task}/on_policy"].sum()


def test_phrasings_are_outside_the_grammar():
    phrasings = exam.read_manifest()["phrasings"]
    assert set(phrasings) == {*exam.SEEN_POSES, *exam.UNSEEN_POSES}
    drawn = {caption.text for seed in range(200) for caption in draw_captions(np.random.default_rng(seed))}
    phrases = {
        phrase
        for scene in SCENES.values()
        for table in (scene.phrases, scene.clauses)
        for row in table.values()
        for phrase in row
    }
    for pose, sentences in phrasings.items():
        assert len(sentences) >= 3 and len(set(sentences)) == len(sentences), pose
        for sentence in sentences:
            assert sentence not in drawn
            for form in FORMS:
                for subject in SCENES["humanoid"].subjects:
                    start, _, end = form.format(f"{subject} \0").partition("\0")
                    inside = sentence.startswith(start) and sentence.endswith(end)
                    assert not (inside and sentence[len(start) : len(sentence) - len(end)] in phrases), sentence


class Oracle:
    """Knows the states of the pictures that it is shown, and answers with a degree of the task's own truth."""

    name, image_size = "oracle", (8, 8)

    def __init__(self, right: bool):
        self._right = right

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        signal = frames[:, 0, 0, 0].astype(np.float32)
        return np.stack([signal if self._right else -signal, np.ones_like(signal)], axis=1)

    def encode_texts(self, texts) -> np.ndarray:
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))


@pytest.mark.parametrize(("right", "value"), [(True, 1.0), (False, 0.0)])
def test_exam_tells_right_from_wrong(archive, monkeypatch, right, value):
    order = iter([task for task in exam.TASKS for _ in range(2 if task.startswith("mountaincar") else 1)])

    def painted(env, states, size, look=""):
        task = next(order)
        assert task.startswith(env)
        frames = np.zeros((len(states), size, size, 3), dtype=np.uint8)
        frames[:, 0, 0, 0] = np.where(archive[f"{task}/kinds"] == 0, 200, 100)
        return frames

    monkeypatch.setattr(exam, "pictures", painted)
    figures = exam.take_exam(Oracle(right), progress=False)
    assert all(row["auroc"] == row["near"] == value for row in figures["tasks"].values())
    assert all(number == value for number in figures["summary"].values())
    assert "humanoid/arms_raised" in exam.table(figures)


def test_another_archive_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "exam.npz"
    np.savez(other, nothing=np.zeros(3))
    monkeypatch.setattr(exam, "EXAM", other)
    with pytest.raises(UserError, match="SHA-256"):
        exam.take_exam(Oracle(True), progress=False)


@pytest.mark.parametrize(("right", "sign"), [(True, 1), (False, -1)])
def test_states_of_agents_are_judged(monkeypatch, right, sign):
    def painted(env, states, size):
        """Give a pose's ground truth as the brightness of a picture that the oracle reads."""
        judge, frames = exam.Judge(), np.zeros((len(states), 8, 8, 3), dtype=np.uint8)
        degrees = [exam.dense_reward(judge.conditions("humanoid/kneeling", state)) for state in states]
        judge.close()
        frames[:, 0, 0, 0] = np.floor(255 * np.array(degrees))  # 255 where it holds, and there alone
        return frames

    monkeypatch.setattr(exam, "pictures", painted)
    figures = exam.on_visited(Oracle(right), "visited", n=400)
    assert tuple(figures) == exam.SEEN_POSES
    assert figures["kneeling"]["auroc"] == (1.0 if right else 0.0) and figures["kneeling"]["true"] >= 20
    assert sign * figures["kneeling"]["rank"] > 0.99  # brightness has fewer steps than the truth
    assert figures["lotus"]["auroc"] is None and figures["lotus"]["true"] < 20
