"""Held-out figures of the embedded encoder: how well cosines tell states apart, judged by the tasks' own predicates.

`python -m vlmrl.workflows.mini.measure` gives the figures of its model card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.workflows.mini.captions import CARTPOLE, HUMANOID
from vlmrl.workflows.mini.frames import Frames, render_frames
from vlmrl.workflows.mini.states import load_states

# The words that the suite's tasks use.
TASK_WORDS = {
    "humanoid/kneeling": "a humanoid robot kneeling",
    "humanoid/standing": "a humanoid robot standing up",
    "cartpole/balance": "pole vertically upright on top of the cart",
}


# Added to a training run's seed: no training frame comes from these.
HELD_OUT, POLICY = 1_000_001, 1_000_002


def held_out_frames(
    held_out: int = 2_500, policy: int = 800, seed: int = 0, states: Sequence[str] = (), progress: bool = True
) -> dict[str, Frames]:
    """Render frames that no training run with this seed has seen.

    Args:
        held_out: Frames drawn like training frames, camera and light varied.
        policy: Frames from episodes of a random policy, seen as the task sees them; as many for each of `states`.
        seed: Seed of the training run.
        states: Archives of states that agents reached; their held-out parts are taken.
        progress: Show progress bars.
    """
    sets = {
        "held out": render_frames(held_out, seed + HELD_OUT, progress=progress),
        "policy": render_frames(policy, seed + POLICY, cartpole=0, policy_only=True, vary=False, progress=progress),
    }
    for i, path in enumerate(states):
        visited = load_states(path, "held out")
        sets[Path(path).stem] = render_frames(
            policy, seed + POLICY + 1 + i, cartpole=0, visited=visited, vary=False, progress=progress
        )
    return sets


def measure(encoder: Encoder, sets: Mapping[str, Frames]) -> dict[str, Any]:
    """Measure an encoder on frames that it was not trained on.

    Args:
        encoder: The encoder, as it will be used.
        sets: Frames by the name of their set.

    Returns:
        `tasks`: {task: {set: figures}}, the cosine with the task's words against its predicate (`auroc`) and against
        its dense ground-truth reward (`pearson`, `spearman`), and the same for frames of the front camera alone;
        `statements`: {statement: {"auroc", "pearson", "true"}}, the cosine with the plainest sentence against the
        caption's own degree, over the first set; `images_per_second` of 64 at once.
    """
    embeddings = {name: encoder.encode_images(frames.pixels) for name, frames in sets.items()}
    tasks = {
        task: {name: _task_figures(encoder, task, embeddings[name], frames) for name, frames in sets.items()}
        for task in TASK_WORDS
    }
    first = next(iter(sets))
    return {
        "tasks": {task: {name: figures for name, figures in table.items() if figures} for task, table in tasks.items()},
        "statements": _statement_figures(encoder, embeddings[first], sets[first]),
        "images_per_second": images_per_second(encoder),
    }


def images_per_second(encoder: Encoder, batch_size: int = 64, batches: int = 10) -> float:
    """Time the encoder on frames of its own size."""
    frames = np.zeros((batch_size, *encoder.image_size, 3), dtype=np.uint8)
    encoder.encode_images(frames)
    start = time.perf_counter()
    for _ in range(batches):
        encoder.encode_images(frames)
    return batches * batch_size / (time.perf_counter() - start)


def auroc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney U); None without both kinds."""
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return None
    return float((ranks(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def summary(figures: Mapping[str, Any]) -> str:
    """Return the figures as a table in plain text."""
    header = ("AUROC", "front", "Pearson", "Spearman")
    lines = [f"{'task':20s} {'set':10s} {'frames':>6s} {'true':>5s} " + " ".join(f"{name:>8s}" for name in header)]
    for task, sets in figures["tasks"].items():
        for name, row in sets.items():
            lines.append(
                f"{task:20s} {name:10s} {row['frames']:6d} {row['true']:5d} "
                + " ".join(f"{_cell(row[key]):>8s}" for key in ("auroc", "auroc_front", "pearson", "spearman"))
            )
    known = [row["auroc"] for row in figures["statements"].values() if row["auroc"] is not None]
    if known:
        worst = sorted((row["auroc"], name) for name, row in figures["statements"].items() if row["auroc"] is not None)[
            :5
        ]
        lines.append(
            f"{len(known)} statements: mean AUROC {np.mean(known):.3f}; lowest "
            + ", ".join(f"{name} {value:.2f}" for value, name in worst)
        )
    lines.append(f"{figures['images_per_second']:.0f} images/s at batch 64")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _task_figures(encoder: Encoder, task: str, embeddings: np.ndarray, frames: Frames) -> dict[str, Any] | None:
    cart = task.startswith("cartpole/")
    rows = np.flatnonzero((frames.source == "cartpole") == cart)
    if len(rows) == 0:
        return None
    predicate = PREDICATES.load(task)
    conditions = [predicate({name: column[i] for name, column in frames.state.items()}) for i in rows]
    true = np.array([holds(condition) for condition in conditions])
    dense = np.array([dense_reward(condition) for condition in conditions])
    scores = embeddings[rows] @ encoder.encode_texts([TASK_WORDS[task]])[0]
    front = frames.camera[rows] == "front"
    return {
        "frames": len(rows),
        "true": int(true.sum()),
        "auroc": auroc(true, scores),
        "auroc_front": auroc(true[front], scores[front]),
        "pearson": pearson(scores, dense),
        "spearman": pearson(ranks(scores), ranks(dense)),
    }


def _statement_figures(encoder: Encoder, embeddings: np.ndarray, frames: Frames) -> dict[str, dict[str, Any]]:
    figures = {}
    for table, cart in ((HUMANOID, False), (CARTPOLE, True)):
        rows = (frames.source == "cartpole") == cart
        for name, phrases in table.items():
            text = phrases[0] if cart else f"a humanoid robot {phrases[0]}".strip()
            degree = frames.truths[name][rows]
            scores = embeddings[rows] @ encoder.encode_texts([text])[0]
            figures[name] = {
                "auroc": auroc(degree > 0.6, scores),
                "pearson": pearson(scores, degree),
                "true": int((degree > 0.6).sum()),
            }
    return figures


def main() -> None:
    """Measure the embedded encoder, or weights of the same kind, and print the figures."""
    from vlmrl.encoders.mini import MiniConfig

    parser = argparse.ArgumentParser(description="Measure the embedded encoder on held-out frames.")
    parser.add_argument(
        "--path", default="", help="folder with other weights of the same kind; empty: the embedded ones"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training run that has not seen these frames")
    arguments = parser.parse_args()
    print(summary(measure(MiniConfig(path=arguments.path).build("cpu"), held_out_frames(seed=arguments.seed))))


if __name__ == "__main__":
    main()
