"""Run folders are found by what a person types, and what is none says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmrl.errors import UserError
from vlmrl.workflows.run_folder import RunFolder, find, point_last


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs and a search."""
    for name in ("cartpole-balance-clip-ppo/2026-01-01", "cartpole-balance-clip-ppo/2026-01-02", "searches/hopper/1"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        folder.joinpath("config.yaml").write_text(
            "total_timesteps: 1\n" + ("selection_seeds: [1]\n" if "hopper" in name else "")
        )
    point_last(RunFolder(tmp_path / "runs" / "cartpole-balance-clip-ppo" / "2026-01-02"), tmp_path / "runs")
    return tmp_path / "runs"


def test_last_is_the_run_that_was_begun_last(runs: Path) -> None:
    assert find("last", runs).path == runs.resolve() / "cartpole-balance-clip-ppo" / "2026-01-02"
    assert find("last", runs).read_config() == {"total_timesteps": 1}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lst", "last"),
        ("{runs}/cartpole-balance-clip-pp/2026-01-01", "{runs}/cartpole-balance-clip-ppo/2026-01-01"),
        ("{runs}/searches/hoper/1", "{runs}/searches/hopper/1"),
    ],
)
def test_the_nearest_run_is_named(given: str, meant: str, runs: Path) -> None:
    with pytest.raises(UserError) as caught:
        find(given.format(runs=runs), runs)
    assert f"Did you mean '{meant.format(runs=runs)}'?" in str(caught.value)


def test_nothing_is_named_where_nothing_is_near(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find("last", tmp_path, make="vlmrl.search env=cartpole")
    assert (
        str(caught.value)
        == f"There is no run folder '{tmp_path}/last'. To make one: python -m vlmrl.search env=cartpole"
    )


def test_the_folder_of_runs_is_no_run(runs: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: .* The newest run in it is '.*2026-01-02'"):
        find(str(runs / "cartpole-balance-clip-ppo"), runs).read_config()


def test_a_folder_of_another_command_is_not_taken_for_a_run(runs: Path) -> None:
    search, run = find(str(runs / "searches" / "hopper" / "1"), runs), find("last", runs)
    with pytest.raises(UserError, match=r"hopper/1' was made by vlmrl.search; give a folder of vlmrl.train\.$"):
        search.read_config()
    with pytest.raises(UserError, match=r"was made by vlmrl.train; give a folder of vlmrl.search\.$"):
        run.read_config("search")
    assert search.read_config("train", "search")["selection_seeds"] == [1]
    run.config.write_text("prompts: []\n")  # as of an audit
    with pytest.raises(UserError, match="was made by another command; give a folder of vlmrl.train or vlmrl.search"):
        run.read_config("train", "search")
