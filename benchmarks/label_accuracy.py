"""How often is a judge right, by how far apart two states truly are?

    python -m benchmarks.label_accuracy env=cartpole judge=encoder
    python -m benchmarks.label_accuracy env=humanoid task=kneeling judge=ground_truth judge.mistake=0.1

States of the task come from the sources that `vlmrl.audit` draws from: random actions, states put together, and the
reference policies' episodes where there are some. Pairs of them are put in ten groups of equal size by the difference
of their ground-truth reward, as RL-VLM-F reports it, and the judge compares the pictures of each. Settings are those of
`vlmrl.train` for environment, task, encoder and judge, and beside them:

    states=<n>   states to draw, 300
    pairs=<n>    pairs to ask about, 500
    out=<file>   where the figures go, JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vlmrl.commands import compose, fail, for_hydra, plain
from vlmrl.errors import UserError

DECILES = 10
OWN = {"states": "300", "pairs": "500", "out": ""}  # keys of this benchmark alone


def main() -> None:
    """Draw, ask, print, write."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(__doc__.strip())
        return
    try:
        own = OWN | {key: value for key, _, value in (entry.partition("=") for entry in arguments) if key in OWN}
        overrides = [entry for entry in arguments if entry.partition("=")[0] not in OWN]
        n_states, n_pairs = (_whole(key, own[key]) for key in ("states", "pairs"))
        label_accuracy(overrides, n_states, n_pairs, Path(own["out"]) if own["out"] else None)
    except UserError as error:
        fail(error)


def label_accuracy(overrides: list[str], n_states: int, n_pairs: int, out: Path | None) -> dict[str, Any]:
    """Ask a judge about pairs of states, and say how often it is right.

    Args:
        overrides: Settings, as `vlmrl.train` takes them; the reward is always `vlm_preference`.
        n_states: States to draw.
        n_pairs: Pairs to ask about, at least `DECILES`.
        out: File for the figures, or None.

    Returns:
        What is written: settings, totals, and each decile's share of answers.

    Raises:
        UserError: A setting is wrong, or the task has no check.
    """
    from vlmrl.workflows.audit.states import draw_states
    from vlmrl.workflows.build import build_parts, resolve_device
    from vlmrl.workflows.config.train import train_settings
    from vlmrl.workflows.report import make_console

    if n_pairs < DECILES:
        raise UserError(f"pairs={n_pairs}; at least {DECILES} are needed, one for each group.")
    settings = train_settings(plain(compose("train", for_hydra([*overrides, "reward=vlm_preference"]))))
    assert settings.judge is not None
    device = resolve_device(settings.device)
    started = time.monotonic()
    parts = build_parts(settings, device, settings.judge.config.uses_encoder)
    try:
        if parts.env.task.predicate is None:
            raise UserError("Who is right is told by the task's ground truth: name a task that has a check.")
        states = draw_states(parts.env, n_states, settings.seed, pictures=True, progress=settings.progress_bar)
        frames = states.frames[parts.env.task.camera]
        pairs = by_gap(states.truth, n_pairs, np.random.default_rng(settings.seed))
        answers = _ask(settings, parts, device, frames, states.truth, pairs)
    finally:
        parts.close()
    deciles = [
        _decile(states.truth, part, verdicts)
        for part, verdicts in zip(
            np.array_split(pairs, DECILES), np.array_split(np.array(answers), DECILES), strict=True
        )
    ]
    decided = [entry for entry in answers if entry in ("left", "right")]
    result = {
        "env": settings.env.name,
        "task": settings.task.name,
        "judge": {"name": settings.judge.name, **asdict(settings.judge.config)},
        "encoder": parts.encoder.name if parts.encoder is not None else None,
        "seed": settings.seed,
        "states": len(states),
        "pairs": len(pairs),
        "decided": len(decided),
        "seconds": round(time.monotonic() - started, 1),
        "deciles": deciles,
    }
    console = make_console()
    console.print(_table(result))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"figures: {out}", highlight=False)
    return result


def by_gap(truth: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw pairs of states whose truths differ, (n, 2) int, sorted by how much they do, the least first.

    Raises:
        UserError: All states have the same truth.
    """
    if len(np.unique(truth)) < 2:
        raise UserError("All states that were drawn have the same ground-truth reward; draw more, states=<n>.")
    pairs = np.empty((0, 2), dtype=np.int64)
    while len(pairs) < n:
        drawn = rng.integers(len(truth), size=(n, 2))
        pairs = np.concatenate([pairs, drawn[truth[drawn[:, 0]] != truth[drawn[:, 1]]]])
    pairs = pairs[:n]
    gaps = np.abs(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    return pairs[np.argsort(gaps, kind="stable")]


def _ask(settings: Any, parts: Any, device: str, frames: Any, truth: np.ndarray, pairs: np.ndarray) -> list[str]:
    """Return the judge's verdicts on pairs of states."""
    from tempfile import TemporaryDirectory

    from vlmrl.judges.base import Comparison

    with TemporaryDirectory() as folder:
        desk = settings.judge.config.open_desk(parts.encoder, device, Path(folder) / "answers.sqlite")
        try:
            questions = [
                Comparison(parts.env.task.goal, frames[i][None], frames[j][None], truth[[i]], truth[[j]])
                for i, j in pairs
            ]
            return [str(answer.verdict) for answer in desk.ask(questions)]
        finally:
            desk.close()


def _decile(truth: np.ndarray, pairs: np.ndarray, verdicts: np.ndarray) -> dict[str, Any]:
    gaps = truth[pairs[:, 0]] - truth[pairs[:, 1]]
    counts: Counter[str] = Counter()
    for gap, verdict in zip(gaps, verdicts, strict=True):
        decided = verdict in ("left", "right")
        counts[("right" if (gap > 0) == (verdict == "left") else "wrong") if decided else str(verdict)] += 1
    kinds = ("right", "wrong", "tie", "abstain", "error")
    return {
        "gap": [float(np.abs(gaps).min()), float(np.abs(gaps).max())],
        "pairs": len(pairs),
        **{kind: counts[kind] for kind in kinds},
    }


def _table(result: dict[str, Any]) -> Table:
    title = f"{result['env']}, {result['task']}: judge {result['judge']['name']} on {result['pairs']} pairs of states"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in ("decile", "difference of truth", "pairs", "right", "wrong", "tie", "abstain", "error"):
        table.add_column(header, justify="right", no_wrap=True)
    for i, entry in enumerate(result["deciles"], start=1):
        low, high = entry["gap"]
        shares = (f"{entry[kind] / entry['pairs']:.0%}" for kind in ("right", "wrong", "tie", "abstain", "error"))
        table.add_row(str(i), f"{low:.2f} to {high:.2f}", str(entry["pairs"]), *shares)
    return table


def _whole(key: str, value: str) -> int:
    if not value.isdigit() or int(value) == 0:
        raise UserError(f"{key}={value}; it must be a whole number, at least 1.")
    return int(value)


if __name__ == "__main__":
    main()
