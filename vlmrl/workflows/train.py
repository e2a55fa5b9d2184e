"""Train an agent on a reward in words, and show what it learned."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from vlmrl.agents import checkpoints
from vlmrl.agents.buffers import check_hindsight
from vlmrl.agents.callbacks import RewardLog, StopOnInterrupt
from vlmrl.agents.hacking_probe import HackingProbe
from vlmrl.agents.keep_best import KeepBest
from vlmrl.agents.memory import in_words, machine_bytes, replay_bytes, retained_bytes
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.make import make_vec_env
from vlmrl.envs.shaping import PotentialShaping, RewardBonus, Shaping
from vlmrl.errors import UserError
from vlmrl.reward_models.base import awaits_end, is_learned, scores_clips
from vlmrl.workflows.audit.preflight import Preflight, preflight, preflight_line
from vlmrl.workflows.audit.results import Audited
from vlmrl.workflows.audit.run import short_audit, verdict_line
from vlmrl.workflows.build import Parts, build_parts, resolve_device, settled
from vlmrl.workflows.config.audit import AUDIT_SCENE_KEYS
from vlmrl.workflows.config.scene import NO_TASK
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.learned_rewards import described, make_judge, make_listener, open_learning
from vlmrl.workflows.policies import SampledPolicy, ZeroPolicy
from vlmrl.workflows.report import make_console, print_paths, python_command, results_table, shown
from vlmrl.workflows.rollouts import Episodes, Policy, RandomPolicy, measure, record_clip
from vlmrl.workflows.run_folder import RunFolder, create, point_last

# Evaluation starts from seeds that no training environment uses.
EVAL_SEED = 1_000_000


def train(settings: TrainConfig) -> RunFolder:
    """Train, save, and compare the trained policy with the untrained one, random actions and none.

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
    uses_encoder = settings.judge is not None and settings.asks_judge and settings.judge.config.uses_encoder
    parts = build_parts(settings, device, uses_encoder)
    try:
        return _train(settled(settings, parts.model), parts, device, console)
    finally:
        parts.close()


def _train(settings: TrainConfig, parts: Parts, device: str, console: Console) -> RunFolder:
    retained = _probe(parts, settings)
    judge = make_judge(settings, parts, device)

    folder = RunFolder(Path(settings.run_dir)) if settings.resume else create(Path(settings.run_dir), settings)
    if not settings.resume:
        folder.write(getattr(parts.model, "files", {}))
    audited = audit_reward(settings, parts, console)
    wait = parts.model.requires_sync
    rewards = parts.rewards(
        _scale(settings, parts), _shaping(settings), None if wait else settings.n_envs, make_listener(settings)
    )
    env = make_vec_env(parts.env, rewards, settings.n_envs, settings.seed, folder.monitor, wait)
    best = KeepBest(folder.best, truth=settings.use_as != "reward") if settings.keep == "best" else None
    probe = HackingProbe()
    rounds = open_learning(settings, parts, judge, rewards, folder, [probe.restart])
    companions: list[Any] = [entry for entry in (probe, best, rounds) if entry is not None]
    try:
        model = _model(settings, folder, env, device, companions)
        _announce(console, settings, parts, folder, model, device, retained)
        point_last(folder, folder.path.parent.parent)  # from now on: it is the run that one looks at, labels, resumes
        print_audit(console, settings, audited)
        seconds, steps = _learn(model, settings, rewards, folder, console, companions, best)
        asked = {rounds.topic: rounds.summary()} if rounds is not None else {}
    finally:
        env.close()
        if rounds is not None:
            rounds.close()
        if is_learned(parts.model):
            parts.model.save(folder.reward_model)

    policies: dict[str, Policy] = {
        "trained": settings.agent.config.algorithm().load(folder.model, device=device),
        "untrained": settings.agent.config.algorithm().load(folder.untrained, device=device),
        "random": RandomPolicy(model.action_space, settings.seed),
        "zero": ZeroPolicy(model.action_space),
    }
    if not settings.eval_deterministic:
        policies |= {name: SampledPolicy(policies[name], settings.seed) for name in ("trained", "untrained")}
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
    _report(console, settings, folder, results, model.num_timesteps, steps / seconds, clip, audited, probe, asked)
    return folder


def _probe(parts: Parts, settings: TrainConfig) -> dict[str, np.ndarray]:
    """Take one step and reward it, so that a broken environment, renderer or encoder shows before anything is made.

    Returns:
        What a reward model that learns keeps of it, {name: (1, ...)}.
    """
    retained: dict[str, np.ndarray] = {}
    rewards = parts.rewards(shaping=_shaping(settings))
    env = make_vec_env(parts.env, rewards, 1, settings.seed, end_episodes=False)
    try:
        env.reset()
        env.step(np.stack([env.action_space.sample()]))
        if awaits_end(parts.model):
            agent = settings.agent.config
            told = {key: getattr(agent, key) for key in ("learning_starts", "buffer_size") if hasattr(agent, key)}
            window = agent.n_steps if told else 1  # in an on-policy agent n_steps is the length of a rollout
            check_hindsight(env, agent.algorithm(), settings.n_envs, **told, window=window)
        env.leave()
        rewards.fill(env.keys, lambda where, columns: retained.update(columns))
        _check_memory(settings, env, retained)
    finally:
        env.close()
    return retained


def _scale(settings: TrainConfig, parts: Parts) -> RewardScale | None:
    """Return how the learner sees the rewards; None where it sees them as they are.

    A model that ends episodes says 1 for success and 0 elsewhere, and its rewards cannot wait for a first batch; one
    that `sets_scale` has settings for how large its rewards are.
    """
    if parts.model.requires_sync or getattr(parts.model, "sets_scale", False):
        return None
    return RewardScale(enabled=settings.standardize, centre=settings.centre)


def _shaping(settings: TrainConfig) -> Shaping | None:
    if settings.use_as == "bonus":
        return RewardBonus(settings.shaping_weight)
    return PotentialShaping(settings.gamma, settings.shaping_weight) if settings.use_as == "potential" else None


def _replay_size(settings: TrainConfig, env: Any, retained: Mapping[str, np.ndarray]) -> int | None:
    """Return what the agent's replay buffer takes when it is full, in bytes of memory; None where it has none."""
    buffer_size = getattr(settings.agent.config, "buffer_size", None)
    if buffer_size is None:
        return None
    own = replay_bytes(buffer_size, settings.n_envs, env.observation_space, env.action_space)
    return own + buffer_size * retained_bytes(retained)[0]


def _check_memory(settings: TrainConfig, env: Any, retained: Mapping[str, np.ndarray]) -> None:
    """Refuse a replay buffer that cannot become full here: the run would be killed hours later.

    Raises:
        UserError: It is larger than this machine's memory.
    """
    size, memory = _replay_size(settings, env, retained), machine_bytes()
    if size is not None and memory is not None and size > memory:
        fitting = int(settings.agent.config.buffer_size * memory / size / 2)
        raise UserError(
            f"A replay buffer of agent.buffer_size={settings.agent.config.buffer_size} transitions takes "
            f"{in_words(size)}, and this machine has {in_words(memory)}. agent.buffer_size={fitting} would take half."
        )


def audit_reward(settings: TrainConfig, parts: Parts, console: Console) -> Audited | Preflight | None:
    """Say whether the reward tells states of the task apart, before time is spent on it; None where it is not asked.

    A reward of clips cannot be told on states; of it is said whether it sees anything.
    """
    if not settings.audit or settings.resume:
        return None
    if scores_clips(parts.model):
        with console.status("Looking whether the reward sees anything…"):
            return preflight(parts.model, parts.env, settings.seed)
    try:
        with console.status("Auditing the reward…"):
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
        return
    console.print(f"audit of the reward: {verdict_line(audited)}", highlight=False)
    if audited.verdict is not None and audited.verdict.advice:
        scene = shlex.join(_scene_overrides(settings))
        console.print(f"look closer: {python_command()} -m vlmrl.audit {scene}", soft_wrap=True, markup=False)


def _scene_overrides(settings: TrainConfig) -> list[str]:
    """Return what of this command an audit of the same reward is given as well; a program is told the names alone."""
    given = {argument.partition("=")[0]: argument for argument in sys.argv[1:] if "=" in argument}
    kept = {key: argument for key, argument in given.items() if key.partition(".")[0] in AUDIT_SCENE_KEYS}
    named = {group: f"{group}={getattr(settings, group).name}" for group in ("env", "task", "reward")}
    return list((named | kept).values())


def _model(
    settings: TrainConfig, folder: RunFolder, env: Any, device: str, companions: Sequence[checkpoints.Companion]
) -> BaseAlgorithm:
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
        model = checkpoints.restore(settings.agent.config.algorithm(), checkpoint, env, device, companions)
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
    model: BaseAlgorithm,
    settings: TrainConfig,
    rewards: LazyRewards,
    folder: RunFolder,
    console: Console,
    companions: Sequence[Any],
    best: KeepBest | None,
) -> tuple[float, int]:
    """Train and save, whatever ends training; return the seconds and steps that it took."""
    started, before = time.monotonic(), model.num_timesteps
    max_steps = model.get_env().get_attr("spec")[0].max_episode_steps or 1000  # type: ignore[union-attr]
    interrupt = StopOnInterrupt()
    probes = [entry for entry in companions if isinstance(entry, HackingProbe)]
    listeners = [*(probe.add_return for probe in probes), *([best.add] if best is not None and not best.truth else [])]
    try:
        model.learn(
            settings.total_timesteps - before,
            callback=[
                interrupt,
                RewardLog(rewards, listeners=listeners),
                *companions,
                checkpoints.CheckpointCallback(folder.checkpoints, settings.checkpoint_every, max_steps, companions),
            ],
            log_interval=settings.log_interval,
            reset_num_timesteps=before == 0,
            progress_bar=settings.progress_bar,
        )
        if interrupt.stopped:
            console.print(f"Stopped at step {model.num_timesteps:,}; saving what was learned.")
        checkpoints.save_at_end(model, folder.checkpoints, companions)
    except KeyboardInterrupt:
        console.print(f"Interrupted at step {model.num_timesteps:,}; the last checkpoint stays as it is.")
    finally:
        _save(model, folder, best, console)
        model.logger.close()
    return time.monotonic() - started, model.num_timesteps - before


def _save(model: BaseAlgorithm, folder: RunFolder, best: KeepBest | None, console: Console) -> None:
    """Write `model.zip`: the policy as it is or, where the best one is kept, that, and `last.zip` beside it."""
    if best is None or best.best is None:
        model.save(folder.model)
        if best is not None:
            console.print(f"keep=best: fewer than {best.window} episodes were complete; the last policy is kept.")
        return
    model.save(folder.newest)
    shutil.copyfile(folder.best, folder.model)
    console.print(f"keep=best: the policy of step {best.at:,}, whose episodes earned {best.best:.2f} in training")


def _announce(
    console: Console,
    settings: TrainConfig,
    parts: Parts,
    folder: RunFolder,
    model: BaseAlgorithm,
    device: str,
    retained: Mapping[str, np.ndarray],
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
            f"from {'cameras' if len(parts.env.task.cameras) > 1 else 'camera'} {' and '.join(parts.env.task.cameras)}"
        )
    if parts.env.score_every > 1:
        console.print(f"every {parts.env.score_every} steps a picture is scored; between them: {settings.between}")
    shaped = "the task" if settings.task.name != NO_TASK else "the environment"
    if settings.use_as == "bonus":
        console.print(f"the model's reward is added to that of {shaped}, with weight {settings.shaping_weight}")
    if settings.use_as == "potential":
        console.print(
            f"the model's reward is a potential that shapes the reward of {shaped}: gamma {settings.gamma}, "
            f"weight {settings.shaping_weight}"
        )
    if parts.model.requires_sync:
        console.print("success ends the episode in training; rewards are 0 and 1, and not scaled")
    if summary := getattr(parts.model, "summary", ""):
        console.print(summary, highlight=False, soft_wrap=True, markup=False)
    if settings.learns_reward:
        for line in described(settings):
            console.print(line, highlight=False)
    size = _replay_size(settings, model.get_env(), retained)
    if size is not None:
        memory = machine_bytes()
        of = f" of this machine's {in_words(memory)}" if memory is not None else ""
        warning = "; agent.buffer_size makes it smaller" if memory is not None and size > memory / 2 else ""
        console.print(f"replay buffer: {in_words(size)}{of} when it is full{warning}")
        if on_disk := settings.agent.config.buffer_size * retained_bytes(retained)[1]:
            console.print(f"pictures for the reward model: {in_words(on_disk)} in {tempfile.gettempdir()} (TMPDIR)")
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
    audited: Audited | Preflight | None,
    probe: HackingProbe,
    asked: dict[str, Any],
) -> None:
    """Print the table and write `result.json`."""
    summaries = {name: episodes.summary() for name, episodes in results.items()}
    result: dict[str, Any] = {"steps": steps, "steps_per_second": round(speed, 1), "policies": summaries}
    if audited is not None:
        result["audit"] = audited.plain()
    result["hacking"] = probe.events
    result |= asked
    folder.result.write_text(json.dumps(result, indent=2) + "\n")
    console.print(results_table(summaries, f"{settings.eval_episodes} episodes each, mean and 95 % interval"))
    if all("success" not in summary for summary in summaries.values()):
        console.print("no predicate: nothing but the reward model says how well this went; look at the clip")
    console.print(f"trained for {steps:,} steps, {speed:.0f} a second")
    print_paths(console, {"run": folder.path, "model": folder.model, "clip": clip, "log": folder.path / "progress.csv"})
    longer = (
        f"{python_command()} -m vlmrl.train resume={shown(folder.path)} total_timesteps={4 * settings.total_timesteps}"
    )
    console.print(f"longer: {longer}", soft_wrap=True)
