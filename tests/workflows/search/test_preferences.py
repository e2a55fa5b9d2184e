"""Programs that are chosen by looking: the best and the worst of several clips, by a teacher, and by a person."""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.workflows.search.test_search import ANSWERS, Sampled, Trainer, fenced, program, settings_of
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer
from vlmrl.judges.ground_truth import GroundTruthConfig, GroundTruthJudge
from vlmrl.judges.store import AnswerStore
from vlmrl.reward_models.programs.prompt import text
from vlmrl.workflows.config.label import LabelConfig
from vlmrl.workflows.config.search import SearchConfig, search_settings
from vlmrl.workflows.label.desk import LabelDesk
from vlmrl.workflows.label.http import make_app
from vlmrl.workflows.label.run import store_of
from vlmrl.workflows.search import run as search_run
from vlmrl.workflows.search.clips import Clip, film
from vlmrl.workflows.search.preferences import best_and_worst
from vlmrl.workflows.search.run import candidate_id, search


@pytest.mark.parametrize("n", range(1, 8))
def test_the_best_and_the_worst_are_found_whatever_the_order(n: int) -> None:
    for values in itertools.islice(itertools.permutations(range(n)), 200):
        asked: list[tuple[int, int]] = []

        def better(pairs: Any, values: Any = values, asked: Any = asked) -> list[int]:
            asked += pairs
            return [max(pair, key=lambda i: values[i]) for pair in pairs]

        assert best_and_worst(n, better) == (values.index(n - 1), values.index(0))
        assert len(asked) <= max(0, -(-3 * n // 2) - 2) and len(set(asked)) == len(asked)


def test_of_equals_the_first_is_the_better() -> None:
    assert best_and_worst(5, lambda pairs: [first for first, _ in pairs]) == (0, 4)
    assert best_and_worst(2, lambda pairs: [first for first, _ in pairs]) == (0, 1)


class Camera:
    """Stands in for a film: the better the program, the brighter the picture and the greater the truth."""

    def __init__(self) -> None:
        self.films = 0

    def __call__(self, policy: Any, settings: Any, seed: int, size: int, frames: int) -> Clip:
        self.films += 1
        quality = policy  # what the trainer below has saved
        picture = np.full((3, size, size, 3), round(255 * quality), dtype=np.uint8)
        return Clip(picture, np.full(10, quality) if settings.task.predicate is not None else None)


class Loader:
    """Stands in for an algorithm: what it loads is the quality of the run's program."""

    @staticmethod
    def load(path: Path, device: str) -> float:
        import yaml

        config = yaml.safe_load(path.with_name("config.yaml").read_text())
        return float(config["reward"]["program"].splitlines()[0].split("= ")[1])


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(search_run, "train", made)
    monkeypatch.setattr(search_run, "film", Camera())
    from vlmrl.agents.ppo import PpoConfig

    monkeypatch.setattr(PpoConfig, "algorithm", lambda self: Loader)
    return made


def _settings(folder: Path, *overrides: str, resume: bool = False) -> SearchConfig:
    return settings_of(folder, "feedback=clips", "clip_size=16", *overrides, resume=resume)


def _id(quality: float) -> str:
    return candidate_id(program(quality) + "\n")


def _check(result: dict[str, Any], rater: str) -> None:
    # The program with its sign turned is as good as it says here: nobody but the rater judges.
    turned = candidate_id(program(0.9, "-") + "\n")
    assert result["best"] == turned and result["first"] == _id(0.2)
    assert result["chosen"]["by"] == "clips" and result["chosen"]["rater"] == rater
    assert result["chosen"]["rounds"] == [
        {"best": turned, "worst": _id(0.2)},
        {"best": turned, "worst": _id(0.1)},
    ]
    assert result["chosen"]["comparisons"] == 3 + 4  # of three, then of four, the best so far among them
    assert result["candidates"][_id(0.1)]["liked"] == "worst"


def test_a_teacher_that_knows_the_truth_finds_the_best_and_the_worst(tmp_path: Path, trainer: Trainer) -> None:
    writer = Sampled(ANSWERS)
    result = search(_settings(tmp_path / "search", "judge@rater=ground_truth"), writer)
    _check(result, "ground_truth")
    # Every program is trained to the end, once; then the best and the first with the seeds of the report.
    chosen = [(name, steps) for name, steps, seed in trainer.runs if seed == 100]
    assert len(chosen) == len(set(chosen)) == 6 and {steps for _, steps in chosen} == {1000}
    assert {seed for name, _, seed in trainer.runs if name == result["best"]} == {100, 0, 1, 2}
    # The next question holds the good one as the answer, the bad one beside it, and nothing of the task's check.
    told = text(writer.questions[-1].messages).split("[assistant]")[-1]
    assert program(0.9, "-").strip() in told.split("[user]")[0]
    assert program(0.2).strip() in told.split("[user]")[1] and "liked least" in told
    assert "task done" not in told and "up: [0.1, 0.2, 0.3]" in told
    # What changed from the best of one round to that of the next is told too.
    after = (trainer_path(tmp_path, result["best"]) / "reflection.txt").read_text()
    assert "liked least" in after and program(0.1).strip() in after


def trainer_path(folder: Path, name: str) -> Path:
    return folder / "search" / "runs" / name / "1000-100"


def test_changes_between_the_bests_of_two_rounds_are_told(tmp_path: Path, trainer: Trainer) -> None:
    writer = Sampled({0: fenced(program(0.2)), 1: fenced(program(0.4)), 2: fenced(program(0.1))})
    settings = _settings(tmp_path / "search", "judge@rater=ground_truth", "samples=1", "rounds=3")
    search(settings, writer)
    last = text(writer.questions[-1].messages)
    assert "-QUALITY = 0.2\n+QUALITY = 0.4" in last and "```diff" in last


def test_a_person_at_the_page_is_waited_for(
    tmp_path: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmrl.workflows.search import preferences

    monkeypatch.setattr(preferences, "POLL", 0.05)
    folder = tmp_path / "search"
    results: list[Any] = []
    settings = _settings(folder)
    assert settings.rater is not None and settings.rater.name == "human"  # nobody else was named

    def work() -> None:
        results.append(search(settings, Sampled(ANSWERS)))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not (folder / "config.yaml").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    # What the person opens is the page of the search's folder, as the search prints it.
    store = AnswerStore(store_of(_label(folder)))
    page = TestClient(make_app(LabelDesk(store), fps=10))
    answered = 0
    while thread.is_alive() and time.monotonic() < deadline:
        question = page.get("/api/next", params={"rater": "ann"}).json()["question"]
        if question is None:
            time.sleep(0.02)
            continue
        assert question["goal"] == settings.train.make_task().goal
        given = {"key": question["key"], "rater": "ann", "verdict": _brighter(page, question), "seconds": 1.0}
        answered += page.post("/api/rate", json=given).status_code == 200
    thread.join(10)
    store.close()
    assert results, capsys.readouterr()
    _check(results[0], "human")
    assert answered == 7
    said = " ".join(capsys.readouterr().out.split())
    assert "comparisons wait for an answer" in said and f"vlmrl.label run={folder}" in said


def _label(folder: Path) -> LabelConfig:
    from vlmrl.workflows.config.label import label_settings

    return label_settings({**plain(compose("label", [f"run={folder}"]))})


def _brighter(page: TestClient, question: dict[str, Any]) -> str:
    means = {}
    for side in ("left", "right"):
        picture = Image.open(io.BytesIO(page.get(f"/clip/{question[side]}.png").content))
        means[side] = np.asarray(picture.convert("RGB")).mean()
    return max(means, key=means.__getitem__)


def test_without_a_task_the_films_are_all_there_is(tmp_path: Path, trainer: Trainer) -> None:
    with pytest.raises(UserError, match="judge@rater=ground_truth reads the truth of a task"):
        _settings(tmp_path / "a", "task=none", "goal=a pole that lies", "judge@rater=ground_truth")
    with pytest.raises(UserError, match="feedback=clips judge@rater=human"):
        _settings(tmp_path / "a", "task=none", "goal=a pole that lies", "feedback=success")
    settings = _settings(tmp_path / "search", "task=none", "goal=a pole that lies", "samples=1", "rounds=1")
    result = search(settings, Sampled({0: fenced(program(0.2))}))  # one clip needs no comparison
    assert result["reported"] == {} and result["best"] == _id(0.2)
    assert json.loads(json.dumps(settings.plain())) == json.loads(json.dumps(search_settings(settings.plain()).plain()))


@pytest.mark.parametrize("missing", ["kind", "writer"])
def test_a_search_that_cannot_start_leaves_nothing(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "kind":
        monkeypatch.setattr(GroundTruthJudge, "kinds", frozenset({"text"}))
        overrides, said = ["reward.completions=recorded", "samples=1", "rounds=1"], "does not compare clips"
    else:
        overrides, said = ["judge=openai", "judge.base_url=http://127.0.0.1:9/v1"], "endpoint"
    with pytest.raises(UserError, match=said):
        search(_settings(tmp_path / "search", "judge@rater=ground_truth", *overrides))
    assert not (tmp_path / "search").exists()


class Unwell(GroundTruthJudge):
    """Answers two comparisons, then none until it is well."""

    well = False

    def __init__(self, config: GroundTruthConfig):
        super().__init__(config)
        self.asked = 0

    def ask(self, questions: Any, calls: Any) -> Iterator[tuple[int, Any]]:
        for i, answer in super().ask(questions, calls):
            self.asked += 1
            yield i, answer if self.well or self.asked <= 2 else Answer("error", error="the server is on fire")


def test_a_rater_that_fails_late_loses_nothing(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmrl.workflows.search import preferences

    monkeypatch.setattr(preferences, "POLL", 0.01)
    monkeypatch.setattr(GroundTruthConfig, "build", lambda self, encoder=None, device="cpu": Unwell(self))
    folder, given = tmp_path / "search", ["judge@rater=ground_truth"]
    # More failures than a question may have: each search that goes on may ask as often again.
    for resume in (False, True):
        with pytest.raises(UserError, match="the server is on fire") as ended:
            search(_settings(folder, *given, resume=resume), Sampled(ANSWERS))
        said = str(ended.value)
        assert "Nothing is lost" in said and f"-m vlmrl.search resume={folder}" in said and "given up" not in said
    before = list(trainer.runs)
    store = AnswerStore(folder / "answers.sqlite")
    kept = sum(entry.answer is not None for entry in store.questions("comparison"))
    store.close()
    assert before and kept >= 2
    monkeypatch.setattr(Unwell, "well", True)
    _check(search(_settings(folder, *given, resume=True), Sampled(ANSWERS)), "ground_truth")
    assert len(trainer.runs) == len(set(trainer.runs)) and trainer.runs[: len(before)] == before


def test_a_film_shows_an_episode_and_its_truth(tmp_path: Path) -> None:
    from vlmrl.envs.make import EnvSettings
    from vlmrl.workflows.config.train import train_settings

    config = train_settings(plain(compose("train", ["env=cartpole", "reward=ground_truth"])))
    settings = EnvSettings(config.env.id, config.make_task(), max_episode_steps=30)

    class Still:
        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
            assert observation.shape == (1, 4) and deterministic
            return np.zeros(1, dtype=np.int64), None

    clip = film(Still(), settings, seed=3, size=40, frames=7)
    assert clip.frames.shape == (7, 40, 40, 3) and clip.frames.dtype == np.uint8
    assert clip.truth is not None and 5 < len(clip.truth) <= 30 and np.ptp(clip.truth) > 0
    assert (clip.frames[0] != clip.frames[-1]).any()
    again = film(Still(), settings, seed=3, size=40, frames=7)
    np.testing.assert_array_equal(clip.frames, again.frames)
    clip.save(tmp_path / "clip.npz")
    read = Clip.load(tmp_path / "clip.npz")
    np.testing.assert_array_equal(read.frames, clip.frames)
    np.testing.assert_array_equal(read.truth, clip.truth)  # type: ignore[arg-type]
    assert film(Still(), settings, seed=3, size=40, frames=500).frames.shape[0] == len(clip.truth) + 1
