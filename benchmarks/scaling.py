"""What saturates first from 1 to 64 GPUs, from constants: measured ones of the benchmarks' JSON, published ones else.

    python -m benchmarks.scaling                       # prints the tables
    python -m benchmarks.scaling --docs                # and writes them into docs/scaling.md
    python -m benchmarks.scaling --read runs/benchmarks/reward_pipeline.json

Every stage can do so many frames a second with so many GPUs; the slowest stage is what saturates. Nothing is measured
here: this is arithmetic, and each constant says where it is from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.pipeline_report import DOCS, fill_page

GPUS = (1, 2, 4, 8, 16, 32, 64)
FRAME_BYTES = 224 * 224 * 3
MARKS = "<!-- written by benchmarks.scaling -->\n", "<!-- end -->"


@dataclass(frozen=True)
class Constant:
    """A number, and where it is from.

    Attributes:
        value: The number.
        unit: Its unit.
        source: What was measured, or who published it.
    """

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Model:
    """An encoder on a GPU.

    Attributes:
        name: Architecture, as open_clip names it.
        gflop: Of one picture, 1e9 floating-point operations (a multiplication and an addition are two).
        share: Of the measured bf16 matrix rate that it reaches.
    """

    name: str
    gflop: float
    share: float


# GFLOP of open_clip's docs/model_profile.csv. Shares are the goals of docs/performance.md, not yet measured.
MODELS = (Model("ViT-B-32", 8.82, 0.40), Model("ViT-L-14", 162.0, 0.55), Model("ViT-H-14", 335.0, 0.60))

CONSTANTS = {
    "matrix rate": Constant(
        794.5e12, "FLOP/s a GPU", "best bf16 product found on an H100; ml-engineering, compute/accelerator"
    ),
    "cores": Constant(16, "cores a GPU", "an assumption: what machines with one H100 or H200 are let with"),
    "physics": Constant(1 / 0.4e-3, "steps/s a core", "Humanoid-v5, 0.34-0.45 ms a step on a shared EPYC core"),
    "render": Constant(1 / 3.8e-3, "frames/s a core", "lean picture of 224 px, 3.8 ms on a shared EPYC core"),
    "transport": Constant(1 / 7e-6, "frames/s a run", "150 kB through shared memory, 7 µs on a shared EPYC core"),
    "object store": Constant(20e9 / FRAME_BYTES, "frames/s a machine", "Ray's own log: 20 GB/s into plasma"),
    "network": Constant(
        12.5e9 / FRAME_BYTES, "frames/s a machine", "an assumption: 100 Gbit/s, pictures not compressed"
    ),
    "learner": Constant(725, "updates/s a run", "SAC with CUDA graphs on an H100; LeanRL's README"),
}
STAGES = {"physics": "physics", "render": "render", "submit, 150 kB": "transport"}  # of reward_pipeline's JSON


def measured(constants: dict[str, Constant], result: dict[str, Any]) -> dict[str, Constant]:
    """Put a benchmark's figures in the place of published ones.

    Args:
        constants: {name: constant}.
        result: What `benchmarks.reward_pipeline` wrote. Its physics, pictures and transport are of any machine's cores;
            the learner's are taken where it was measured on a GPU.
    """
    about = result["machine"]
    taken = dict(constants)
    stages = {
        stage: float(np.median(speeds))
        for comparison in result["comparisons"]
        if comparison["name"] == "stages"
        for stage, speeds in comparison["per_second"].items()
    }
    size = "" if result["settings"]["model"] else " (pictures of 112 px)"
    for stage, name in STAGES.items():
        if stage in stages:
            note = f"measured on {about['cpu']}, load {about['load']:.1f}{size if name == 'render' else ''}"
            taken[name] = replace(constants[name], value=stages[stage], source=note)
    update = "SAC update, batch of 256"
    if about["gpu"] and update in stages:
        taken["learner"] = replace(constants["learner"], value=stages[update], source=f"measured on {about['gpu']}")
    return taken


def encoders(constants: dict[str, Constant], model: Model) -> float:
    """Return the frames a second of one GPU."""
    return model.share * constants["matrix rate"].value / (model.gflop * 1e9)


def one_run(
    constants: dict[str, Constant], model: Model, gpus: int, every: int, steps_an_update: int = 8
) -> dict[str, float]:
    """Return the steps a second that each stage allows one run, with one learner. Stages overlap wholly.

    Args:
        constants: {name: constant}.
        model: The encoder.
        gpus: Number of GPUs; the cores beside them draw.
        every: A picture every so many steps.
        steps_an_update: Steps of all environments for each gradient step; the commands' default is 8.
    """
    step = 1 / constants["physics"].value + 1 / (every * constants["render"].value)  # seconds of a core
    return {
        "environments": gpus * constants["cores"].value / step,
        "transport": every * constants["transport"].value,
        "encoders": every * gpus * encoders(constants, model),
        "learner": steps_an_update * constants["learner"].value,
    }


def many_runs(constants: dict[str, Constant], model: Model, gpus: int, every: int) -> dict[str, float]:
    """Return the steps a second that each stage allows as many runs as there are GPUs, together."""
    alone = one_run(constants, model, gpus, every)
    return alone | {"transport": gpus * alone["transport"], "learner": gpus * alone["learner"]}


def relabelling(constants: dict[str, Constant], model: Model, gpus: int, gpus_a_machine: int = 8) -> dict[str, float]:
    """Return the frames a second that each stage allows where recorded pictures are rewarded."""
    machines = -(-gpus // gpus_a_machine)
    return {
        "encoders": gpus * encoders(constants, model),
        "object store": machines * constants["object store"].value,
        "network": machines * constants["network"].value,
    }


def slowest(rates: dict[str, float]) -> tuple[str, float]:
    """Return the stage that saturates, and its rate."""
    return min(rates.items(), key=lambda entry: entry[1])


def tables(constants: dict[str, Constant]) -> str:
    """Write constants and results as Markdown."""
    lines = ["| constant | | from |", "| --- | --- | --- |"]
    lines += [f"| {name} | {entry.value:,.4g} {entry.unit} | {entry.source} |" for name, entry in constants.items()]
    for title, rates in (
        (
            "One run, an update a step, every picture: steps a second",
            lambda model, n: one_run(constants, model, n, 1, 1),
        ),
        (
            "One run, an update every 8 steps, every picture: steps a second",
            lambda model, n: one_run(constants, model, n, 1),
        ),
        ("The same, every 4th picture: steps a second", lambda model, n: one_run(constants, model, n, 4)),
        (
            "As many such runs as GPUs, every picture: steps a second of all",
            lambda model, n: many_runs(constants, model, n, 1),
        ),
        ("Recorded pictures: frames a second", lambda model, n: relabelling(constants, model, n)),
    ):
        lines += ["", f"**{title}**, and what saturates.", ""]
        lines += ["| GPUs | " + " | ".join(map(str, GPUS)) + " |", "| --- |" + " --- |" * len(GPUS)]
        for model in MODELS:
            cells = [f"{rate:,.0f} {stage}" for stage, rate in (slowest(rates(model, n)) for n in GPUS)]
            lines.append(f"| {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compute, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--read", type=Path, nargs="*", default=[], help="figures of benchmarks.reward_pipeline")
    arguments.add_argument("--docs", action="store_true", help="write the tables into docs/scaling.md as well")
    settings = arguments.parse_args()
    constants = CONSTANTS
    for path in settings.read:
        constants = measured(constants, json.loads(path.read_text()))
    text = tables(constants)
    Console().print(text, markup=False, soft_wrap=True)
    if settings.docs:
        fill_page(DOCS / "scaling.md", MARKS, text)


if __name__ == "__main__":
    main()
