"""What the page of the tables says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results.plan import Plan, read_plan
from benchmarks.results.records import Records
from benchmarks.results.tables import render_page
from tests.benchmarks.results.made import PAGE, ROOT, line, record, summary
from vlmrl.errors import UserError


def test_the_page_of_the_suite_is_as_the_records_say(tmp_path: Path) -> None:
    """Rows that a change of the defaults or of the embedded encoder put out of date say so there."""
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "results.md"
    shutil.copy(ROOT / "docs" / "results.md", page)
    (tmp_path / "videos").symlink_to(ROOT / "videos")
    plan, records = read_plan(ROOT / "benchmarks" / "results.yaml"), Records(ROOT / "docs" / "results")
    stale = render_page(page, plan, records, tmp_path / "videos")
    assert not stale, "write the tables anew: python -m benchmarks.results --tables-only"


def test_what_was_not_run_says_so_with_its_command(place: Path, plan: Plan) -> None:
    page = place / "docs" / "results.md"
    assert render_page(page, plan, Records(place / "records"), place / "videos")
    row = line(page, "bright_too")
    assert row["predicate holds"] == "not run"
    assert row["command"] == "`python -m vlmrl.train env=cartpole reward=clip reward.alpha=0.5`"
    assert line(page, "long")["elsewhere"] == "64 %"
    text = page.read_text()
    assert "something old" not in text
    for kept in ("# Toy\n\nKept above.\n", "\nKept between.\n", "\nKept below.\n"):
        assert kept in text
    assert not render_page(page, plan, Records(place / "records"), place / "videos")  # nothing left to change
    assert page.read_text() == text


def test_one_seed_has_its_own_intervals(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    records.save("short", 0, replace(record(plan, "short", 0, 0.5, 0.25), command_seconds=420.0))
    render_page(page, plan, records, place / "videos")
    row = line(page, "a short one")
    assert row["predicate holds"] == "50 % [40, 60]"
    assert row["success"] == "25 % [5, 45]"
    assert row["truth"] == "50.0 [40.0, 60.0]" and row["model reward"] == "-3.0 [-4.0, -2.0]"
    assert row["predicate holds, controls"] == "untrained 10 %, lazy 20 %"
    assert row["steps"] == "8,192" and row["time"] == "5 min (7 min in all)"
    assert line(page, "long")["ceiling (ground-truth reward)"] == "holds 50 % [40, 60], success 25 % [5, 45]"


def test_without_a_predicate_the_truth_tells_of_the_controls(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    policies = {name: summary(None) for name in ("trained", "untrained")}
    records.save("short", 0, replace(record(plan, "short", 0), policies=policies))
    render_page(page, plan, records, place / "videos")
    row = line(page, "a short one")
    assert row["success"] == "no predicate"
    assert row["predicate holds, controls"] == "truth: untrained 50.0"


def test_several_seeds_have_an_interval_over_them_and_a_gain(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    records.save("long", 0, record(plan, "long", 0, 0.5, 0.95))
    render_page(page, plan, records, place / "videos")
    assert "long: not run yet with seed 1" in page.read_text()
    records.save("long", 1, record(plan, "long", 1, 0.6, 1.0))
    render_page(page, plan, records, place / "videos")
    row = line(page, "long")
    # Student's t with one degree of freedom: 12.706 times the standard error, 0.05; shares end at 0 and 1.
    assert row["predicate holds"] == "55 % [0, 100]"
    assert row["success"] == "98 % [66, 100] (95, 100)"
    text = page.read_text()
    # Of each seed: Zou and Donner's, of two figures that are each known to 0.1. Over both: 0.35 +- 12.706 * 0.05.
    assert (
        "- long: **0.35 [-0.29, 0.99]** over the best of untrained, lazy (Student's t over 2 seeds); "
        "seed 0: 0.30 [0.16, 0.44], seed 1: 0.40 [0.26, 0.54]" in text
    )
    assert "not run yet with" not in text
    records.save("long", 0, record(plan, "long", 0, 0.6, 1.0))
    render_page(page, plan, records, place / "videos")
    assert line(page, "long")["success"] == "100 % [91, 100] (100, 100)"  # Wilson, 40 of 40


def test_rows_are_compared_with_another_ones(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    records.save("short", 0, record(plan, "short", 0, 0.5))
    records.save("bright", 0, record(plan, "bright", 0, 0.3))
    render_page(page, plan, records, place / "videos")
    assert line(page, "bright")["gain over short"] == "-0.20 [-0.34, -0.06]"
    below = page.read_text().partition("table: words")[2]
    assert below.index("a short one") < below.index("| bright |")


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ((0.9, 0.9), "against lazy +0.70 [+0.70, +0.70]; level +0.30 [+0.30, +0.30]: a test."),
        ((0.6, 0.6), "against level +0.00 [+0.00, +0.00]: **no test**. What says nothing does as well, as far as"),
        ((0.9, 0.5), "against lazy +0.50 [-2.04, +3.04]; level +0.10 [-2.44, +2.64]: **no test**."),  # nobody can tell
    ],
)
def test_recordings_that_test_no_reward_are_flagged(place: Path, truth: tuple[float, ...], expected: str) -> None:
    rows = "{a: {seeds: [0, 1], controls: [lazy, level]}, lazy: {seeds: [0, 1]}, level: {seeds: [0, 1]}}"
    (place / "plan.yaml").write_text(f"toy: {{overrides: [env=cartpole, reward=ground_truth], rows: {rows}}}")
    page = place / "docs" / "results.md"
    page.write_text("<!-- table: toy -->\n<!-- end -->\n")
    plan, records = read_plan(place / "plan.yaml"), Records(place / "records")
    for seed, fraction in enumerate(truth):
        records.save("a", seed, record(plan, "a", seed, fraction))
    render_page(page, plan, records, place / "videos")
    assert "- a, against lazy; level: not run, so nobody knows." in page.read_text()
    for seed in range(2):
        records.save("lazy", seed, record(plan, "lazy", seed, 0.2))
        records.save("level", seed, record(plan, "level", seed, 0.6))
    render_page(page, plan, records, place / "videos")
    assert f"- a, {expected}" in page.read_text()


def test_rows_without_a_predicate_say_so(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    records.save("short", 0, record(plan, "short", 0, None))
    render_page(page, plan, records, place / "videos")
    assert line(page, "a short one")["success"] == "no predicate"


def test_clips_are_linked(place: Path, plan: Plan) -> None:
    page = place / "docs" / "results.md"
    (place / "videos").mkdir()
    (place / "videos" / "gallery_short.mp4").touch()
    render_page(page, plan, Records(place / "records"), place / "videos")
    assert line(page, "a short one")["run"] == "[a short one](../videos/gallery_short.mp4)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PAGE.replace("<!-- end -->", "", 1), "the marker of table 'toy' is not closed"),
        (
            PAGE.replace("table: words", "table: wards"),
            "table 'wards' is no table of the plan. The plan has toy, words",
        ),
        (PAGE.replace("table: words", "table: toy"), "table 'toy' is there twice"),
        ("# nothing\n", "has no place for toy, words"),
    ],
)
def test_wrong_markers_are_said_and_the_page_left_alone(place: Path, plan: Plan, text: str, message: str) -> None:
    page = place / "docs" / "results.md"
    page.write_text(text)
    with pytest.raises(UserError, match=message):
        render_page(page, plan, Records(place / "records"), place / "videos")
    assert page.read_text() == text
