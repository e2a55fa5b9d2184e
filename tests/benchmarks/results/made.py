"""A small plan and page, and what the runs of its rows would leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results.plan import Plan, essence
from benchmarks.results.records import Record
from vlmrl.workflows.run_folder import RunFolder, create, versions

ROOT = Path(__file__).parents[3]
TOY = """
toy:
  overrides: [env=cartpole, reward=ground_truth, n_envs=2, agent.n_steps=64, agent.batch_size=64, "agent.net_arch=[16]",
    total_timesteps=30720, checkpoint_every=2048, eval_episodes=2, device=cpu]
  published: elsewhere
  rows:
    long: {seeds: [0, 1], gain: true, ceiling: short, published: 64 %}
    short: {overrides: [total_timesteps=256], label: a short one}
words:
  overrides: [env=cartpole, reward=clip]
  against: short
  rows:
    bright: {}
    bright_too: {overrides: [reward.alpha=0.5]}
"""
PAGE = """# Toy

Kept above.

<!-- table: toy -->
<!-- end -->

Kept between.

<!-- table: words -->
something old
<!-- end -->
Kept below.
"""


def summary(fraction: float | None, success: float = 0.0, half: float = 0.1) -> dict[str, Any]:
    made: dict[str, Any] = {"episodes": 20, "truth": {"mean": 50.0, "interval": [40.0, 60.0]}}
    made["model_reward"] = {"mean": -3.0, "interval": [-4.0, -2.0]}
    if fraction is not None:
        made["fraction"] = {"mean": fraction, "interval": [fraction - half, fraction + half]}
        made["success"] = {"mean": success, "interval": [max(0.0, success - 0.2), min(1.0, success + 0.2)]}
    return made


def record(plan: Plan, row: str, seed: int, fraction: float | None = 0.5, success: float = 0.0) -> Record:
    policies = {"trained": summary(fraction, success), "untrained": summary(0.1), "lazy": summary(0.2)}
    policies["blind"] = summary(None)
    return Record(
        command=plan.rows[row].command([seed]),
        settings=essence(plan.rows[row].settings(seed)),
        steps=8192,
        steps_per_second=100.0,
        training_seconds=300.0,
        command_seconds=None,
        policies=policies,
        versions=versions(),
        machine={},
        date="2000-01-01",
    )


def line(page: Path, label: str) -> dict[str, str]:
    """Return the cells of a row of the page by their headings."""
    headings: list[str] = []
    for text in page.read_text().splitlines():
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        if text.startswith("| run "):
            headings = cells
        elif text.startswith(f"| {label} |") or text.startswith(f"| [{label}]"):
            return dict(zip(headings, cells, strict=True))
    raise AssertionError(f"no row {label}")


def by_hand(folder: Path, plan: Plan, row: str, seed: int = 0, steps: int = 256, more: str = "") -> RunFolder:
    """Make what `vlmrl.train` leaves."""
    made = create(folder, plan.rows[row].settings(seed))
    made.path.joinpath("command.txt").write_text(
        f"python -m vlmrl.train threads=1 run_dir=/a/b {' '.join(plan.rows[row].overrides)} -m seed=0,{seed} {more}\n"
    )
    (made.path / "progress.csv").write_text("time/time_elapsed,time/total_timesteps\n3,100\n5,200\n")
    (made.path / "progress_200.csv").write_text("time/time_elapsed,time/total_timesteps\n2,256\n")
    policies = {"trained": summary(0.5), "untrained": summary(0.1)}
    made.result.write_text(json.dumps({"steps": steps, "steps_per_second": 64.0, "policies": policies}))
    return made
