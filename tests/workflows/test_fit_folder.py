"""An interrupted fit is gone on with by a run of the same settings only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vlmrl.errors import UserError
from vlmrl.workflows.fit_folder import claim


@dataclass(frozen=True)
class Config:
    out: str = "a"
    steps: int = 3
    clips: str = "clips"
    threads: int = 1
    progress: bool = True


def test_a_folder_belongs_to_runs_of_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    claim(Config(), path, clips="digest")
    claim(Config(out="b", threads=2, progress=False, clips="moved"), path, clips="digest")  # the same work
    for config, digest in ((replace(Config(), steps=4), "digest"), (Config(), "other files")):
        with pytest.raises(UserError, match="holds an interrupted run with other settings.*out=<folder>"):
            claim(config, path, clips=digest)
