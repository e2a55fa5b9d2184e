"""Say which commands there are: `python -m vlmrl`."""

from __future__ import annotations

import ast
import shlex
import sys
from importlib import resources

from vlmrl.command_help import columns
from vlmrl.commands import fail
from vlmrl.errors import UserError, unknown

FIRST = "python -m vlmrl.train env=humanoid reward=clip"


def commands() -> dict[str, str]:
    """Return {command: what it does}, from the first lines of their modules; no module is imported for it."""
    package = resources.files("vlmrl")
    found = {}
    for config in sorted(package.joinpath("configs").iterdir(), key=lambda file: file.name):
        module = package.joinpath(f"{config.name.removesuffix('.yaml')}.py")
        if config.is_file() and module.is_file():
            says = ast.get_docstring(ast.parse(module.read_text())) or ""
            found[config.name.removesuffix(".yaml")] = says.partition(":")[0]
    return found


def main() -> None:
    """Print the commands; whoever names one here is told how it is called."""
    found, given = commands(), sys.argv[1:]
    if given and given[0] in found:
        fail(UserError(f"Each command is a module: python -m vlmrl.{shlex.join(given)}"))
    if given and given[0] not in ("-h", "--help"):
        fail(unknown("command", given[0], found))
    lines = [columns(f"python -m vlmrl.{name}", does) for name, does in found.items()]
    print("\n".join(["Commands; --help after one begins with examples:", "", *lines, "", f"To begin with: {FIRST}"]))


if __name__ == "__main__":
    main()
