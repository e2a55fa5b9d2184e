"""The whole of `fit reward=failure_prompts`: clips that succeed and fail, clusters, prompts, held-out figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.failure_prompts.config import FailurePromptFitConfig

FEWEST = 2  # clips of either outcome of each task, to learn from and to measure on


def fit(config: FailurePromptFitConfig) -> dict[str, Any]:
    """Learn prompts for the ways in which clips fail, and measure them on clips apart.

    Args:
        config: What to do and where to put it.

    Returns:
        `before` and `after`: AUROC of success by the cosine with the sentence and by the reward, and the share of
        failures above the median success, each over the held-out clips; `clusters` (clips of each, by task), `losses`
        and `config`. Also written to `<out>/figures.json`.

    Raises:
        UserError: Clips cannot be read, say not what was to be done or how it ended, or are too few.
    """
    import torch

    from vlmrl.reward_models.clip_contrastive import goal_probability
    from vlmrl.reward_models.failure_prompts import FailurePrompts, pooled
    from vlmrl.workflows.embedded_clips import embedded_clips, frames_of
    from vlmrl.workflows.failure_prompts.learn import learn
    from vlmrl.workflows.liv.train import base_config, load_base
    from vlmrl.workflows.report import make_console, shown

    if config.threads:
        torch.set_num_threads(config.threads)
    assert config.dataset is not None
    encoder, found = embedded_clips(
        config.dataset, base_config(config.weights), config.camera, config.device, config.labels, config.progress
    )
    for clip in found:
        if not clip.text.strip():
            raise UserError(
                f"dataset={config.dataset}: clip {clip.name} does not say what was to be done; in a folder of clips, "
                "the column text of captions.csv (a line a clip) or of steps.csv says it."
            )
        if clip.label.success is None:
            raise UserError(
                f"dataset={config.dataset}: clip {clip.name} does not say whether it succeeded; fit.labels=<csv with "
                "episode,success> says it."
            )
    tasks = sorted({clip.text for clip in found})
    task_of = np.array([tasks.index(clip.text) for clip in found])
    done = np.array([bool(clip.label.success) for clip in found])
    ends = np.stack([pooled(frames_of(clip), config.frames)[-1] for clip in found])
    held_out = divide(task_of, done, tasks, config.held_out, config.seed)
    goals = encoder.encode_texts(tasks)
    failures, clusters, losses = learn(
        load_base(config.weights, config.device),
        tasks,
        goals,
        ends[~held_out],
        task_of[~held_out],
        done[~held_out],
        config,
    )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    prompts = FailurePrompts(tuple(tasks), failures, config.temperature, config.frames, encoder.fingerprint)
    prompts.save(out / "prompts.npz")
    after = np.array(
        [
            goal_probability(end[None], goals[i], failures[i], config.temperature)[0]
            for end, i in zip(ends[held_out], task_of[held_out], strict=True)
        ]
    )
    before = (ends[held_out] * goals[task_of[held_out]]).sum(axis=1)
    report = {
        "before": figures(before, done[held_out]),
        "after": figures(after, done[held_out]),
        "clusters": {
            task: np.bincount(clusters[(task_of[~held_out] == i) & (clusters >= 0)], minlength=config.clusters).tolist()
            for i, task in enumerate(tasks)
        },
        "clips": {"learned": int((~held_out).sum()), "held_out": int(held_out.sum())},
        "losses": [float(part.mean()) for part in np.array_split(losses, min(10, config.steps))],
        "config": asdict(config),
    }
    (out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console = make_console()
    for task, sizes in report["clusters"].items():  # type: ignore[attr-defined]
        console.print(f"'{task}': failures in clusters of {sizes}", highlight=False, soft_wrap=True, markup=False)
    for when, said in (("before", "cosine with the sentence"), ("after", "with failure prompts")):
        area, false = (report[when][name] for name in ("auroc", "false_positives"))  # type: ignore[index]
        console.print(
            f"{said}: AUROC of success {area['mean']:.2f} ({area['interval'][0]:.2f} to {area['interval'][1]:.2f}), "
            f"{false['mean']:.0%} of failures above the median success, {report['clips']['held_out']} held-out clips",  # type: ignore[index]
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"prompts: {shown(out / 'prompts.npz')}  (reward=failure_prompts reward.prompts=<this file>)", soft_wrap=True
    )
    return report


def divide(task_of: np.ndarray, done: np.ndarray, tasks: list[str], share: float, seed: int) -> np.ndarray:
    """Draw the clips to hold out, (n,) bool, of either outcome of every task alike.

    Raises:
        UserError: There are too few of some.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(done), dtype=bool)
    for i, task in enumerate(tasks):
        for outcome, said in ((True, "succeed"), (False, "fail")):
            own = rng.permutation(np.flatnonzero((task_of == i) & (done == outcome)))
            if len(own) < 2 * FEWEST:
                raise UserError(
                    f"'{task}': {len(own)} clips {said}, and it takes {2 * FEWEST} to learn from some and measure on "
                    "others; bring more."
                )
            held_out[own[: min(max(FEWEST, round(share * len(own))), len(own) - FEWEST)]] = True
    return held_out


def figures(values: np.ndarray, done: np.ndarray) -> dict[str, Any]:
    """Measure values of clips, (n,) float, of which some succeed, (n,) bool."""
    from vlmrl.stats import auroc, auroc_interval, wilson

    successes, failures = int(done.sum()), int((~done).sum())
    area = float(auroc(values, done)[0])
    above = int((values[~done] >= np.median(values[done])).sum())
    return {
        "auroc": {"mean": area, "interval": auroc_interval(area, successes, failures)},
        "false_positives": {"mean": above / failures, "interval": wilson(above, failures)},
    }
