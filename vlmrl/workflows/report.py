"""How figures are shown."""

from __future__ import annotations

import itertools
import shutil
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

T = TypeVar("T")


def figures_table(title: str, first: str, *headers: str) -> Table:
    """Make a table without lines in the style of all: a column of names, and columns of figures to its right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def results_table(summaries: dict[str, dict[str, Any]], title: str) -> Table:
    """Lay out summaries of `Episodes`, one policy a line, and a line for each way to start where there are several.

    Where the truth itself is the reward, as offline, it is shown once.
    """
    lines = []
    for name, summary in summaries.items():
        lines.append((name, summary))
        lines += [(f"  {start} start", part) for start, part in summary.get("by_start", {}).items()]
    modelled = any(summary.get("model_reward") != summary.get("truth") for _, summary in lines)
    last = ["model\nreward"] if modelled else []
    table = figures_table(title, "policy", "predicate\nholds", "success", "truth", *last)
    for name, summary in lines:
        table.add_row(
            name,
            _cell(summary.get("fraction"), percent=True),
            _cell(summary.get("success"), percent=True),
            _cell(summary.get("truth")),
            *([_cell(summary.get("model_reward"))] if modelled else []),
        )
    return table


def _cell(figure: dict[str, Any] | None, percent: bool = False) -> str:
    if figure is None:
        return "no predicate"
    low, high = figure["interval"]
    if percent:
        return f"{figure['mean']:.0%} [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{figure['mean']:.1f} [{low:.1f}, {high:.1f}]"


def make_console() -> Console:
    """Make a console that is wide enough for the tables where the output goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 120)


def doing(console: Console, what: str) -> AbstractContextManager[object]:
    """Say what is done inside the `with`: a spinner on a terminal, a line in a file or a pipe, where none can turn."""
    if console.is_terminal:
        return console.status(what)
    console.print(what, highlight=False)
    return nullcontext()


def tracked(items: Iterable[T] | None = None, *, show: bool, **kwargs: Any) -> tqdm[T]:
    """Return a progress bar, which a terminal shows and a file or a pipe does not.

    Args:
        items: What is gone through; without it, the bar is moved by `update`.
        show: Whether the user wants one.
        **kwargs: Of `tqdm`.
    """
    return tqdm(items, disable=None if show else True, **kwargs)


def print_measuring(console: Console, episodes: int, policies: Iterable[str]) -> None:
    """Say that policies are about to be measured, which takes minutes where episodes are long."""
    console.print(
        f"measuring {counted(episodes, 'episode')} each: {', '.join(policies)}", highlight=False, soft_wrap=True
    )


def counted(count: int, noun: str) -> str:
    """Return "1 episode", "1,200 episodes"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown(path: Path) -> str:
    """Return a path as seen from the folder one stands in, if it lies below it."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def placed(name: str, path: Path) -> str:
    """Return what a dataset is called and where it lies, unless it is called by where it lies."""
    where = shown(path)
    return name if Path(name) == Path(where) else f"{name}   ({where})"


def print_paths(console: Console, paths: Mapping[str, Path | None]) -> None:
    """Print where things lie, {label: path}; None is left out."""
    for label, path in paths.items():
        if path is not None:
            console.print(f"{label + ':':8}{shown(path)}", soft_wrap=True)


def python_command() -> str:
    """Return how this Python is called from a shell here: "python" where that is it, else its path."""
    found = shutil.which("python")
    return (
        "python" if found and Path(found).absolute() == Path(sys.executable).absolute() else shown(Path(sys.executable))
    )


def letters() -> Iterator[str]:
    """Yield a, b, ..., z, aa, bb, ..., which stand for names that are too long for a table."""
    for repeats in itertools.count(1):
        for letter in string.ascii_lowercase:
            yield letter * repeats
