"""The toys in the places of the real encoder and reward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflows.relabel.toys import Counting
from vlmrl.encoders import ENCODERS
from vlmrl.reward_models import REWARDS


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reward of a picture is the value of its pixels."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENCODERS._entries, "mini", "tests.workflows.relabel.toys:CountingConfig")
    monkeypatch.setitem(REWARDS._entries, "clip", "tests.workflows.relabel.toys:PixelConfig")
    Counting.seen = 0
    yield
