"""Measure finished runs again, and policies from outside in the same way: side by side, from the same starts."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm

from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.errors import UserError
from vlmrl.reward_models.base import is_learned
from vlmrl.workflows.build import Parts, build_parts, resolve_device
from vlmrl.workflows.config.evaluate import EvaluateConfig
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.evaluate_trials import print_comparison
from vlmrl.workflows.policies import SampledPolicy, as_policy, open_policy
from vlmrl.workflows.report import counted, doing, letters, make_console, print_measuring, results_table, shown
from vlmrl.workflows.rollouts import Episodes, Policy, measure, record_grid
from vlmrl.workflows.run_folder import RunFolder, create, find
from vlmrl.workflows.trials import Trial, Trials, as_trials


@dataclass(frozen=True)
class Contender:
    """A policy that is measured.

    Attributes:
        name: Path of its run, or what the person calls it.
        policy: Acts.
        parts: Its environment and reward model.
    """

    name: str
    policy: Policy
    parts: Parts


def evaluate(settings: EvaluateConfig, policies: Mapping[str, Any] | None = None) -> dict[str, Episodes]:
    """Measure policies: those of runs, each in its own environment and with its own reward model, and others.

    Everything that a person can name wrongly is found before anything is measured.

    Args:
        settings: Says which policies and how many episodes; `run_dir` is the folder for `result.json`.
        policies: {name: policy} for names in `settings.policy` that stand for objects of the calling program: a
            function from observation to action, or an object with a method `predict`.

    Returns:
        {run or policy: its episodes}.

    Raises:
        UserError: A folder holds no finished run, a policy cannot be had or does not fit its environment.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    contenders = gather(settings, policies or {}, resolve_device(settings.device))
    results: dict[str, Episodes] = {}
    try:
        folder = create(Path(settings.run_dir), settings)
        for _, group in itertools.groupby(contenders, key=lambda contender: id(contender.parts)):
            together = list(group)
            print_measuring(console, settings.episodes, (contender.name for contender in together))
            results |= measure(
                {contender.name: contender.policy for contender in together},
                together[0].parts,
                settings.episodes,
                settings.n_envs,
                settings.seed,
                settings.progress_bar,
            )
    finally:
        for parts in {id(contender.parts): contender.parts for contender in contenders}.values():
            parts.close()
    _report(console, settings, folder, results, {contender.name: contender.parts for contender in contenders})
    if settings.video:
        clip = Path(settings.video_dir) / f"evaluate_{folder.path.name}.mp4"
        columns = {
            letter: (contender.policy, contender.parts.env)
            for letter, contender in zip(letters(), contenders, strict=False)
        }
        with doing(console, "Filming…"):
            filmed = min(settings.video_episodes, settings.episodes)
            record_grid(columns, clip, filmed, settings.seed, settings.video_length)
        console.print(f"clip: {shown(clip)}", soft_wrap=True)
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True)
    return results


def gather(settings: EvaluateConfig, policies: Mapping[str, Any], device: str) -> list[Contender]:
    """Load every run and policy that is to be measured; each name once.

    Raises:
        UserError: See `evaluate`.
    """
    found: dict[str, Contender] = {}
    scene = settings.scene
    for folder in map(find, settings.runs):
        run, parts, model = open_run(folder, device)
        scene = scene or run
        policy: Policy = model if run.eval_deterministic else SampledPolicy(model, settings.seed)
        found.setdefault(shown(folder.path), Contender(shown(folder.path), policy, parts))
    if settings.policy:
        parts = build_parts(settings.scene, device) if settings.scene is not None else next(iter(found.values())).parts
        observation_space, action_space = spaces(parts.env)
        assert scene is not None  # `EvaluateConfig` has seen to it
        for name in settings.policy:
            if name in policies:
                policy = as_policy(name, policies[name], action_space)
            else:
                policy = open_policy(
                    name,
                    observation_space,
                    action_space,
                    settings.algorithm,
                    device,
                    settings.seed,
                    scene.env.name,
                    scene.task.name,
                )
            found.setdefault(name, Contender(name, policy, parts))
    return list(found.values())


def spaces(settings: EnvSettings) -> tuple[gym.Space, gym.Space]:
    """Return what policies see and how they act in an environment."""
    env = make_env(settings)
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()


def open_run(folder: RunFolder, device: str) -> tuple[TrainConfig, Parts, BaseAlgorithm]:
    """Load settings, parts and trained policy of a run.

    Raises:
        UserError: The folder holds no run, or one that has not saved its policy.
    """
    settings = train_settings(folder.read_config())
    if not folder.model.is_file():
        raise UserError(
            f"The run '{folder.path}' holds no {folder.model.name}: it has not ended yet, or it failed. "
            f"Its log is {folder.path / 'progress.csv'}."
        )
    parts = build_parts(settings, device)
    if is_learned(parts.model) and folder.reward_model.is_file():  # it may never have been trained
        parts.model.load(folder.reward_model)
    return settings, parts, settings.agent.config.algorithm().load(folder.model, device=device)


def _report(
    console: Console,
    settings: EvaluateConfig,
    folder: RunFolder,
    results: dict[str, Episodes],
    parts: Mapping[str, Parts],
) -> None:
    """Print tables and verdicts, and write `result.json` and `episodes.csv`."""
    summaries = {name: episodes.summary() for name, episodes in results.items()}
    # Paths are too long for a table: letters stand for them, here and in the film.
    named = dict(zip(summaries, letters(), strict=False))
    for name, letter in named.items():
        console.print(f"{letter}: {name}", soft_wrap=True, highlight=False)
    console.print(
        results_table(
            {named[name]: summary for name, summary in summaries.items()},
            f"{counted(settings.episodes, 'episode')} each from seed {settings.seed}, mean and 95 % interval",
        )
    )
    first = next(iter(results))
    trials = {
        name: _as_trials(name, episodes)
        for name, episodes in results.items()
        if episodes.success and _what_is_measured(parts[name].env) == _what_is_measured(parts[first].env)
    }
    if first in trials:
        print_comparison(console, settings, folder, trials, named)
    folder.result.write_text(json.dumps(summaries, indent=2) + "\n")
    _write_episodes(folder.path / "episodes.csv", results, parts)


def _what_is_measured(settings: EnvSettings) -> tuple[Any, ...]:
    """Return what must be equal for success to mean the same."""
    task = settings.task
    return settings.id, task.name, task.rule, task.fraction, task.start, settings.max_episode_steps, settings.kwargs


def _as_trials(name: str, episodes: Episodes) -> Trials:
    return as_trials(
        [
            Trial(name, "", str(origin), float(success), score=fraction)
            for origin, success, fraction in zip(episodes.origin, episodes.success, episodes.fraction, strict=True)
        ]
    )


def _write_episodes(path: Path, results: Mapping[str, Episodes], parts: Mapping[str, Parts]) -> None:
    """Write every episode into a table that `trials=` reads."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("policy", "task", "seed", "success", "score", "truth", "model_reward", "length"))
        for name, episodes in results.items():
            for i, origin in enumerate(episodes.origin):
                known = (bool(episodes.success[i]), episodes.fraction[i]) if episodes.success else ("", "")
                table.writerow(
                    (
                        name,
                        parts[name].env.task.name,
                        origin,
                        *known,
                        episodes.truth[i],
                        episodes.model_reward[i],
                        episodes.length[i],
                    )
                )
