"""Films of several skills: what the log says is what happens, and only who looks at the order knows the order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401  (registers environments)
from vlmrl.audit import _work
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.audit.sequences.metric import chance_f1, choices, expected_f1, macro_f1, standing
from vlmrl.workflows.audit.sequences.problems import (
    EXACT,
    FRAMES,
    PERMUTATION,
    REMIX,
    Film,
    permutations_of,
    problem_sets,
    remixes_of,
    spliced,
)
from vlmrl.workflows.audit.sequences.run import audit_sequences, verdicts
from vlmrl.workflows.audit.sequences.skills import HOLD, STAGES, PredicateLog, Skill, play
from vlmrl.workflows.config.audit import SEQUENCES, AuditConfig, audit_settings

STAGE = STAGES["mountaincar"]
NAMES = tuple(STAGE.skills)


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    env = gym.make(STAGE.id, render_mode="rgb_array", height=32, width=32, disable_env_checker=True)
    yield env
    env.close()


def settings(tmp_path: Path, *overrides: str) -> AuditConfig:
    values = plain(compose("audit", ["sequences=mountaincar", "device=cpu", *overrides]))
    return audit_settings({**values, "progress_bar": False, "run_dir": str(tmp_path / "run")})


def test_a_log_notes_who_arrives_and_not_who_passes() -> None:
    skills = {"high": Skill("", lambda env, rng: lambda env: 0, lambda state: state["x"] > 1)}
    skills["low"] = Skill("", lambda env, rng: lambda env: 0, lambda state: state["x"] < 0)
    log = PredicateLog(skills)
    xs = [2] * (HOLD - 1) + [0.5] + [2] * (HOLD + 5) + [0.5, 2] + [2] * HOLD + [-1] * HOLD
    for number, x in enumerate(xs):
        log.note(number, {"x": x})
    assert log.events == [("high", 2 * HOLD - 1), ("low", len(xs) - 1)]


def test_what_is_logged_is_what_was_planned_and_is_so_at_the_borders(env: Any) -> None:
    plan = ("valley", "flag", "left", "right", "valley")
    logged = play(STAGE, env, plan, np.random.default_rng(0))
    assert logged.plan == plan and len(logged.borders) == 5 and logged.borders[-1] == len(logged.states) - 1
    assert (logged.arrived < logged.borders).all() and (logged.borders[:-1] < logged.arrived[1:]).all()
    for name, border in zip(plan, logged.borders, strict=True):
        x, speed = logged.states[border]
        assert STAGE.skills[name].holds({"x": x, "speed": speed}), name
    again = play(STAGE, env, plan, np.random.default_rng(0))
    np.testing.assert_array_equal(again.states, logged.states)


def test_plans_that_never_come_out_are_an_error(env: Any) -> None:
    with pytest.raises(UserError, match="did not come to valley -> valley in"):
        play(STAGE, env, ("valley", "valley"), np.random.default_rng(0))


def test_captions_of_a_set_differ_as_its_kind_says() -> None:
    rng = np.random.default_rng(0)
    plan = ("left", "flag", "left", "valley")
    orders = permutations_of(plan, 4, rng)
    assert orders[0] == plan and len(set(orders)) == 4
    assert all(sorted(order) == sorted(plan) for order in orders)
    mixes = remixes_of(plan, NAMES, 4, rng)
    assert mixes[0] == plan and len({tuple(sorted(mix)) for mix in mixes}) == 4
    for order in (*orders, *mixes):
        assert all(a != b for a, b in zip(order, order[1:], strict=False))
    assert permutations_of(("left", "flag", "left"), 4, rng) == [("left", "flag", "left")]


def test_sets_are_made_alike_and_an_exact_permutation_holds_the_same_frames(env: Any) -> None:
    sets = problem_sets(STAGE, env, [1, 3], 1, (32, 32), 0)
    assert [(own.level, own.kind) for own in sets] == [(1, REMIX), (3, REMIX), (3, PERMUTATION), (3, EXACT)]
    acted, exact = sets[2:]
    assert acted.plans == exact.plans and len(acted.films) >= 2
    frames = [sorted(frame.tobytes() for frame in film.frames) for film in exact.films]
    assert all(own == frames[0] for own in frames) and len(frames[0]) == 3 * FRAMES
    assert not np.array_equal(exact.films[0].frames, exact.films[1].frames)
    np.testing.assert_array_equal(exact.films[0].frames, acted.films[0].frames)
    (alone,) = problem_sets(STAGE, env, [1], 1, (32, 32), 0)  # whatever else is asked for
    np.testing.assert_array_equal(alone.films[0].frames, sets[0].films[0].frames)


def test_parts_of_equal_skills_keep_their_order() -> None:
    film = Film(("a", "b", "a"), np.repeat(np.arange(3, dtype=np.uint8), 2)[:, None, None, None])
    assert spliced(film, ("b", "a", "a")).frames.ravel().tolist() == [1, 1, 0, 0, 2, 2]


def test_f1_by_hand() -> None:
    assert macro_f1(np.array([0, 1, 2]), 3) == 1
    # Film 1 is taken for caption 0: F1 is 2 * 1 / (2 + 1) of caption 0, nothing of 1, 1 of 2.
    assert macro_f1(np.array([0, 0, 2]), 3) == pytest.approx((2 / 3 + 0 + 1) / 3)
    # Of the four ways to guess two films: both right 1, both wrong 0, all of one caption 1/3.
    assert chance_f1(2) == pytest.approx((1 + 0 + 1 / 3 + 1 / 3) / 4)


def test_ties_count_as_they_fall_out_and_standardising_takes_what_all_captions_share() -> None:
    same = np.full((3, 3), 0.4) + 1e-8 * np.random.default_rng(0).normal(size=(3, 3))
    for transductive in (True, False):
        assert expected_f1(choices(same, transductive)) == pytest.approx(chance_f1(3))
    # Everything looks like caption 0; standardised, each film is nearest to its own.
    favoured = np.array([[0.9, 0.3], [0.8, 0.4]])
    assert expected_f1(choices(favoured, False)) == pytest.approx(1 / 3)
    assert expected_f1(choices(favoured, True)) == 1
    assert not standing([same, same], 0).above
    assert standing([favoured, favoured], 0).above


def test_a_mean_over_frames_is_at_chance_where_the_frames_are_the_same_and_an_alignment_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("levels=[2,3]", "sets=1")
    mean = audit_sequences(settings(tmp_path, "reward=clip", *asked))
    assert mean[EXACT].f1.value == pytest.approx(mean[EXACT].chance) and not mean[EXACT].above
    assert mean[EXACT].plain.value == pytest.approx(mean[EXACT].chance)
    assert mean[REMIX].f1.value > mean[REMIX].chance + 0.3  # it knows what happened
    aligned = audit_sequences(settings(tmp_path / "aligned", "reward=temporal_alignment", "reward.centre=true", *asked))
    assert aligned[EXACT].above and aligned[EXACT].f1.value > aligned[EXACT].chance + 0.3
    said = capsys.readouterr().out
    assert "clip does NOT surely know the order of what happened" in said
    assert "temporal_alignment KNOWS the order of what happened" in said
    content = json.loads(next((tmp_path / "aligned" / "run").glob("result.json")).read_text())
    assert content["kinds"][EXACT]["above_chance"] and len(content["sets"]) == 6
    assert content["levels"][0]["level"] == 2
    sheet = cv2.imread(str(tmp_path / "aligned" / "run" / "films.jpg"))
    assert sheet.shape[1] == 12 * 72


def test_a_caption_may_be_one_sentence(tmp_path: Path) -> None:
    """Every order is then another sentence to the encoder, so films of the same frames may be told apart or not."""
    found = audit_sequences(settings(tmp_path, "reward=clip", "levels=[2]", "sets=1", "caption=sentence"))
    (captions,) = {len(entry["captions"]) for entry in _result(tmp_path)["sets"] if entry["kind"] == EXACT}
    assert captions == 2 and found[EXACT].sets == 1


def test_a_reward_of_clips_weighs_a_caption_against_the_skills(tmp_path: Path) -> None:
    """A model of another world: it runs, and knows nothing here."""
    asked = ("encoder=crafter", "encoder.any_env=true", "levels=[2]", "sets=1")
    found = audit_sequences(settings(tmp_path, "reward=clip4mc", *asked))
    assert set(found) == {REMIX, PERMUTATION, EXACT} and not found[EXACT].above
    scores = np.array([entry["scores"] for entry in _result(tmp_path)["sets"] if entry["kind"] == REMIX])
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores < 1).all()


def _result(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "run" / "result.json").read_text())
    return content


def test_what_cannot_be_asked_is_said_at_start(tmp_path: Path) -> None:
    assert set(SEQUENCES) == set(STAGES)
    for overrides, said in (
        (["sequences=pendulum"], "Available: mountaincar"),
        (["frames=x"], "leave frames, dataset and clips out"),
        (["alphas=[0.5]"], "of films one reward is audited at a time"),
        (["levels=[2,2]"], "each once"),
        (["levels=[9]"], "1 to 8"),
        (["reward=ground_truth"], "looks at none"),
    ):
        with pytest.raises(UserError, match=said):
            settings(tmp_path, *overrides)
    with pytest.raises(UserError, match="reads no words"):
        _work(settings(tmp_path, "reward=perceptual"))


def test_verdicts_are_about_what_was_shown() -> None:
    entry = standing([np.eye(3)] * 4, 0)
    assert [line.partition(":")[0] for line in verdicts("x", {REMIX: entry})] == ["x [green]KNOWS[/] what happened"]
