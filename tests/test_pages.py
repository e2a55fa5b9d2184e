"""Every command that a page shows has the keys and choices that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vlmrl.command_help import GROUPS
from vlmrl.commands import compose, expand, for_hydra
from vlmrl.fit import with_recipe

ROOT = Path(__file__).parents[1]
# The commands of the results are those of their plan, which tests/benchmarks/results looks at.
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem != "results")]
# A command at the start of a line, or between backticks; a comment may follow.
COMMAND = re.compile(
    r"(?:^|`)(?:[-.\w]+/bin/)?python -m vlmrl\.([a-z]+)(?: ([^`\n]*?))?(?: +#.*)?(?:`|$)", re.MULTILINE
)


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Return (command, arguments) of a page, each once; <a thing to fill in> is a thing called x."""
    text = page.read_text().replace("\\\n", " ")
    found: dict[tuple[str, ...], None] = {}
    for name, typed in COMMAND.findall(text):
        arguments = shlex.split(re.sub(r"<[^<>]*>", "<x>", typed).removesuffix(" &"))
        if any(argument in ("|", "…", "...") for argument in arguments):  # a sketch of several commands
            continue
        found[name, *arguments] = None
    return [(name, list(arguments)) for name, *arguments in found]


def test_the_pages_show_commands() -> None:
    assert len([command for page in PAGES for command in commands(page)]) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_of_a_page_is_one(page: Path) -> None:
    for name, typed in commands(page):
        several = "-m" in typed
        typed = [argument for argument in typed if not argument.startswith("-")]
        chosen = [argument for argument in typed if not re.fullmatch(rf"({'|'.join(GROUPS)})=<x>", argument)]
        given = [argument.replace("<x>", "x") for argument in chosen]
        if name == "fit":
            given = with_recipe(given)
        for overrides in expand(for_hydra(given, several), several):
            compose(name, overrides)
