"""Whether the Java that a game needs is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from vlmrl.errors import UserError


def java_version() -> int | None:
    """Return the major version of the Java that a game would start, 8 for "1.8"; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if program is None or not Path(program).is_file():
        return None
    said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60)
    match = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    return int(match[1]) if match else None


def require_java(wanted: int, engine: str, install: str) -> None:
    """Refuse to start a game without its Java.

    Args:
        wanted: Major version.
        engine: Name of the engine.
        install: What to run to get it.

    Raises:
        UserError: Says which Java is there, which is needed, and that the stand-in needs none.
    """
    found = java_version()
    if found == wanted:
        return
    there = "there is none" if found is None else f"this is Java {found}"
    raise UserError(
        f"The Minecraft engine '{engine}' needs Java {wanted}, and {there}. {install} If it is elsewhere, say so: "
        "JAVA_HOME=<folder>. To try everything else without a game: env.kwargs.engine=fake."
    )
