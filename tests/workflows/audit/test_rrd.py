"""Recordings for rerun's viewer; `make test-rerun` installs what it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.patience import PATIENCE
from vlmrl.errors import UserError
from vlmrl.workflows.audit.clips import Clip, Label
from vlmrl.workflows.audit.exports import write_rrd


def clip() -> Clip:
    strip = [(0, np.zeros((8, 8, 3), np.uint8)), (4, np.full((8, 8, 3), 9, np.uint8))]
    return Clip(3, "drawer", "", {"front": np.zeros((5, 2), np.float32)}, strip, Label(True))


def test_curves_and_pictures_lie_over_frame_numbers(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    path = write_rrd(tmp_path / "audit.rrd", [clip()], [np.arange(5.0)])
    printed = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "print", str(path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert printed.returncode == 0, printed.stderr
    for name in ("/0003_drawer/value", "/0003_drawer/observation.images"):
        assert name.replace(".", "\\.") in printed.stdout or name in printed.stdout


def test_without_rerun_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"pip install 'vlmrl\[rerun\]'"):
        write_rrd(tmp_path / "audit.rrd", [clip()], [np.arange(5.0)])
