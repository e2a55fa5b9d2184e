"""Which Java is there, told by one that says what a test wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmrl.envs.minecraft.java import java_version, require_java
from vlmrl.errors import UserError


def java(folder: Path, says: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "1.8.0_392"', 8),
        ('openjdk version "21.0.4" 2024-07-16', 21),
        ('java version "17" 2021-09-14', 17),
        ("no such thing", None),
    ],
)
def test_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, version: int | None) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path / "jdk", says)))
    assert java_version() == version


def test_without_the_right_one_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_version() is None
    with pytest.raises(UserError, match="'craftground' needs Java 21, and there is none. Run this.*engine=fake"):
        require_java(21, "craftground", "Run this.")
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path / "jdk", 'openjdk version "17.0.1"')))
    with pytest.raises(UserError, match="this is Java 17"):
        require_java(21, "craftground", "Run this.")
    require_java(17, "craftground", "Run this.")
