from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.label_accuracy import by_gap, label_accuracy
from vlmrl.errors import UserError

SMALL = ["env=cartpole", "env.width=16", "env.height=16", "progress_bar=false", "device=cpu", "reward.input=state"]


def test_pairs_are_sorted_by_how_far_apart_they_are() -> None:
    truth = np.array([0.0, 0.0, 0.5, 1.0])
    pairs = by_gap(truth, 60, np.random.default_rng(0))
    gaps = np.abs(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    assert len(pairs) == 60 and (np.diff(gaps) >= 0).all() and gaps.min() > 0
    with pytest.raises(UserError, match="same ground-truth"):
        by_gap(np.zeros(5), 10, np.random.default_rng(0))


def test_a_teacher_that_errs_is_caught_at_it(tmp_path: Path) -> None:
    """By design its mistakes do not depend on the gap; without mistakes it is always right."""
    rights = {}
    for mistake in (0.0, 0.3):
        out = tmp_path / f"{mistake}.json"
        arguments = [*SMALL, "judge=ground_truth", f"judge.mistake={mistake}"]
        result = label_accuracy(arguments, 60, 400, out)
        assert json.loads(out.read_text()) == json.loads(json.dumps(result))
        assert [decile["pairs"] for decile in result["deciles"]] == [40] * 10
        rights[mistake] = [decile["right"] / 40 for decile in result["deciles"]]
    assert rights[0.0] == [1.0] * 10
    assert 0.62 < np.mean(rights[0.3]) < 0.78


def test_mistakes_of_a_person_are_one_line() -> None:
    with pytest.raises(UserError, match="at least 10"):
        label_accuracy(SMALL, 60, 5, None)
    with pytest.raises(UserError, match="has a check"):
        label_accuracy([*SMALL, "goal=a pole"], 60, 20, None)
