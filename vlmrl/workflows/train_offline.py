"""Train an agent on recordings, and show what it learned where there is an environment to show it in."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from vlmrl.agents import checkpoints
from vlmrl.agents.callbacks import StopOnInterrupt
from vlmrl.agents.memory import in_words
from vlmrl.agents.offline.algorithm import OfflineAlgorithm
from vlmrl.agents.offline.checkpoints import OfflineCheckpoints, restore, save
from vlmrl.agents.offline.data import check_transitions, episode_returns
from vlmrl.agents.offline.policies import check_observations
from vlmrl.datasets.base import Dataset, Transitions, open_dataset, transitions
from vlmrl.errors import UserError
from vlmrl.stats import bootstrap_mean
from vlmrl.typed import typed
from vlmrl.workflows.build import Parts, build_parts, resolve_device
from vlmrl.workflows.config.scene import NO_ENV, NO_TASK, EnvConfig, TaskConfig
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.evaluate import spaces
from vlmrl.workflows.policies import ZeroPolicy, check_spaces
from vlmrl.workflows.report import counted, doing, make_console, print_paths, python_command, results_table, shown
from vlmrl.workflows.rollouts import Episodes, Policy, RandomPolicy
from vlmrl.workflows.run_folder import RunFolder, create, point_last
from vlmrl.workflows.training import check_longer, measure_policies

OURS = "vlmrl"  # where a dataset's metadata says what this suite recorded


@dataclass(frozen=True)
class Recordings:
    """What is learned from.

    Attributes:
        dataset: Where it comes from.
        data: All transitions.
        digest: SHA-256 of their bytes, hex: a resumed run must see the same ones.
    """

    dataset: Dataset
    data: Transitions
    digest: str

    def summary(self) -> dict[str, Any]:
        """Say what they are, ready for JSON."""
        returns = episode_returns(self.data)
        return {
            "dataset": self.dataset.spec,
            "sha256": self.digest,
            "episodes": len(returns),
            "transitions": len(self.data),
            "terminations": int(self.data.terminations.sum()),
            "return": {
                "min": float(returns.min()),
                "mean": float(returns.mean()),
                "max": float(returns.max()),
                "interval": bootstrap_mean(returns),
            },
        }


def train_offline(settings: TrainConfig) -> RunFolder:
    """Learn from a dataset, save, and measure the policy in `settings.env` or, with env=none, where it was recorded.

    Everything that a user can get wrong is found before the run folder is made. Ctrl-C ends training early; what was
    learned until then is saved and measured like the rest.

    Args:
        settings: Settings of the run; `run_dir` is its folder.

    Returns:
        The run folder, with `model.zip` and `result.json`.

    Raises:
        UserError: The dataset cannot be learned from, or does not fit the environment, or a run that was to go on
            cannot.
    """
    if settings.resume:
        check_longer(settings, checkpoints.newest(RunFolder(Path(settings.run_dir)).checkpoints).step)
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    with doing(console, "Reading the dataset…"):
        recordings = read(settings)
    settings, parts = _place(settings, recordings.dataset, device, console)
    try:
        return _train(settings, recordings, parts, device, console)
    finally:
        if parts is not None:
            parts.close()


def _place(settings: TrainConfig, dataset: Dataset, device: str, console: Console) -> tuple[TrainConfig, Parts | None]:
    """Find where the policy is measured, and see that it fits there.

    Returns:
        The settings with that environment, and its parts; None where there is none.

    Raises:
        UserError: The environment that was asked for is another than what was recorded.
    """
    placed = located(settings, dataset, console)
    if placed.env.name == NO_ENV:
        return placed, None
    parts = build_parts(placed, device)
    try:
        check_spaces(f"dataset={settings.dataset}", dataset, *spaces(parts.env))
    except UserError as error:
        parts.close()
        if settings.env.name != NO_ENV:
            raise
        # Such as recordings that let the policy see embeddings, which no environment shows.
        console.print(f"No environment to measure in: {error}", highlight=False)
        return replace(placed, env=settings.env, task=settings.task), None
    return placed, parts


def read(settings: TrainConfig) -> Recordings:
    """Open the dataset and take all its transitions into memory.

    Raises:
        UserError: There is no such dataset, or nothing can be learned from it.
    """
    assert settings.dataset is not None
    dataset = open_dataset(settings.dataset)
    if dataset.observation_space is not None:
        check_observations(dataset.observation_space)  # before pictures are read, which take much memory as numbers
    data = transitions(dataset)
    check_transitions(data)
    digest = hashlib.sha256()
    for name in Transitions.__dataclass_fields__:
        digest.update(np.ascontiguousarray(getattr(data, name)).tobytes())
    return Recordings(dataset, data, digest.hexdigest())


def located(settings: TrainConfig, dataset: Dataset, console: Console | None = None) -> TrainConfig:
    """Return settings that another folder can be stood in for, with the environment that was recorded for env=none.

    That is the scene that vlmrl.collect wrote down, else the environment that the dataset can recover, else none.
    """
    assert settings.dataset is not None
    if Path(settings.dataset).exists():
        settings = replace(settings, dataset=str(Path(settings.dataset).resolve()))
    if settings.env.name != NO_ENV:
        return settings
    own = dataset.metadata.get(OURS, {})
    if own.get("env", {}).get("name", NO_ENV) != NO_ENV:
        task = typed(TaskConfig, own["task"], "task") if settings.task.name == NO_TASK else settings.task
        return replace(settings, env=typed(EnvConfig, own["env"], "env"), task=task)
    try:
        env = dataset.recover_environment()
    except UserError as error:
        if console is not None:
            console.print(f"No environment to measure in: {error}", highlight=False)
        return settings
    spec = env.spec
    env.close()
    if spec is None or spec.id not in gym.registry:
        if console is not None:
            console.print("No environment to measure in: that of the dataset is not registered here.")
        return settings
    return replace(settings, env=EnvConfig("gym", spec.id, dict(spec.kwargs), max_episode_steps=spec.max_episode_steps))


def _train(
    settings: TrainConfig, recordings: Recordings, parts: Parts | None, device: str, console: Console
) -> RunFolder:
    dataset = recordings.dataset
    assert dataset.observation_space is not None and dataset.action_space is not None  # `transitions` has seen to it
    if parts is not None:
        observation_space, action_space = spaces(parts.env)
    else:
        observation_space, action_space = dataset.observation_space, dataset.action_space
    agent = settings.agent.config
    if not settings.resume:
        model: OfflineAlgorithm = agent.build(observation_space, action_space, settings.seed, device)
        model.set_dataset(recordings.data)
        folder = create(Path(settings.run_dir), settings)
        folder.dataset.write_text(json.dumps(recordings.summary(), indent=2) + "\n")
        model.save(folder.untrained)
    else:
        folder = RunFolder(Path(settings.run_dir))
        _check_same(folder, recordings)
        model = restore(agent.algorithm(), checkpoints.newest(folder.checkpoints), device)
        model.set_dataset(recordings.data)
    _announce(console, settings, recordings, folder, model, parts, device)
    point_last(folder, folder.path.parent.parent)  # from now on: it is the run that one looks at, labels, resumes
    seconds, updates = _learn(model, settings, folder, console)

    results: dict[str, Episodes] = {}
    clip = None
    if parts is not None:
        policies: dict[str, Policy] = {
            "trained": agent.algorithm().load(folder.model, device=device),
            "untrained": agent.algorithm().load(folder.untrained, device=device),
            "random": RandomPolicy(action_space, settings.seed),
            "zero": ZeroPolicy(action_space),
        }
        results, clip = measure_policies(settings, parts, folder, policies, console)
    _report(console, settings, folder, recordings, results, model, updates / max(seconds, 1e-9), clip)
    return folder


def _check_same(folder: RunFolder, recordings: Recordings) -> None:
    """Refuse to go on with other data than the run began with.

    Raises:
        UserError: The dataset has changed, or the run folder does not say what it was.
    """
    if not folder.dataset.is_file():
        raise UserError(f"The run '{folder.path}' holds no {folder.dataset.name}: it ended before it began to learn.")
    if json.loads(folder.dataset.read_text())["sha256"] != recordings.digest:
        raise UserError(
            f"The dataset '{recordings.dataset.spec}' has changed since the run '{folder.path}' began, so the run "
            "cannot go on as if nothing had happened. Start a new one."
        )


def _learn(model: OfflineAlgorithm, settings: TrainConfig, folder: RunFolder, console: Console) -> tuple[float, int]:
    """Train and save, whatever ends training; return the seconds and updates that it took."""
    started, before = time.monotonic(), model.num_timesteps
    suffix = f"_{before}" if before else ""
    # SB3's own `configure` would overwrite the table of a run that goes on.
    outputs = [CSVOutputFormat(str(folder.path / f"progress{suffix}.csv")), TensorBoardOutputFormat(str(folder.path))]
    model.set_logger(Logger(str(folder.path), outputs))
    interrupt = StopOnInterrupt()
    try:
        model.learn(
            settings.total_timesteps - before,
            callback=[interrupt, OfflineCheckpoints(folder.checkpoints, settings.checkpoint_every)],
            log_interval=settings.log_interval,
            reset_num_timesteps=before == 0,
            progress_bar=settings.progress_bar and sys.stderr.isatty(),
        )
        if interrupt.stopped:
            console.print(f"Stopped at update {model.num_timesteps:,}; saving what was learned.")
        save(model, folder.checkpoints)
    except KeyboardInterrupt:
        console.print(f"Interrupted at update {model.num_timesteps:,}; the last checkpoint stays as it is.")
    finally:
        model.save(folder.model)
        model.logger.close()
    return time.monotonic() - started, model.num_timesteps - before


def _announce(
    console: Console,
    settings: TrainConfig,
    recordings: Recordings,
    folder: RunFolder,
    model: OfflineAlgorithm,
    parts: Parts | None,
    device: str,
) -> None:
    summary = recordings.summary()
    console.print(
        f"agent [bold]{settings.agent.name}[/] · {settings.total_timesteps:,} updates of {model.batch_size} "
        f"transitions · seed {settings.seed} · {device}"
    )
    if settings.resume:
        console.print(f"going on from update {model.num_timesteps:,}")
    returns = summary["return"]
    console.print(
        f"dataset: {summary['dataset']}: {summary['episodes']:,} episodes, {summary['transitions']:,} transitions "
        f"({in_words(model.data_bytes)} on {device}), returns {returns['min']:.4g} to {returns['max']:.4g}, "
        f"mean {returns['mean']:.4g}",
        soft_wrap=True,
        highlight=False,
    )
    for line in model.describe():
        console.print(line, highlight=False)
    if parts is None:
        console.print("measured in: no environment; the policy is saved, and nothing says how good it is")
    else:
        console.print(
            f"measured in: {settings.env.name}, task {settings.task.name}, reward {settings.reward.name}",
            highlight=False,
        )
    console.print(
        f"run: {shown(folder.path)}   (curves: tensorboard --logdir {shown(folder.path.parent.parent)})", soft_wrap=True
    )


def _report(
    console: Console,
    settings: TrainConfig,
    folder: RunFolder,
    recordings: Recordings,
    results: dict[str, Episodes],
    model: OfflineAlgorithm,
    speed: float,
    clip: Path | None,
) -> None:
    """Print the table and write `result.json`."""
    summaries = {name: episodes.summary() for name, episodes in results.items()}
    result = {
        "steps": model.num_timesteps,
        "steps_per_second": round(speed, 1),
        "policies": summaries,
        "data": recordings.summary(),
    }
    folder.result.write_text(json.dumps(result, indent=2) + "\n")
    if summaries:
        console.print(
            results_table(summaries, f"{counted(settings.eval_episodes, 'episode')} each, mean and 95 % interval")
        )
        if all("success" not in summary for summary in summaries.values()):
            console.print("no predicate: nothing but rewards says how well this went")
    console.print(f"trained for {model.num_timesteps:,} updates, {speed:.0f} a second")
    print_paths(console, {"run": folder.path, "model": folder.model, "clip": clip, "log": folder.path / "progress.csv"})
    if not summaries:
        console.print(
            f"measure it: {python_command()} -m vlmrl.evaluate env=<name> policy={shown(folder.model)}", soft_wrap=True
        )
