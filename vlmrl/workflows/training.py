"""What all agents have in common that learn in an environment: how a run begins, what is said, how it is measured."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vlmrl.errors import UserError
from vlmrl.judges.human import PeopleSettings
from vlmrl.reward_models.base import scores_clips
from vlmrl.workflows.audit.preflight import Preflight, preflight_line
from vlmrl.workflows.audit.results import Audited
from vlmrl.workflows.audit.run import can_be_audited, short_audit, short_preflight, verdict_line
from vlmrl.workflows.build import Parts, build_parts, resolve_device, settled
from vlmrl.workflows.config.audit import AUDIT_SCENE_KEYS
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.learned_rewards import described
from vlmrl.workflows.policies import SampledPolicy
from vlmrl.workflows.report import (
    counted,
    doing,
    make_console,
    print_measuring,
    print_paths,
    python_command,
    results_table,
    shown,
)
from vlmrl.workflows.rollouts import Episodes, Policy, measure, record_clip
from vlmrl.workflows.run_folder import RunFolder

# Evaluation starts from seeds that no training environment uses.
EVAL_SEED = 1_000_000
FILMED = ("untrained", "trained")
FILMED_EPISODES = 3

Work = Callable[[TrainConfig, Parts, str, Console], RunFolder]


def run_training(settings: TrainConfig, train: Work) -> RunFolder:
    """Build what the settings stand for, train, and close it again, whatever comes.

    Args:
        settings: Settings of the run.
        train: Given the settings, their parts, the torch device and where to print; returns the run's folder.

    Raises:
        UserError: A part cannot be had.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    uses_encoder = settings.judge is not None and settings.asks_judge and settings.judge.config.uses_encoder
    parts = build_parts(settings, device, uses_encoder)
    try:
        return train(settled(settings, parts.model), parts, device, console)
    finally:
        parts.close()


def check_longer(settings: TrainConfig, done: int) -> None:
    """Refuse to go on with a run that is as long as was asked; before anything is built, which takes its time.

    Args:
        settings: Settings of the run.
        done: Steps that it has taken.

    Raises:
        UserError: It is.
    """
    if done >= settings.total_timesteps:
        raise UserError(
            f"There is nothing left to do: the run '{shown(Path(settings.run_dir))}' stands at step {done:,}, and "
            f"total_timesteps is {settings.total_timesteps:,}. To train on, give more: total_timesteps={2 * done}."
        )


def announce(
    console: Console,
    settings: TrainConfig,
    parts: Parts,
    folder: RunFolder,
    device: str,
    steps: int,
    details: Iterable[str],
) -> None:
    """Say what is about to be trained.

    Args:
        console: Where it is printed.
        settings: Settings of the run.
        parts: What they stand for.
        folder: The run's.
        device: Torch device of the learner.
        steps: Steps that a run which goes on has taken.
        details: What only this kind of learner has to say, a line each.
    """
    console.print(
        f"[bold]{settings.env.name}[/] · task {settings.task.name} · reward {settings.reward.name} · "
        f"agent {settings.agent.name} · {settings.total_timesteps:,} steps · seed {settings.seed} · {device}"
    )
    if settings.resume:
        console.print(f"going on from step {steps:,}")
    if settings.reads_words and parts.env.task.goal:
        console.print(f"goal: {parts.env.task.goal!r}  baseline: {parts.env.task.baseline!r}")
    elif settings.goal is not None:
        console.print(
            f"reward {settings.reward.name} is made of no sentences: goal= changes nothing here", markup=False
        )
    if summary := getattr(parts.model, "summary", ""):
        console.print(summary, highlight=False, soft_wrap=True, markup=False)
    for line in described(settings):
        console.print(line, highlight=False)
    for line in details:
        console.print(line, markup=False)
    console.print(
        f"run: {shown(folder.path)}   (curves: tensorboard --logdir {shown(folder.path.parent.parent)})", soft_wrap=True
    )
    if settings.judge is not None and settings.asks_judge and isinstance(settings.judge.config, PeopleSettings):
        page = f"{python_command()} -m vlmrl.label run={shown(folder.path)}"
        console.print(f"people answer at a page: {page}", soft_wrap=True, highlight=False)


def audit_reward(settings: TrainConfig, parts: Parts, console: Console) -> Audited | Preflight | None:
    """Say whether the reward tells states of the task apart, before time is spent on it; None where it is not asked.

    A reward of clips cannot be told on states; of it is said whether it sees anything.
    """
    if not settings.audit or settings.resume:
        return None
    if scores_clips(parts.model):
        with doing(console, "Looking whether the reward sees anything…"):
            return short_preflight(settings, parts, settings.seed)
    if not can_be_audited(settings, parts):
        return None
    try:
        with doing(console, "Auditing the reward…"):
            return short_audit(settings, parts, settings.seed)
    except UserError as error:  # the states of this task cannot be drawn, which is no reason not to train
        console.print(f"audit of the reward: not possible. {error}", highlight=False)
        return None


def print_audit(console: Console, settings: TrainConfig, audited: Audited | Preflight | None) -> None:
    """Print what `audit_reward` found, and how to look closer where it was bad."""
    if audited is None:
        return
    if isinstance(audited, Preflight):
        console.print(f"preflight of the reward: {preflight_line(audited)}", highlight=False)
    else:
        console.print(f"audit of the reward: {verdict_line(audited)}", highlight=False)
    if audited.doubtful:
        scene = shlex.join(_scene_overrides(settings))
        console.print(f"look closer: {python_command()} -m vlmrl.audit {scene}", soft_wrap=True, markup=False)


def _scene_overrides(settings: TrainConfig) -> list[str]:
    """Return what of this command an audit of the same reward is given as well; a program is told the names alone."""
    given = {argument.partition("=")[0]: argument for argument in sys.argv[1:] if "=" in argument}
    kept = {key: argument for key, argument in given.items() if key.partition(".")[0] in AUDIT_SCENE_KEYS}
    named = {group: f"{group}={getattr(settings, group).name}" for group in ("env", "task", "reward")}
    return list((named | kept).values())


def measure_policies(
    settings: TrainConfig, parts: Parts, folder: RunFolder, policies: Mapping[str, Policy], console: Console
) -> tuple[dict[str, Episodes], Path | None]:
    """Measure policies in episodes of full length, and film those that are `FILMED`.

    Args:
        settings: Settings of the run: how many episodes, whether actions are drawn, whether there is a film.
        parts: What they stand for.
        folder: The run's, whose name the film has.
        policies: {name: policy}.
        console: Where it is said what goes on.

    Returns:
        {name: its episodes}, and the film; None without one.
    """
    seed = settings.seed + EVAL_SEED
    drawn = () if settings.eval_deterministic else FILMED
    policies = {
        name: SampledPolicy(policy, settings.seed) if name in drawn else policy for name, policy in policies.items()
    }
    print_measuring(console, settings.eval_episodes, policies)
    results = measure(policies, parts, settings.eval_episodes, settings.n_envs, seed, settings.progress_bar)
    if not settings.video:
        return results, None
    clip = Path(settings.video_dir) / f"{folder.path.parent.name}_{folder.path.name}.mp4"
    with doing(console, "Filming the untrained and the trained policy…"):
        filmed = {name: policies[name] for name in FILMED}
        record_clip(filmed, parts.env, clip, FILMED_EPISODES, seed, settings.video_length)
    return results, clip


def report(
    console: Console,
    settings: TrainConfig,
    folder: RunFolder,
    results: Mapping[str, Episodes],
    steps: int,
    speed: float,
    clip: Path | None,
    more: Mapping[str, Any],
) -> None:
    """Print the table and write `result.json`.

    Args:
        console: Where it is printed.
        settings: Settings of the run.
        folder: The run's.
        results: What `measure_policies` returned, with `clip`.
        steps: Steps that the policy was trained for.
        speed: Of training, steps a second.
        clip: The film; None without one.
        more: Further entries of the file.
    """
    summaries = {name: episodes.summary() for name, episodes in results.items()}
    result = {"steps": steps, "steps_per_second": round(speed, 1), "policies": summaries, **more}
    folder.result.write_text(json.dumps(result, indent=2) + "\n")
    console.print(
        results_table(summaries, f"{counted(settings.eval_episodes, 'episode')} each, mean and 95 % interval")
    )
    if all("success" not in summary for summary in summaries.values()):
        look = "; look at the clip" if clip is not None else ""
        console.print(f"no predicate: nothing but the reward model says how well this went{look}")
    console.print(f"trained for {steps:,} steps, {speed:.0f} a second")
    print_paths(console, {"run": folder.path, "model": folder.model, "clip": clip, "log": folder.path / "progress.csv"})
    resume = f"{python_command()} -m vlmrl.train resume={shown(folder.path)}"
    if steps < settings.total_timesteps:
        console.print(f"go on:  {resume}", soft_wrap=True)
    else:
        console.print(f"longer: {resume} total_timesteps={4 * settings.total_timesteps}", soft_wrap=True)
