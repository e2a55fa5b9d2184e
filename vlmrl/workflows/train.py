"""Train an agent on a reward in words, and show what it learned."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from vlmrl.agents import checkpoints
from vlmrl.agents.callbacks import RewardLog, StopOnInterrupt
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.make import make_vec_env
from vlmrl.errors import UserError
from vlmrl.workflows.build import Parts, build_parts, resolve_device
from vlmrl.workflows.config import TrainConfig
from vlmrl.workflows.report import make_console, python_command, results_table, shown
from vlmrl.workflows.rollouts import Episodes, Policy, RandomPolicy, measure, record_clip
from vlmrl.workflows.run_folder import RunFolder, create, point_last

# Evaluation starts from seeds that no training environment uses.
EVAL_SEED = 1_000_000


def train(settings: TrainConfig) -> RunFolder:
    """Train, save, and compare the trained policy with the untrained one and with random actions.

    Everything that a user can get wrong is found before the run folder is made. Ctrl-C ends training early; what was
    learned until then is saved and measured like the rest.

    Args:
        settings: Settings of the run; `run_dir` is its folder.

    Returns:
        The run folder, with `model.zip` and `result.json`.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    parts = build_parts(settings, device)
    _probe(parts, settings)

    folder = RunFolder(Path(settings.run_dir)) if settings.resume else create(Path(settings.run_dir), settings)
    rewards = parts.rewards(RewardScale(enabled=settings.standardize, centre=settings.centre))
    env = make_vec_env(parts.env, rewards, settings.n_envs, settings.seed, folder.monitor)
    try:
        model = _model(settings, folder, env, device)
        _announce(console, settings, parts, folder, model, device)
        seconds, steps = _learn(model, settings, rewards, folder, console)
    finally:
        env.close()

    policies: dict[str, Policy] = {
        "trained": model,
        "untrained": settings.agent.config.algorithm().load(folder.untrained, device=device),
        "random": RandomPolicy(model.action_space, settings.seed),
    }
    results = measure(
        policies,
        parts,
        settings.eval_episodes,
        settings.n_envs,
        settings.seed + EVAL_SEED,
        settings.progress_bar,
    )
    clip = None
    if settings.video:
        clip = Path(settings.video_dir) / f"{folder.path.parent.name}_{folder.path.name}.mp4"
        with console.status("Filming the untrained and the trained policy…"):
            record_clip(
                {name: policies[name] for name in ("untrained", "trained")},
                parts.env,
                clip,
                3,
                settings.seed + EVAL_SEED,
            )
    _report(console, settings, folder, results, model.num_timesteps, steps / seconds, clip)
    return folder


def _probe(parts: Parts, settings: TrainConfig) -> None:
    """Take one step and reward it, so that a broken environment, renderer or encoder shows before anything is made."""
    env = make_vec_env(parts.env, parts.rewards(), 1, settings.seed, wait=True)
    try:
        env.reset()
        env.step(np.stack([env.action_space.sample()]))
    finally:
        env.close()


def _model(settings: TrainConfig, folder: RunFolder, env: Any, device: str) -> BaseAlgorithm:
    """Make the algorithm, or load it where the run stopped.

    Raises:
        UserError: The run cannot go on: it has no checkpoint, or is as long as was asked.
    """
    if not settings.resume:
        model: BaseAlgorithm = settings.agent.config.build(env, settings.seed, device)
        model.save(folder.untrained)
        suffix = ""
    else:
        checkpoint = checkpoints.newest(folder.checkpoints)
        model = checkpoints.restore(settings.agent.config.algorithm(), checkpoint, env, device)
        suffix = f"_{model.num_timesteps}"
        if model.num_timesteps >= settings.total_timesteps:
            raise UserError(
                f"The run '{folder.path}' stands at step {model.num_timesteps:,}, and total_timesteps is "
                f"{settings.total_timesteps:,}. "
                f"To train on, give more: total_timesteps={2 * model.num_timesteps}."
            )
    # SB3's own `configure` would overwrite the table of a run that goes on.
    outputs = [CSVOutputFormat(str(folder.path / f"progress{suffix}.csv")), TensorBoardOutputFormat(str(folder.path))]
    model.set_logger(Logger(str(folder.path), outputs))
    return model


def _learn(
    model: BaseAlgorithm, settings: TrainConfig, rewards: LazyRewards, folder: RunFolder, console: Console
) -> tuple[float, int]:
    """Train and save, whatever ends training; return the seconds and steps that it took."""
    started, before = time.monotonic(), model.num_timesteps
    max_steps = model.get_env().get_attr("spec")[0].max_episode_steps or 1000  # type: ignore[union-attr]
    interrupt = StopOnInterrupt()
    try:
        model.learn(
            settings.total_timesteps - before,
            callback=[
                interrupt,
                RewardLog(rewards),
                checkpoints.CheckpointCallback(folder.checkpoints, settings.checkpoint_every, max_steps),
            ],
            log_interval=settings.log_interval,
            reset_num_timesteps=before == 0,
            progress_bar=settings.progress_bar,
        )
        if interrupt.stopped:
            console.print(f"Stopped at step {model.num_timesteps:,}; saving what was learned.")
        checkpoints.save_at_end(model, folder.checkpoints)
    except KeyboardInterrupt:
        console.print(f"Interrupted at step {model.num_timesteps:,}; the last checkpoint stays as it is.")
    finally:
        model.save(folder.model)
        model.logger.close()
    return time.monotonic() - started, model.num_timesteps - before


def _announce(
    console: Console, settings: TrainConfig, parts: Parts, folder: RunFolder, model: BaseAlgorithm, device: str
) -> None:
    console.print(
        f"[bold]{settings.env.name}[/] · task {settings.task.name} · reward {settings.reward.name} · "
        f"agent {settings.agent.name} · {settings.total_timesteps:,} steps · seed {settings.seed} · {device}"
    )
    if settings.resume:
        console.print(f"going on from step {model.num_timesteps:,}")
    if settings.task.goal or settings.goal:
        console.print(f"goal: {parts.env.task.goal!r}  baseline: {parts.env.task.baseline!r}")
    if parts.encoder is not None:
        console.print(
            f"encoder: {parts.encoder.name}, pictures of {parts.env.width} x {parts.env.height} "
            f"from camera {parts.env.task.camera}"
        )
    console.print(
        f"run: {shown(folder.path)}   (curves: tensorboard --logdir {shown(folder.path.parent.parent)})", soft_wrap=True
    )


def _report(
    console: Console,
    settings: TrainConfig,
    folder: RunFolder,
    results: dict[str, Episodes],
    steps: int,
    speed: float,
    clip: Path | None,
) -> None:
    """Print the table and write `result.json`."""
    summaries = {name: episodes.summary() for name, episodes in results.items()}
    folder.result.write_text(
        json.dumps({"steps": steps, "steps_per_second": round(speed, 1), "policies": summaries}, indent=2) + "\n"
    )
    console.print(results_table(summaries, f"{settings.eval_episodes} episodes each, mean and 95 % interval"))
    if all("success" not in summary for summary in summaries.values()):
        console.print("no predicate: nothing but the reward model says how well this went; look at the clip")
    console.print(f"trained for {steps:,} steps, {speed:.0f} a second")
    point_last(folder, folder.path.parent.parent)
    for label, path in (
        ("run", folder.path),
        ("model", folder.model),
        ("clip", clip),
        ("log", folder.path / "progress.csv"),
    ):
        if path is not None:
            console.print(f"{label + ':':8}{shown(path)}", soft_wrap=True)
    longer = (
        f"{python_command()} -m vlmrl.train resume={shown(folder.path)} total_timesteps={4 * settings.total_timesteps}"
    )
    console.print(f"longer: {longer}", soft_wrap=True)
