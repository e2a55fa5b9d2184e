"""The tables of docs/results.md: what is run, kept, shown, and noticed to be out of date."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import PPO

from benchmarks.results.__main__ import Settings, read_settings, work
from benchmarks.results.gallery import best_and_worst
from benchmarks.results.plan import Plan, differences, essence, read_plan, settings_of
from benchmarks.results.records import Record, Records, changed, older_weights, own_command, read_run, row_of
from benchmarks.results.runner import Work
from benchmarks.results.tables import render_page
from vlmrl import evaluate as command
from vlmrl.agents import reference_policies
from vlmrl.errors import UserError
from vlmrl.workflows.run_folder import EMBEDDED_WEIGHTS, RunFolder, create, versions

ROOT = Path(__file__).parents[2]
TOY = """
toy:
  overrides: [env=cartpole, reward=ground_truth, n_envs=2, agent.n_steps=64, agent.batch_size=64, "agent.net_arch=[16]",
    total_timesteps=30720, checkpoint_every=2048, eval_episodes=2, device=cpu]
  published: elsewhere
  rows:
    long: {seeds: [0, 1], gain: true, ceiling: short, published: 64 %}
    short: {overrides: [total_timesteps=256], label: a short one}
words:
  overrides: [env=cartpole, reward=clip]
  against: short
  rows:
    bright: {}
    bright_too: {overrides: [reward.alpha=0.5]}
"""
PAGE = """# Toy

Kept above.

<!-- table: toy -->
<!-- end -->

Kept between.

<!-- table: words -->
something old
<!-- end -->
Kept below.
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a plan and a page."""
    (tmp_path / "plan.yaml").write_text(TOY)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(PAGE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan(place: Path) -> Plan:
    return read_plan(place / "plan.yaml")


def summary(fraction: float | None, success: float = 0.0, half: float = 0.1) -> dict[str, Any]:
    made: dict[str, Any] = {"episodes": 20, "truth": {"mean": 50.0, "interval": [40.0, 60.0]}}
    made["model_reward"] = {"mean": -3.0, "interval": [-4.0, -2.0]}
    if fraction is not None:
        made["fraction"] = {"mean": fraction, "interval": [fraction - half, fraction + half]}
        made["success"] = {"mean": success, "interval": [max(0.0, success - 0.2), min(1.0, success + 0.2)]}
    return made


def record(plan: Plan, row: str, seed: int, fraction: float | None = 0.5, success: float = 0.0) -> Record:
    policies = {"trained": summary(fraction, success), "untrained": summary(0.1), "lazy": summary(0.2)}
    policies["blind"] = summary(None)
    return Record(
        command=plan.rows[row].command([seed]),
        settings=essence(plan.rows[row].settings(seed)),
        steps=8192,
        steps_per_second=100.0,
        training_seconds=300.0,
        command_seconds=None,
        policies=policies,
        versions=versions(),
        machine={},
        date="2000-01-01",
    )


def line(page: Path, label: str) -> dict[str, str]:
    """Return the cells of a row of the page by their headings."""
    headings: list[str] = []
    for text in page.read_text().splitlines():
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        if text.startswith("| run "):
            headings = cells
        elif text.startswith(f"| {label} |") or text.startswith(f"| [{label}]"):
            return dict(zip(headings, cells, strict=True))
    raise AssertionError(f"no row {label}")


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_suite_is_what_train_accepts_and_has_its_place() -> None:
    plan = read_plan(ROOT / "benchmarks" / "results.yaml")
    for row in plan.rows.values():
        settings = row.settings(row.seeds[-1])
        assert settings.seed == row.seeds[-1]
        assert settings.total_timesteps <= (1_000_000 if row.module == "nle" else 300_000)  # a fast game
        if row.ceiling is not None:
            ceiling = plan.rows[row.ceiling].settings(0)
            assert ceiling.reward.name == "ground_truth"
            assert (ceiling.env.name, ceiling.task.name) == (settings.env.name, settings.task.name)
    page = (ROOT / "docs" / "results.md").read_text()
    assert all(f"<!-- table: {name} -->" in page for name in plan.tables)


def test_the_page_of_the_suite_is_as_the_records_say(tmp_path: Path) -> None:
    """Rows that a change of the defaults or of the embedded encoder put out of date say so there."""
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "results.md"
    shutil.copy(ROOT / "docs" / "results.md", page)
    (tmp_path / "videos").symlink_to(ROOT / "videos")
    plan, records = read_plan(ROOT / "benchmarks" / "results.yaml"), Records(ROOT / "docs" / "results")
    stale = render_page(page, plan, records, tmp_path / "videos")
    assert not stale, "write the tables anew: python -m benchmarks.results --tables-only"


def test_commands_are_those_of_train(plan: Plan) -> None:
    assert plan.rows["bright"].command() == "python -m vlmrl.train env=cartpole reward=clip"
    assert plan.rows["bright"].command([3]).endswith("reward=clip seed=3")
    assert " -m env=cartpole" in plan.rows["long"].command() and plan.rows["long"].command().endswith(" seed=0,1")


def test_rows_are_chosen_by_name_and_seed(plan: Plan) -> None:
    def names(*patterns: str, seeds: list[int] | None = None) -> list[str]:
        return [f"{row.name}-{seed}" for row, seed in plan.choose(patterns, seeds)]

    assert names("*") == ["long-0", "long-1", "short-0", "bright-0", "bright_too-0"]
    assert names("bright*", "long", seeds=[0]) == ["long-0", "bright-0", "bright_too-0"]
    assert names("*", seeds=[1]) == ["long-1"]
    with pytest.raises(UserError, match="Unknown row 'brigth'. Did you mean 'bright'"):
        names("brigth")
    with pytest.raises(UserError, match=r"seeds=\[1\]: the chosen rows have the seeds \[0\]"):
        names("short", seeds=[1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ceiling: short", "ceiling: shirt", "Unknown row 'shirt'. Did you mean 'short'"),
        ("against: short", "against: shirt", "Unknown row 'shirt'"),
        ("    bright: {}", "    short: {}", "the row 'short' is in the tables 'toy' and 'words'"),
        ("    bright: {}", "    a/b: {}", "the row 'a/b' names a file"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "needs seeds, each once"),
        ("seeds: [0, 1]", "seeds: [-1]", r"seeds\[0\] is -1; it must be a whole number, at least 0"),
        ("gain: true", "gian: true", "Unknown tables.toy.rows.long key 'gian'. Did you mean 'gain'"),
        ("gain: true", "gain: [", "is no yaml"),
    ],
)
def test_what_is_wrong_in_the_plan_is_said(place: Path, old: str, new: str, message: str) -> None:
    (place / "plan.yaml").write_text(TOY.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_plan(place / "plan.yaml")


def test_arguments_are_read_as_those_of_the_commands() -> None:
    settings = read_settings(["rows=[kneeling*,*_truth]", "seeds=0", "budget_minutes=1.5", "import=a/b"])
    assert settings == Settings(("kneeling*", "*_truth"), (0,), budget_minutes=1.5, import_="a/b")
    for arguments, message in (
        (["row=a"], "Unknown key 'row'. Did you mean 'rows'"),
        (["jobs=0"], "jobs is 0; it must be a whole number, at least 1"),
        (["import=a", "publish=b"], "three different things"),
        (["rows=[a"], "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            read_settings(arguments)


# --- the page --------------------------------------------------------------------------------------------------------


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


# --- what has changed ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("overrides", "looks"),
    [
        (["env=minigrid", "reward=oni"], False),
        (["env=minigrid", "reward=oni", "reward.variant=embedding"], True),
        (["reward=vlm_preference", "reward.input=observation", "judge=ground_truth"], False),
        (["reward=vlm_preference", "reward.input=observation", "judge=encoder"], True),
        (["reward=vlm_preference", "judge=ground_truth"], True),
    ],
)
def test_settings_decide_if_the_encoder_matters(overrides: list[str], looks: bool) -> None:
    settings = settings_of(["env=cartpole", *overrides])
    assert ("encoder" in essence(settings)) == looks
    assert bool(older_weights({"mini weights": "sha256 of something else"}, settings)) == looks


def test_the_truth_depends_on_no_words_or_cameras(place: Path, plan: Plan) -> None:
    kept = record(plan, "short", 0)
    words = "overrides: [total_timesteps=256, task.goal='a pole', task.camera=side, encoder.batch_size=3]"
    (place / "plan.yaml").write_text(TOY.replace("overrides: [total_timesteps=256]", words))
    assert changed(kept, read_plan(place / "plan.yaml").rows["short"], 0) == []


def test_settings_that_came_later_have_their_default(place: Path, plan: Plan) -> None:
    kept = record(plan, "bright", 0)
    old = {key: value for key, value in kept.settings.items() if key not in ("keep", "between", "use_as")}
    assert changed(replace(kept, settings=old), plan.rows["bright"], 0) == []


def test_differences_name_keys() -> None:
    assert differences({"a": {"b": 1, "c": None}, "d": 2}, {"a": {"b": 1, "c": 3}}) == [
        "a.c is null, not 3",
        "d is 2, not null",
    ]
    sac, ppo = {"agent": {"name": "sac", "tau": 1}}, {"agent": {"name": "ppo", "clip_range": 2}}
    assert differences(sac, ppo) == ["agent.name is sac, not ppo"]


def test_a_damaged_record_is_said(place: Path) -> None:
    records = Records(place / "records")
    records.folder.mkdir()
    records.path("short", 0).write_text('{"steps": 3}')
    with pytest.raises(UserError, match="short-0.json' is no record of a run .* Delete it"):
        records.load("short", 0)


# --- runs made by hand -----------------------------------------------------------------------------------------------


def by_hand(folder: Path, plan: Plan, row: str, seed: int = 0, steps: int = 256, more: str = "") -> RunFolder:
    """Make what `vlmrl.train` leaves."""
    made = create(folder, plan.rows[row].settings(seed))
    made.path.joinpath("command.txt").write_text(
        f"python -m vlmrl.train threads=1 run_dir=/a/b {' '.join(plan.rows[row].overrides)} -m seed=0,{seed} {more}\n"
    )
    (made.path / "progress.csv").write_text("time/time_elapsed,time/total_timesteps\n3,100\n5,200\n")
    (made.path / "progress_200.csv").write_text("time/time_elapsed,time/total_timesteps\n2,256\n")
    policies = {"trained": summary(0.5), "untrained": summary(0.1)}
    made.result.write_text(json.dumps({"steps": steps, "steps_per_second": 64.0, "policies": policies}))
    return made


def test_a_run_made_by_hand_is_taken_over(place: Path, plan: Plan) -> None:
    run = by_hand(place / "elsewhere" / "run", plan, "short")
    work(Settings(plan="plan.yaml", import_=str(run.path)))
    kept = Records(Path("docs/results")).load("short", 0)
    assert kept is not None and (kept.steps, kept.training_seconds, kept.command_seconds) == (256, 7.0, None)
    assert str(place) not in Records(Path("docs/results")).path("short", 0).read_text()
    assert "platform" not in kept.versions and kept.versions["torch"] == versions()["torch"]
    assert line(place / "docs" / "results.md", "a short one")["predicate holds"] == "50 % [40, 60]"
    found = Work(Path("runs/results"), plan.rows["short"], 0).run()
    assert found is not None and found.path.resolve() == run.path.resolve()


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


def test_a_finished_run_becomes_the_policy_that_evaluate_finds(
    place: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = by_hand(place / "run", plan, "short", seed=3)
    trained = PPO("MlpPolicy", gym.make("vlmrl/CartPole-v0"), device="cpu", policy_kwargs={"net_arch": [8]}, seed=1)
    trained.save(run.model)
    work(Settings(publish=str(run.path), reference="reference"))
    card = json.loads((place / "reference" / "cartpole_balance.json").read_text())
    assert card["policies"]["trained"] == summary(0.5) and card["command"].endswith(" seed=3")
    assert str(place) not in json.dumps(card)

    monkeypatch.setattr(reference_policies, "FOLDER", place / "reference")
    settings = ["env=cartpole", "reward=ground_truth", "episodes=4", "n_envs=2", "progress_bar=false", "device=cpu"]
    by_name = command.evaluate({}, *settings, "policy=reference", f"run_dir={place / 'a'}")
    directly = command.evaluate({"it": trained}, *settings, f"run_dir={place / 'b'}")
    assert by_name["reference"].truth == directly["it"].truth
    with pytest.raises(UserError, match="no reference policy for env=mountaincar task=climb. There are: env=cartpole"):
        command.evaluate({}, "env=mountaincar", "reward=ground_truth", "policy=reference", f"run_dir={place / 'c'}")


def test_the_gallery_has_the_best_seed_of_the_best_row_and_the_worst_of_the_worst(place: Path, plan: Plan) -> None:
    records = Records(place / "records")
    with pytest.raises(UserError, match="nothing to film"):
        best_and_worst(plan.tables["toy"], records)
    for name, seed, fraction in (("long", 0, 0.2), ("long", 1, 0.4), ("short", 0, 0.35)):
        records.save(name, seed, record(plan, name, seed, fraction))
    chosen = [(row.name, seed) for row, seed in best_and_worst(plan.tables["toy"], records)]
    assert chosen == [("short", 0), ("long", 0)]


# --- the whole, in processes of its own ------------------------------------------------------------------------------


def start(place: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.results", "plan=plan.yaml", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Who starts the tests in the background of a script has Ctrl-C ignored, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(place: Path, *arguments: str) -> tuple[int, str]:
    process = start(place, *arguments)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def test_a_row_that_another_process_runs_is_left_out(place: Path) -> None:
    folder = place / "runs" / "results" / "long-1"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and "long-1: another process is at it; left out" in output
    assert not list(folder.glob("*/2*"))


def test_a_stopped_row_goes_on_and_a_finished_one_is_passed_over(place: Path) -> None:
    runner = start(place, "rows=[long]", "seeds=[1]")
    try:
        deadline = time.monotonic() + 180
        while not list(place.glob("runs/results/long-1/*/2*/checkpoints/[0-9]*")):
            assert time.monotonic() < deadline and runner.poll() is None
            time.sleep(0.02)
        runner.send_signal(signal.SIGINT)
        output, _ = runner.communicate(timeout=60)
    finally:
        runner.kill()
    assert runner.returncode == 1 and "long-1: stopped; the same command goes on with it" in output
    (run,) = place.glob("runs/results/long-1/*/2*")
    assert not (run / "result.json").exists()

    status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and "long-1 goes on: python -m vlmrl.train env=cartpole" in output
    assert list(place.glob("runs/results/long-1/*/2*")) == [run]
    kept = Records(place / "docs" / "results").load("long", 1)
    assert kept is not None and kept.steps == 30720 and {"trained", "untrained", "random"} <= set(kept.policies)
    assert (
        kept.command_seconds is not None and kept.command_seconds > kept.training_seconds - 2
    )  # whole seconds, two logs
    assert str(place) not in (place / "docs" / "results" / "long-1.json").read_text()

    before = {path: path.stat().st_mtime_ns for path in (place / "docs").rglob("*")}
    status, output = finish(place, "rows=[long]", "seeds=[1]")
    assert status == 0 and output.strip() == "kept: long-1"
    assert {path: path.stat().st_mtime_ns for path in (place / "docs").rglob("*")} == before


@pytest.mark.slow
def test_a_row_that_fails_shows_why_and_stops_no_other(place: Path) -> None:
    # A replay buffer that no machine holds is found by the run itself.
    rows = (
        "    broken: {overrides: [agent=dqn, agent.buffer_size=1000000000000000]}\n"
        "    short: {overrides: [total_timesteps=256], label: a short one}\n"
    )
    toy = TOY.partition("words:")[0].replace('agent.n_steps=64, agent.batch_size=64, "agent.net_arch=[16]",', "")
    (place / "plan.yaml").write_text(toy.partition("    long:")[0] + rows)
    (place / "docs" / "results.md").write_text(PAGE.partition("Kept between")[0])
    status, output = finish(place, "jobs=2")
    assert status == 1
    assert "broken-0 failed with status 2" in output and "A replay buffer of agent.buffer_size=" in output
    assert "failed: broken-0" in output and "finished: short-0" in output

    status, output = finish(place, "gallery=[toy]")
    assert status == 0 and (place / "videos" / "gallery_short.mp4").stat().st_size > 1000
    assert line(place / "docs" / "results.md", "a short one")["run"] == "[a short one](../videos/gallery_short.mp4)"

    status, output = finish(place, "publish=runs/results/short-0/last", "reference=reference")
    assert status == 0 and "policy=reference" in output


def test_no_time_begins_nothing(place: Path) -> None:
    status, output = finish(place, "rows=[short]", "budget_minutes=0.000001")
    assert status == 0 and "The time is up." in output and "waiting: short-0" in output
    assert not (place / "runs").exists()


def test_mistakes_are_one_line(place: Path) -> None:
    for arguments, message in (
        (["rows=[lnog]"], "Error: Unknown row 'lnog'. Did you mean 'long'"),
        (["gallery=[toys]"], "Error: Unknown table 'toys'. Did you mean 'toy'"),
        (["import=nowhere"], "Error: There is no run folder 'nowhere'"),
        (["plan=nowhere.yaml"], "Error: There is no file 'nowhere.yaml' with the rows"),
    ):
        status, output = finish(place, *arguments)
        assert status == 2 and output.splitlines()[-1].startswith(message) and "Traceback" not in output


def test_a_reward_program_counts_by_its_text(tmp_path: Path) -> None:
    """A run writes the text of its program down, where its row named none or a file."""
    row = ["env=cartpole", "task=balance", "reward=text2reward"]
    wanted = settings_of(row)
    text = essence(wanted)["reward"]["program"]
    assert "def compute_dense_reward" in text
    (tmp_path / "mine.py").write_text(text)
    for reward in (
        replace(wanted.reward.config, program=text),
        replace(wanted.reward.config, program=str(tmp_path / "mine.py")),
    ):
        ran = replace(wanted, reward=replace(wanted.reward, config=reward))
        assert not differences(essence(ran), essence(wanted))
    other = replace(
        wanted, reward=replace(wanted.reward, config=replace(wanted.reward.config, program=text + "# new\n"))
    )
    assert differences(essence(other), essence(wanted))


def test_a_row_that_needs_what_is_not_installed_is_left_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "plan.yaml").write_text(TOY.replace("  published: elsewhere\n", "  module: no_such_module\n"))
    assert work(Settings(plan="plan.yaml", rows=("short",))) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "short-0: left out, its environment needs 'no_such_module'" in printed and "elsewhere: short-0" in printed
    assert not Path("docs/results").exists() or not list(Path("docs/results").glob("*.json"))
