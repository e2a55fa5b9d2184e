"""Train with sample-factory, whose processes reward steps where they take them, and show what was learned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from vlmrl.agents.annotations import STATE, Annotations
from vlmrl.agents.appo.config import require_sample_factory
from vlmrl.agents.appo.labels import PublishedScores
from vlmrl.agents.appo.options import factory_options, factory_settings
from vlmrl.agents.appo.policy import AppoPolicy, has_checkpoint, newest_checkpoint, steps_of
from vlmrl.agents.appo.shared import StepClock
from vlmrl.agents.appo.training import Progress, Training
from vlmrl.agents.appo.watchdog import TrainingFailed
from vlmrl.agents.appo.workers import EnvMaker, ModelReward, quiet
from vlmrl.agents.callbacks import progress_header, progress_line
from vlmrl.reward_models.base import is_learned
from vlmrl.workflows.build import Parts
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.learned_rewards import make_judge
from vlmrl.workflows.policies import ZeroPolicy
from vlmrl.workflows.report import python_command, shown
from vlmrl.workflows.rollouts import Policy, RandomPolicy
from vlmrl.workflows.run_folder import RunFolder, create, point_last
from vlmrl.workflows.text_labels import open_annotations
from vlmrl.workflows.training import (
    announce,
    audit_reward,
    check_longer,
    measure_policies,
    print_audit,
    report,
    run_training,
)

LINES = 20  # printed over a run


def train_appo(settings: TrainConfig) -> RunFolder:
    """Train, save, and compare the trained policy with the untrained one, random actions and none.

    Everything that a user can get wrong is found before the run folder is made. Ctrl-C ends training early; what was
    learned until then is saved and measured like the rest.

    Args:
        settings: Settings of the run; `run_dir` is its folder.

    Returns:
        The run folder, with `model.zip` and `result.json`.

    Raises:
        UserError: sample-factory is not installed, or cannot train this.
        TrainingFailed: A process of the run died or hangs.
    """
    require_sample_factory()
    quiet()
    check_longer(settings, _steps_done(settings))
    return run_training(settings, _train)


def _train(settings: TrainConfig, parts: Parts, device: str, console: Console) -> RunFolder:
    path = Path(settings.run_dir).absolute()
    done = _steps_done(settings)
    observation_space, action_space = _probe(parts, settings, path)
    options = factory_options(
        settings.agent.config, observation_space, path, settings.n_envs, settings.total_timesteps, settings.seed, device
    )
    judge = make_judge(settings, parts, device)
    folder = RunFolder(path) if settings.resume else create(path, settings)
    audited = audit_reward(settings, parts, console)
    annotations = open_annotations(settings, parts, judge, folder, []) if settings.learns_from == "texts" else None
    try:
        labels = _labels(parts, annotations, folder, bool(settings.resume))
        announce(console, settings, parts, folder, device, done, _details(settings))
        point_last(folder, folder.path.parent.parent)  # from now on: it is the run that one looks at, labels, resumes
        print_audit(console, settings, audited)
        policy = AppoPolicy(vars(factory_settings(options)), observation_space, action_space, device)
        if not settings.resume:
            _untrained(settings, policy, folder)
        seconds = _learn(settings, parts, folder, options, policy, labels, done, console)
        asked = {annotations.topic: annotations.summary()} if annotations is not None else {}
    finally:
        if annotations is not None:
            annotations.close()
        if is_learned(parts.model):
            parts.model.save(folder.reward_model)

    policies: dict[str, Policy] = {
        "trained": policy,
        "untrained": AppoPolicy.load(folder.untrained, device),
        "random": RandomPolicy(action_space, settings.seed),
        "zero": ZeroPolicy(action_space),
    }
    results, clip = measure_policies(settings, parts, folder, policies, console)
    speed = (policy.num_timesteps - done) / max(seconds, 1e-9)
    more = asked | ({"audit": audited.plain()} if audited is not None else {})
    report(console, settings, folder, results, policy.num_timesteps, speed, clip, more)
    return folder


def _steps_done(settings: TrainConfig) -> int:
    """Return the steps of the checkpoint that a run goes on from, 0 for a new run.

    Raises:
        UserError: It is to go on and has no checkpoint.
    """
    return steps_of(newest_checkpoint(Path(settings.run_dir).absolute())) if settings.resume else 0


def _probe(parts: Parts, settings: TrainConfig, path: Path) -> tuple[gym.Space, gym.Space]:
    """Take one step and reward it, so that a broken environment shows before anything is made; return its spaces."""
    maker = EnvMaker(parts.env, ModelReward(parts.model), settings.seed, 0, path, path, StepClock(1))
    env = maker.probe()
    try:
        env.reset()
        env.step(env.action_space.sample())
        return env.observation_space, env.env.action_space
    finally:
        env.close()


def _labels(parts: Parts, annotations: Annotations | None, folder: RunFolder, resumed: bool) -> PublishedScores | None:
    """Publish what the reward model thinks of texts, where it is one of texts."""
    if annotations is None:
        return None
    if resumed and (folder.checkpoints / STATE).is_file():
        annotations.restore(folder.checkpoints)
    model: Any = parts.model
    return PublishedScores(model, annotations)


def _untrained(settings: TrainConfig, policy: AppoPolicy, folder: RunFolder) -> None:
    """Save the policy as sample-factory begins with it."""
    policy.draw(settings.seed)
    policy.save(folder.untrained)


def _learn(
    settings: TrainConfig,
    parts: Parts,
    folder: RunFolder,
    options: dict[str, Any],
    policy: AppoPolicy,
    labels: PublishedScores | None,
    done: int,
    console: Console,
) -> float:
    """Train and save, whatever ends training; return the seconds that it took."""
    # SB3's own `configure` would overwrite the table of a run that goes on.
    table = CSVOutputFormat(str(folder.path / f"progress{f'_{done}' if done else ''}.csv"))
    logger = Logger(str(folder.path), [table, TensorBoardOutputFormat(str(folder.path))])
    maker = EnvMaker(
        parts.env,
        labels.reward if labels is not None else ModelReward(parts.model),
        settings.seed,
        first_episode=done,  # no start that the run has seen before
        monitor=folder.monitor,
        notes=folder.checkpoints / "errors",
        clock=StepClock(settings.n_envs),
        feed=labels.feed if labels is not None else None,
    )
    training = Training(
        options,
        maker,
        logger,
        labels,
        settings.log_interval,
        settings.checkpoint_every,
        settings.agent.config.timeout_s,
        _Lines(settings.total_timesteps, done, console),
    )
    started = time.monotonic()
    try:
        training.run()
        if training.interrupted:
            console.print(f"Stopped at step {training.progress.steps:,}; what was learned is saved.")
    except KeyboardInterrupt:
        if not has_checkpoint(folder.path):
            raise
        console.print(f"Interrupted at step {training.progress.steps:,}; the last checkpoint stays as it is.")
    except TrainingFailed as error:
        go_on = "There is no checkpoint yet (checkpoint_every)."
        if has_checkpoint(folder.path):
            resume = f"{python_command()} -m vlmrl.train resume={shown(folder.path)}"
            go_on = f"What was learned until the last checkpoint is saved. To go on from it: {resume}"
        raise TrainingFailed(f"{error} {go_on}") from error
    finally:
        logger.close()
        if labels is not None:
            labels.close()
        if has_checkpoint(folder.path):
            policy.take_checkpoint(folder.path).save(folder.model)
    return time.monotonic() - started


class _Lines:
    """Prints now and then how training stands."""

    def __init__(self, total: int, done: int, console: Console):
        self._every = (total - done) / LINES
        self._next = done + self._every
        self._console = console
        self._console.print(progress_header(), highlight=False)

    def __call__(self, progress: Progress) -> None:
        if progress.steps < self._next:
            return
        while self._next <= progress.steps:
            self._next += self._every
        names = ("ep_rew_mean", "ep_vlm_rew_mean", "predicate_fraction")
        figures = [progress.values(f"rollout/{name}") for name in names]
        self._console.print(progress_line(progress.steps, *figures), highlight=False)


def _details(settings: TrainConfig) -> Iterator[str]:
    """Say in lines what is not as with other agents."""
    yield "rewards are given where steps are taken, as they are: standardize= and centre= mean nothing here" + (
        ", agent.normalize_returns scales returns" if settings.agent.config.normalize_returns else ""
    )
    if settings.learns_from == "texts":
        yield "a label that comes after a step counts from the next time on that its text is said, not for that step"
