"""What is said where no spinner can turn, and how things are called."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vlmrl.workflows.report import counted, doing, placed, results_table, tracked


@pytest.mark.parametrize("terminal", [True, False])
def test_in_a_file_there_is_a_line_for_what_takes_its_time(terminal: bool) -> None:
    printed = StringIO()
    with doing(Console(file=printed, force_terminal=terminal), "Auditing the reward…"):
        pass
    assert (printed.getvalue() == "Auditing the reward…\n") == (not terminal)
    assert "Auditing the reward…" in printed.getvalue()


def test_the_truth_as_the_reward_is_shown_once() -> None:
    truth, model = ({"mean": mean, "interval": [mean, mean]} for mean in (2.0, 3.0))
    assert len(results_table({"a": {"truth": truth, "model_reward": model}}, "").columns) == 5
    assert len(results_table({"a": {"truth": truth, "model_reward": truth}}, "").columns) == 4


def test_one_episode_is_no_plural() -> None:
    assert [counted(n, "episode") for n in (0, 1, 1200)] == ["0 episodes", "1 episode", "1,200 episodes"]


@pytest.mark.parametrize(("terminal", "show"), [(True, True), (True, False), (False, True)])
def test_bars_are_for_terminals(terminal: bool, show: bool) -> None:
    printed = StringIO()
    printed.isatty = lambda: terminal  # type: ignore[method-assign]
    assert list(tracked(range(3), show=show, desc="playing", file=printed)) == [0, 1, 2]
    assert ("playing" in printed.getvalue()) == (terminal and show)


def test_a_path_is_not_said_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert placed("./clips", tmp_path / "clips") == "./clips"
    assert placed("rewards.csv", tmp_path / "rewards.csv") == "rewards.csv"
    assert placed("cartpole/mine-v0", Path("/data/cartpole/mine-v0")) == "cartpole/mine-v0   (/data/cartpole/mine-v0)"
