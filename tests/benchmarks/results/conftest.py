"""A folder to stand in, with a plan and a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results.plan import Plan, read_plan
from tests.benchmarks.results.made import PAGE, TOY


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
