"""Rounds, heats, seeds, and a search that was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reward_models.programs.test_generate import fenced
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.judges.base import TextQuestion
from vlmrl.reward_models.confinement.process import measured_level
from vlmrl.reward_models.programs.prompt import text
from vlmrl.workflows.config.search import SearchConfig, resumed_search_settings, search_settings
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.run_folder import RunFolder, create
from vlmrl.workflows.search import run as search_run
from vlmrl.workflows.search.run import candidate_id, search
from vlmrl.workflows.search.selection import survivors


def program(quality: float, sign: str = "") -> str:
    return f"""QUALITY = {quality}

def compute_dense_reward(state, action):
    up = {sign}np.cos(state.angle)
    return up, {{"up": up}}
"""


class Sampled:
    """Answers by the seed of the question, the same one every time, as an answer store does."""

    name, corrects = "sampled", False

    def __init__(self, by_seed: dict[int, str]):
        self.by_seed = by_seed
        self.questions: list[TextQuestion] = []

    def write(self, question: TextQuestion) -> list[str]:
        self.questions.append(question)
        assert question.seed is not None
        return [self.by_seed[question.seed]]

    def close(self) -> None:
        pass


class Trainer:
    """Stands in for training: a program is as good as it says, and better with more steps."""

    def __init__(self, die_after: int | None = None):
        self.runs: list[tuple[str, int, int]] = []
        self.die_after = die_after

    def __call__(self, settings: TrainConfig) -> RunFolder:
        if len(self.runs) == self.die_after:
            create(Path(settings.run_dir), settings)  # what a killed run leaves
            raise KeyboardInterrupt
        source = settings.reward.config.program
        self.runs.append((candidate_id(source), settings.total_timesteps, settings.seed))
        folder = create(Path(settings.run_dir), settings)
        quality = float(source.splitlines()[0].split("= ")[1]) * settings.total_timesteps / 1000 + settings.seed / 1e6
        header = "reward/component_up,rollout/ep_vlm_rew_mean,rollout/predicate_fraction\n"
        folder.path.joinpath("progress.csv").write_text(header + "0.1,1,0.0\n0.2,2,0.1\n0.3,3,0.2\n")
        trained = {"fraction": {"mean": quality}, "truth": {"mean": 200 * quality}}
        folder.result.write_text(json.dumps({"policies": {"trained": trained}}))
        return folder


def settings_of(folder: Path, *overrides: str, resume: bool = False) -> SearchConfig:
    given = [
        "env=cartpole",
        "reward.completions=judge",
        "reward.temperature=1",
        f"reward.confinement={measured_level()}",
        "total_timesteps=1000",
        "rounds=2",
        "samples=4",
        "screen_episodes=16",
        *overrides,
    ]
    return search_settings(
        {**plain(compose("search", given)), "run_dir": str(folder), "resume": "x" if resume else None}
    )


ANSWERS = {
    0: fenced(program(0.2)),
    1: "no program here",  # leaves a gap: scores must not move to a neighbour
    2: fenced(program(0.9, sign="-")),  # the best, were it not for its sign
    3: fenced(program(0.5)),
    4: fenced(program(0.5)),  # one of the round before
    5: fenced(program(0.7)),
    6: fenced(program(0.6)),
    7: fenced(program(0.1)),
}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(search_run, "train", made)
    return made


def test_the_best_program_is_found_and_reported_with_other_seeds(tmp_path: Path, trainer: Trainer) -> None:
    writer = Sampled(ANSWERS)
    result = search(settings_of(tmp_path / "search"), writer)
    ids = {quality: candidate_id(program(quality) + "\n") for quality in (0.1, 0.2, 0.5, 0.6, 0.7)}
    turned = candidate_id(program(0.9, "-") + "\n")
    assert result["best"] == ids[0.7] and result["first"] == ids[0.5]
    assert "orders only" in result["candidates"][turned]["rejected"]
    assert all(name != turned for name, _, _ in trainer.runs)
    # Heats: every new program for a quarter, the better half to the end; 0.5 is known in round 2.
    chosen = [(name, steps) for name, steps, seed in trainer.runs if seed == 100]
    assert chosen == [
        *((ids[q], 250) for q in (0.2, 0.5)),
        (ids[0.5], 1000),
        *((ids[q], 250) for q in (0.7, 0.6, 0.1)),
        *((ids[q], 1000) for q in (0.7, 0.6)),
    ]
    reported = {(name, seed) for name, steps, seed in trainer.runs if seed != 100}
    assert reported == {(ids[q], seed) for q in (0.7, 0.5) for seed in (0, 1, 2)}
    assert result["reported"][ids[0.7]][0] == pytest.approx(0.7, abs=1e-4)
    assert (tmp_path / "search" / "program.py").read_text() == program(0.7) + "\n"
    # Round 2 is told of the best of round 1.
    later = text(writer.questions[-1].messages)
    assert program(0.5).strip() in later and "An agent was trained on that reward" in later


def test_a_search_that_was_killed_ends_as_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trainer()
    monkeypatch.setattr(search_run, "train", whole)
    expected = search(settings_of(tmp_path / "whole"), Sampled(ANSWERS))
    first, second = Trainer(die_after=4), Trainer()
    monkeypatch.setattr(search_run, "train", first)
    with pytest.raises(KeyboardInterrupt):
        search(settings_of(tmp_path / "cut"), Sampled(ANSWERS))
    monkeypatch.setattr(search_run, "train", second)
    assert search(settings_of(tmp_path / "cut", resume=True), Sampled(ANSWERS)) == expected
    assert first.runs + second.runs == whole.runs  # nothing is done twice


def test_the_better_half_goes_on_and_the_first_of_equals() -> None:
    assert survivors({"a": (0.1, 0.0), "b": (0.3, 0.0), "c": (0.3, 1.0)}) == ["c", "b"]
    assert survivors({"a": (0.1, 0.0), "b": (0.1, 0.0)}) == ["a"]
    assert survivors({"a": (0.0, 0.0)}) == ["a"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["report_seeds=[100]"], "must be different seeds"),
        (["selection_seeds=[]"], "at least one of each"),
        (["reward.completions=recorded"], "one recorded program"),
        (["reward.temperature=0"], "all samples are the same"),
        (["task=none", "goal=a pole"], "by the check of a task"),
        (["reward=clip", "~reward.completions"], "reward=text2reward"),
    ],
)
def test_what_makes_no_sense_is_refused_at_start(tmp_path: Path, overrides: list[str], said: str) -> None:
    if "reward=clip" in overrides:
        values = {**plain(compose("search", ["env=cartpole", "reward=clip"])), "run_dir": str(tmp_path)}
        with pytest.raises(UserError, match=said):
            search_settings(values)
        return
    with pytest.raises(UserError, match=said):
        settings_of(tmp_path, *overrides)


def test_nothing_worth_training_with_is_an_error(tmp_path: Path, trainer: Trainer) -> None:
    with pytest.raises(UserError, match="No program was worth training with"):
        search(settings_of(tmp_path / "search", "samples=1", "rounds=1"), Sampled({0: fenced(program(0.9, "-"))}))
    assert trainer.runs == []


def test_a_search_goes_on_with_its_own_settings_but_for_how_judges_are_asked(tmp_path: Path) -> None:
    stored = settings_of(tmp_path, "judge=openai", "judge.max_calls=2", "judge@rater=hybrid").plain()
    now = {"resume": "x", "run_dir": str(tmp_path), "threads": 3, "judge": {"name": "encoder", "max_calls": 20}}
    gone_on = resumed_search_settings(now, stored, ["resume", "threads", "judge.max_calls"])
    assert gone_on.train.judge is not None and gone_on.train.judge.config.max_calls == 20
    assert gone_on.train.judge.config.model == stored["judge"]["model"] and gone_on.train.threads == 3
    for key in ("rounds", "judge.model", "judge", "reward.temperature", "rater.raters"):
        with pytest.raises(UserError, match=f"so {key}= cannot be given"):
            resumed_search_settings({**now, "rater": {"raters": 2}}, stored, ["resume", key])
    with pytest.raises(UserError, match="base_url"):  # the rater of this search has no address
        resumed_search_settings({**now, "rater": {"base_url": "http://x"}}, stored, ["rater.base_url"])


def _plain_round_trip(settings: SearchConfig) -> dict[str, Any]:
    return json.loads(json.dumps(settings.plain()))


def test_settings_survive_their_folder(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert search_settings({**_plain_round_trip(settings)}) == settings
