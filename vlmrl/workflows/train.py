"""Train an agent on a reward in words, and show what it learned."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from vlmrl.envs.shaping import PotentialShaping, RewardBonus, Shaping, potential_caveat
from vlmrl.errors import UserError
from vlmrl.reward_models.base import awaits_end, is_learned
from vlmrl.workflows.build import Parts
from vlmrl.workflows.config.scene import NO_TASK
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.learned_rewards import make_judge, make_listener, open_learning
from vlmrl.workflows.policies import ZeroPolicy
from vlmrl.workflows.rollouts import Policy, RandomPolicy
from vlmrl.workflows.run_folder import RunFolder, create, point_last
from vlmrl.workflows.training import (
    announce,
    audit_reward,
    check_longer,
    measure_policies,
    print_audit,
    report,
    run_training,
)


def train(settings: TrainConfig) -> RunFolder:
    """Train, save, and compare the trained policy with the untrained one, random actions and none.

    Everything that a user can get wrong is found before the run folder is made. Ctrl-C ends training early; what was
    learned until then is saved and measured like the rest.

    Args:
        settings: Settings of the run; `run_dir` is its folder.

    Returns:
        The run folder, with `model.zip` and `result.json`.

    Raises:
        UserError: A part cannot be had or does not fit the others, or a run that was to go on cannot.
    """
    if settings.resume:
        check_longer(settings, checkpoints.newest(RunFolder(Path(settings.run_dir)).checkpoints).step)
    return run_training(settings, _train)


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
        details = _details(settings, parts, model, retained)
        announce(console, settings, parts, folder, device, model.num_timesteps, details)
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
    results, clip = measure_policies(settings, parts, folder, policies, console)
    more = {**({"audit": audited.plain()} if audited is not None else {}), "hacking": probe.events, **asked}
    report(console, settings, folder, results, model.num_timesteps, steps / seconds, clip, more)
    return folder


def _probe(parts: Parts, settings: TrainConfig) -> dict[str, np.ndarray]:
    """Take one step and reward it, so that a broken environment, renderer or encoder shows before anything is made.

    Returns:
        What a reward model that learns keeps of it, {name: (1, ...)}.

    Raises:
        UserError: The agent cannot learn here, or with this reward.
    """
    retained: dict[str, np.ndarray] = {}
    rewards = parts.rewards(shaping=_shaping(settings))
    env = make_vec_env(parts.env, rewards, 1, settings.seed, end_episodes=False)
    check_spaces = getattr(settings.agent.config, "check_spaces", None)
    try:
        if check_spaces is not None:
            check_spaces(env.observation_space, env.action_space)
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


def _model(
    settings: TrainConfig, folder: RunFolder, env: Any, device: str, companions: Sequence[checkpoints.Companion]
) -> BaseAlgorithm:
    """Make the algorithm, or load it where the run stopped.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    if not settings.resume:
        model: BaseAlgorithm = settings.agent.config.build(env, settings.seed, device)
        model.save(folder.untrained)
        suffix = ""
    else:
        checkpoint = checkpoints.newest(folder.checkpoints)
        model = checkpoints.restore(settings.agent.config.algorithm(), checkpoint, env, device, companions)
        suffix = f"_{model.num_timesteps}"
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


def _details(
    settings: TrainConfig, parts: Parts, model: BaseAlgorithm, retained: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Say in lines what is seen, what becomes of the rewards, and what the replay takes."""
    if parts.encoder is not None:
        yield (
            f"encoder: {parts.encoder.name}, pictures of {parts.env.width} x {parts.env.height} "
            f"from {'cameras' if len(parts.env.task.cameras) > 1 else 'camera'} {' and '.join(parts.env.task.cameras)}"
        )
    if parts.env.score_every > 1:
        yield f"every {parts.env.score_every} steps a picture is scored; between them: {settings.between}"
    shaped = "the task" if settings.task.name != NO_TASK else "the environment"
    if settings.use_as == "bonus":
        yield f"the model's reward is added to that of {shaped}, with weight {settings.shaping_weight}"
    if settings.use_as == "potential":
        yield (
            f"the model's reward is a potential that shapes the reward of {shaped}: gamma {settings.gamma}, "
            f"weight {settings.shaping_weight}"
        )
        if caveat := potential_caveat(parts.model):
            yield f"note: {caveat}"
    if parts.model.requires_sync:
        yield "success ends the episode in training; rewards are 0 and 1, and not scaled"
    size = _replay_size(settings, model.get_env(), retained)
    if size is None:
        return
    memory = machine_bytes()
    of = f" of this machine's {in_words(memory)}" if memory is not None else ""
    warning = "; agent.buffer_size makes it smaller" if memory is not None and size > memory / 2 else ""
    yield f"replay buffer: {in_words(size)}{of} when it is full{warning}"
    if on_disk := settings.agent.config.buffer_size * retained_bytes(retained)[1]:
        yield f"pictures for the reward model: {in_words(on_disk)} in {tempfile.gettempdir()} (TMPDIR)"
