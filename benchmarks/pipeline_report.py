"""The figures of `reward_pipeline` as goals, tables, a picture, and in docs/performance.md."""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.pipeline_stages import STAGES
from vlmrl.stats import bootstrap_mean

DOCS = Path(__file__).parents[1] / "docs"


class Figure(NamedTuple):
    """A mean over blocks with its 95 % interval (bootstrap over the blocks)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if abs(self.mean) >= 100 else 1 if abs(self.mean) >= 10 else 2
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def figure(blocks: Any) -> Figure:
    """Return the mean and interval of one value a block."""
    values = np.asarray(blocks, dtype=np.float64)
    return Figure(float(values.mean()), *bootstrap_mean(values))


class Speeds:
    """Steps a second of the arms of the comparisons of one name, block by block.

    Args:
        result: What `reward_pipeline` wrote.
        name: Name of the comparisons.

    Attributes:
        of: {arm: (blocks,) steps a second}; an arm that is in several comparisons has the figures of the first.
    """

    def __init__(self, result: dict[str, Any], name: str):
        self._each = [
            {arm: np.array(speeds) for arm, speeds in comparison["per_second"].items()}
            for comparison in result["comparisons"]
            if comparison["name"] == name
        ]
        self.of: dict[str, np.ndarray] = {}
        for speeds in self._each:
            self.of |= {arm: each for arm, each in speeds.items() if arm not in self.of}

    def together(self, *arms: str) -> list[np.ndarray]:
        """Return the speeds of arms that took turns with each other."""
        each = next(speeds for speeds in self._each if speeds.keys() >= set(arms))
        return [each[arm] for arm in arms]

    def times(self, arm: str, other: str) -> Figure:
        """Return how many times as fast one arm is as another, by ratios of neighbouring blocks."""
        ours, theirs = self.together(arm, other)
        return figure(ours / theirs)

    def suite(self, every: int) -> list[str]:
        """Return the suite's arms at every frame (1) or every k-th."""
        return [arm for arm in self.of if f", every {ordinal(every)}frame" in arm]


def ordinal(k: int) -> str:
    """Return "4th " for 4, nothing for 1."""
    return "" if k == 1 else {2: "2nd ", 3: "3rd "}.get(k, f"{k}th ")


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the figures against the goals; each is reached by the worse end of its interval."""
    every = result["settings"]["every"]
    path, learner, stages = (Speeds(result, name) for name in ("path", "learner", "stages"))
    held: list[dict[str, Any]] = []

    def hold(goal: str, value: Figure, limit: float, at_least: bool) -> None:
        reached = value.low >= limit if at_least else value.high <= limit
        held.append({"goal": goal, "value": value, "limit": limit, "reached": bool(reached)})

    if path.of:
        for k, factor in ((1, 10.0), (every, 30.0)):
            if k in (1, 4):
                best = max(path.suite(k), key=lambda arm: float(np.median(path.of[arm])))
                hold(
                    f"{best}: times as fast as the naive wrapper, at least",
                    path.times(best, "naive wrapper"),
                    factor,
                    True,
                )
        for arm in path.suite(1):
            if result["machine"]["gpu"] and not arm.startswith("local"):
                # The roofline of overlap: neither the loop nor the encoder can be hidden behind less than itself. On a
                # CPU they share the cores, and with the pictures.
                speeds, free, alone = path.together(arm, "reward-free", "encoder alone")
                share = figure(speeds / np.minimum(free, alone))
                hold(f"{arm}: share of what loop or encoder alone allow, at least", share, 0.85, True)
    if learner.of and every == 4:
        for arm in learner.suite(every):
            hold(f"{arm}: time over the reward-free SAC loop in %, at most", _over(learner, arm), 10.0, False)
    if stages.of:
        transport = figure(1e6 / stages.of["submit, 150 kB"] - 1e6 / stages.of["copy, 150 kB"])
        hold("transport of 150 kB beyond the copy in µs, at most", transport, 10.0, False)
        hold("reward of a stored embedding in µs, at most", figure(1e6 / stages.of["relabel"]), 1.0, False)
    return held


def _over(learner: Speeds, arm: str) -> Figure:
    """Return how much longer a loop takes than the reward-free one, in %."""
    free, speeds = learner.together("reward-free", arm)
    return figure(100 * (free / speeds - 1))


def tables(result: dict[str, Any]) -> str:
    """Return all figures as Markdown."""
    where, settings = result["machine"], result["settings"]
    path, learner, stages = (Speeds(result, name) for name in ("path", "learner", "stages"))
    lines = [
        f"{where['gpu'] or where['cpu']}, {where['cores']} cores, load {where['load']:.1f} at the end; encoder "
        f"{settings['model'] or 'mini'} ({result['gflop_per_frame']:.2f} GFLOP a picture), {settings['n_envs']} "
        f"environments, {settings['blocks']} blocks of {settings['steps']} steps; torch {result['versions']['torch']}.",
        "",
    ]
    if path.of:
        lines += [
            "| no learner | steps a second | times as fast as naive | as reward-free |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {arm} | {figure(speeds)} | {path.times(arm, 'naive wrapper')} | {path.times(arm, 'reward-free')} |"
            for arm, speeds in path.of.items()
        ]
        lines += [""]
    if learner.of:
        lines += [
            f"| SAC, {settings['updates']} updates a transition | steps a second | over reward-free | times local |",
            "| --- | --- | --- | --- |",
        ]
        for arm, speeds in learner.of.items():
            over = "" if arm == "reward-free" else f"{_over(learner, arm)} %"
            local = re.sub(r"^\w+,", "local,", arm)
            gain = str(learner.times(arm, local)) if local in learner.of and local != arm else ""
            lines += [f"| {arm} | {figure(speeds)} | {over} | {gain} |"]
        lines += [""]
    if stages.of:
        lines += ["| stage | µs | |", "| --- | --- | --- |"]
        lines += [
            f"| {stage} | {figure(1e6 / stages.of[stage])} | {meaning} |"
            for stage, meaning in STAGES.items()
            if stage in stages.of
        ]
        lines += [f"| the encoder's share of the device's matrix rate | {_share(result, stages)} | bf16 product |", ""]
    lines += ["| goal | limit | measured | reached |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {each['goal']} | {each['limit']:g} | {Figure(*each['value'])} | {'yes' if each['reached'] else 'no'} |"
        for each in result["goals"]
    ]
    return "\n".join(lines)


def _share(result: dict[str, Any], stages: Speeds) -> str:
    """Return what part of the measured rate of a matrix product the encoder reaches in full batches, in %."""
    from benchmarks.reward_pipeline import MATRIX

    device = "cuda" if result["settings"]["device"].startswith("cuda") else "cpu"
    rate = 2 * MATRIX[device] ** 3 * stages.of["matmul"]
    return f"{figure(100 * result['gflop_per_frame'] * 1e9 * stages.of['encode, a batch, bf16'] / rate)} %"


def picture(result: dict[str, Any]) -> str:
    """Draw steps a second of all arms as an SVG, on a logarithmic scale."""
    rows = [
        (f"{arm}{mark}", figure(speeds))
        for name, mark in (("path", ""), ("learner", ", SAC"))
        for arm, speeds in Speeds(result, name).of.items()
    ]
    if not rows:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    low = 10 ** math.floor(math.log10(min(value.low for _, value in rows)))
    high = 10 ** math.ceil(math.log10(max(value.high for _, value in rows)))
    left, width, height = 300, 420, 22

    def x(value: float) -> float:
        return left + width * math.log10(max(value, low) / low) / math.log10(high / low)

    shapes = []
    for power in range(int(math.log10(low)), int(math.log10(high)) + 1):
        at, bottom = f"{x(10**power):.1f}", 30 + height * len(rows)
        shapes += [
            f'<line x1="{at}" x2="{at}" y1="24" y2="{bottom}" stroke="#ccc"/>',
            f'<text x="{at}" y="16" text-anchor="middle">{10**power:g}</text>',
        ]
    for i, (label, value) in enumerate(rows):
        y = 32 + height * i
        colour = "#2a6f97" if ", every" in label else "#9aa5b1"
        shapes += [
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y}" width="{x(value.mean) - left:.1f}" height="15" fill="{colour}"/>',
            f'<line x1="{x(value.low):.1f}" x2="{x(value.high):.1f}" y1="{y + 7.5}" y2="{y + 7.5}" stroke="black"/>',
        ]
    total = 40 + height * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {total}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Steps a second of each arm">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(shapes)}</svg>\n'
    )


def fill_docs(result: dict[str, Any]) -> None:
    """Write the tables between the marks of this kind of device in docs/performance.md, and the picture beside it.

    Raises:
        ValueError: The page has lost its marks.
    """
    kind = "gpu" if result["machine"]["gpu"] else "cpu"
    marks = f"<!-- {kind}: written by benchmarks.reward_pipeline -->\n", f"<!-- {kind}: end -->"
    image = f"images/reward_pipeline_{kind}.svg"
    fill_page(DOCS / "performance.md", marks, f"![Steps a second of each arm]({image})\n\n{tables(result)}")
    (DOCS / image).write_text(picture(result))


def fill_page(page: Path, marks: tuple[str, str], text: str) -> None:
    """Write a text between two marks of a page, in place of what is there.

    Raises:
        ValueError: The page has lost its marks.
    """
    begin, end = marks
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has lost its marks '{begin.strip()}' and '{end}'.")
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
