"""Arms of a comparison, each in a process of its own, that take turns block by block.

What else goes on on a machine changes its speed from minute to minute, so only ratios of neighbouring blocks mean
anything. A process of its own gives each arm its one OpenGL context, its own threads and settings.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from vlmrl.stats import bootstrap_mean
from vlmrl.workflows.run_folder import versions

# Takes a number of steps, does them, returns the seconds that they took.
Block = Callable[[int], float]

WARM_UP = 4  # the block that warms up has so many times fewer steps than the others


class Arm:
    """One side of a comparison, set up in a process of its own and idle until asked.

    Args:
        name: What it is called.
        make: A function at the top of a module; makes the block function, in the new process.
        kwargs: Its arguments.
    """

    def __init__(self, name: str, make: Callable[..., Block], /, **kwargs: Any):
        self.name, self._make, self._kwargs = name, make, kwargs

    def __enter__(self) -> Arm:
        context = multiprocessing.get_context("spawn")  # not daemonic: arms have workers of their own
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make, self._kwargs))
        self._process.start()
        theirs.close()
        return self

    def run(self, steps: int) -> float:
        """Do a block and return its speed in steps a second."""
        try:
            self._connection.send(steps)
            seconds = self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            self._process.join()
            raise RuntimeError(f"The arm '{self.name}' died with exit code {self._process.exitcode}.") from error
        if isinstance(seconds, str):
            raise RuntimeError(f"The arm '{self.name}' failed:\n{seconds}")
        return steps / seconds

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()  # the process ends when nothing more can come
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Block], kwargs: dict[str, Any]) -> None:
    try:
        block = None
        while True:
            try:
                steps = connection.recv()
            except EOFError:
                break
            block = block or make(**kwargs)
            connection.send(block(steps))
    except Exception:
        connection.send(traceback.format_exc())
    finally:
        close = getattr(block, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        name: What was compared.
        steps: Steps of a block of each arm.
        per_second: Steps a second of each arm, block by block.
        ratios: For each arm but the first, the first's speed over its own, block by block; mean and 95 % interval
            (bootstrap over the blocks).
    """

    name: str
    steps: dict[str, int]
    per_second: dict[str, list[float]]
    ratios: dict[str, dict[str, Any]]


def compare(name: str, arms: Mapping[str, tuple[Arm, int]], blocks: int) -> Comparison:
    """Let arms take turns, ABAB...; the first one is held against the others.

    Args:
        name: What is compared.
        arms: {name: an arm, and the steps of its blocks}.
        blocks: Blocks of each arm, after one that warms up and is not counted.
    """
    per_second: dict[str, list[float]] = {arm: [] for arm in arms}
    with ExitStack() as stack:
        running = {key: (stack.enter_context(arm), steps) for key, (arm, steps) in arms.items()}
        for arm, steps in running.values():
            arm.run(max(1, steps // WARM_UP))
        for _ in range(blocks):
            for key, (arm, steps) in running.items():
                per_second[key].append(arm.run(steps))
    first, *others = arms
    ratios = {}
    for other in others:
        each = np.array(per_second[first]) / np.array(per_second[other])
        ratios[other] = {"blocks": each.tolist(), "mean": float(each.mean()), "interval": bootstrap_mean(each)}
    return Comparison(name, {key: steps for key, (_, steps) in arms.items()}, per_second, ratios)


def parser(description: str | None, name: str, steps: int) -> argparse.ArgumentParser:
    """Make a parser with what all benchmarks take: --blocks, --steps, --out."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--blocks", type=_count, default=7, help="blocks of each arm (default %(default)s)")
    made.add_argument(
        "--steps", type=_count, default=steps, help="steps of a block of the slow arms (default %(default)s)"
    )
    made.add_argument("--out", type=Path, default=Path("runs/benchmarks", f"{name}.json"), help="default %(default)s")
    return made


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def report(
    name: str,
    settings: Mapping[str, Any],
    goal: float,
    against: str,
    comparisons: list[Comparison],
    out: Path,
    unit: str = "steps",
) -> None:
    """Print a table and write JSON.

    Args:
        name: Name of the benchmark.
        settings: What it was run with.
        goal: The ratio that the first comparison should reach, by the lower end of its interval.
        against: The arm of the first comparison that this is about.
        comparisons: What came out.
        out: The file.
        unit: What a block is counted in.
    """
    ratio = comparisons[0].ratios[against]
    reached = bool(ratio["interval"][0] >= goal)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
    result = {
        "benchmark": name,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "machine": machine,
        "versions": versions(),
        "goal": {"ratio": goal, "against": against, "reached": reached},
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    table = Table(title=f"{name}, medians of the blocks; ratios with 95 % intervals", box=box.SIMPLE_HEAD)
    table.add_column("compared", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column(f"{unit} a second", justify="right")
    table.add_column("times as fast", justify="right", no_wrap=True)
    for comparison in comparisons:
        first = next(iter(comparison.per_second))
        for arm, speeds in comparison.per_second.items():
            cell = ""
            if arm != first:
                low, high = comparison.ratios[arm]["interval"]
                cell = f"{comparison.ratios[arm]['mean']:.2f} [{low:.2f}, {high:.2f}]"
            table.add_row(comparison.name if arm == first else "", arm, f"{np.median(speeds):.1f}", cell)
    console = Console()
    console.print(table)
    said = "reached" if reached else "NOT reached"
    console.print(f"goal: at least {goal:g} times as fast as {against}, lower end of the interval: {said}")
    console.print(f"figures: {out}", soft_wrap=True)
