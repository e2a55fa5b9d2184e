"""Which rows are filmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results.gallery import best_and_worst
from benchmarks.results.plan import Plan
from benchmarks.results.records import Records
from tests.benchmarks.results.made import record
from vlmrl.errors import UserError


def test_the_gallery_has_the_best_seed_of_the_best_row_and_the_worst_of_the_worst(place: Path, plan: Plan) -> None:
    records = Records(place / "records")
    with pytest.raises(UserError, match="nothing to film"):
        best_and_worst(plan.tables["toy"], records)
    for name, seed, fraction in (("long", 0, 0.2), ("long", 1, 0.4), ("short", 0, 0.35)):
        records.save(name, seed, record(plan, name, seed, fraction))
    chosen = [(row.name, seed) for row, seed in best_and_worst(plan.tables["toy"], records)]
    assert chosen == [("short", 0), ("long", 0)]
