"""Which rows there are, and which settings of a row matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results.plan import Plan, Row, differences, essence, read_plan, settings_of
from benchmarks.results.records import older_weights
from tests.benchmarks.results.made import ROOT, TOY
from vlmrl.errors import UserError


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
    row = Row(("env=cartpole", *overrides))
    assert ("encoder" in essence(row.settings(0))) == looks
    assert bool(older_weights({"mini weights": "sha256 of something else"}, row, 0)) == looks


def test_new_weights_concern_recordings_that_they_relabelled(place: Path) -> None:
    offline = Row(("env=cartpole", "agent=iql", "dataset=a-v0", "reward=ground_truth"))
    older = {"mini weights": "sha256 of something else"}
    assert older_weights(older, offline, 0) == []
    assert older_weights(older, replace(offline, relabelled_by="mini"), 0) == ["the embedded encoder has new weights"]
    (place / "plan.yaml").write_text(TOY.replace("bright: {}", "bright: {relabelled_by: minni}"))
    with pytest.raises(UserError, match="Unknown embedded encoder 'minni'. Did you mean 'mini'"):
        read_plan(place / "plan.yaml")


def test_differences_name_keys() -> None:
    assert differences({"a": {"b": 1, "c": None}, "d": 2}, {"a": {"b": 1, "c": 3}}) == [
        "a.c is null, not 3",
        "d is 2, not null",
    ]
    sac, ppo = {"agent": {"name": "sac", "tau": 1}}, {"agent": {"name": "ppo", "clip_range": 2}}
    assert differences(sac, ppo) == ["agent.name is sac, not ppo"]


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
