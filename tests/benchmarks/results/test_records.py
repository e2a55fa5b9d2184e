"""What is kept of a run, and noticed to be out of date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results.plan import Plan, read_plan
from benchmarks.results.records import Records, changed, own_command, read_run, row_of
from benchmarks.results.tables import render_page
from tests.benchmarks.results.made import TOY, by_hand, record
from vlmrl.errors import UserError
from vlmrl.workflows.run_folder import EMBEDDED_WEIGHTS, RunFolder, versions


def test_changed_settings_are_noticed(place: Path, plan: Plan) -> None:
    records, page = Records(place / "records"), place / "docs" / "results.md"
    records.save("bright", 0, record(plan, "bright", 0))
    loaded = records.load("bright", 0)
    assert loaded is not None and changed(loaded, plan.rows["bright"], 0) == []
    (place / "plan.yaml").write_text(
        TOY.replace("bright: {}", "bright: {overrides: [agent.gamma=0.5, reward.alpha=0.1]}")
    )
    other = read_plan(place / "plan.yaml")
    assert changed(loaded, other.rows["bright"], 0) == ["reward.alpha is 0.0, not 0.1", "agent.gamma is 0.98, not 0.5"]
    render_page(page, other, records, place / "videos")
    assert "- bright, seed 0, is out of date: reward.alpha is 0.0, not 0.1; agent.gamma is" in page.read_text()


def test_new_weights_of_the_embedded_encoder_concern_rewards_that_look(place: Path, plan: Plan) -> None:
    older = {**versions(), EMBEDDED_WEIGHTS["mini"]: "sha256 of something else"}
    looks, blind = (replace(record(plan, name, 0), versions=older) for name in ("bright", "short"))
    assert changed(looks, plan.rows["bright"], 0) == ["the embedded encoder has new weights"]
    assert changed(blind, plan.rows["short"], 0) == []


def test_the_truth_depends_on_no_words_or_cameras(place: Path, plan: Plan) -> None:
    kept = record(plan, "short", 0)
    words = "overrides: [total_timesteps=256, task.goal='a pole', task.camera=side, encoder.batch_size=3]"
    (place / "plan.yaml").write_text(TOY.replace("overrides: [total_timesteps=256]", words))
    assert changed(kept, read_plan(place / "plan.yaml").rows["short"], 0) == []


def test_settings_that_came_later_have_their_default(place: Path, plan: Plan) -> None:
    kept = record(plan, "bright", 0)
    old = {key: value for key, value in kept.settings.items() if key not in ("keep", "between", "use_as")}
    assert changed(replace(kept, settings=old), plan.rows["bright"], 0) == []


def test_a_damaged_record_is_said(place: Path) -> None:
    records = Records(place / "records")
    records.folder.mkdir()
    records.path("short", 0).write_text('{"steps": 3}')
    with pytest.raises(UserError, match="short-0.json' is no record of a run .* Delete it"):
        records.load("short", 0)


def test_a_run_that_is_no_row_is_refused(place: Path, plan: Plan) -> None:
    (place / "other.yaml").write_text(TOY.replace("total_timesteps=256", "total_timesteps=256, agent.gamma=0.5"))
    other = by_hand(place / "a", read_plan(place / "other.yaml"), "short")
    with pytest.raises(
        UserError, match="The nearest is 'short', but agent.gamma is 0.5, not 0.98. Train it with: python"
    ):
        row_of(other, plan, ("*",))
    with pytest.raises(UserError, match="The nearest is 'bright"):
        row_of(by_hand(place / "b", plan, "short"), plan, ("bright*",))
    with pytest.raises(UserError, match=r"'short', but seed is 5, and the row has \[0\]"):
        row_of(by_hand(place / "c", plan, "short", seed=5), plan, ("*",))
    with pytest.raises(UserError, match="is not a run folder"):
        row_of(RunFolder(place), plan, ("*",))


def test_runs_that_were_cut_or_stretched_are_refused(place: Path, plan: Plan) -> None:
    cut = by_hand(place / "cut", plan, "short", steps=128)
    with pytest.raises(UserError, match="is not finished. Go on with: python -m vlmrl.train resume="):
        read_run(cut, "", None, here=False)
    longer = by_hand(place / "longer", plan, "short", steps=1024)
    with pytest.raises(UserError, match="trained for 1,024 steps, more than the 256 of its settings"):
        read_run(longer, "", None, here=False)


def test_a_command_is_freed_of_where_it_wrote(place: Path, plan: Plan) -> None:
    own = own_command(by_hand(place / "a", plan, "short", seed=3))
    assert own.startswith("python -m vlmrl.train env=cartpole reward=ground_truth") and own.endswith(" seed=3")
    assert "threads" not in own and "run_dir" not in own
    with pytest.raises(UserError, match="makes another one today: agent.gamma is 0.98, not 0.3"):
        own_command(by_hand(place / "b", plan, "short", more="agent.gamma=0.3"))
