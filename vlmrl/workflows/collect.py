"""Record episodes of policies as a dataset."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console

from vlmrl.datasets.base import STATE, Episode, Frames
from vlmrl.datasets.writers import WRITERS, Recording, Writer
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.seeded_episodes import episode_seed
from vlmrl.rows import Row
from vlmrl.workflows.build import resolve_device
from vlmrl.workflows.config.collect import CollectConfig
from vlmrl.workflows.config.scene import SceneConfig
from vlmrl.workflows.evaluate import open_run, spaces
from vlmrl.workflows.policies import open_policy
from vlmrl.workflows.report import counted, make_console, placed, python_command, shown, tracked
from vlmrl.workflows.rollouts import Policy, batch_of_one
from vlmrl.workflows.run_folder import create, find, versions

ENV_REWARD = "env_reward"  # what the environment itself gave, where the reward is a task's truth


def collect(settings: CollectConfig) -> Path:
    """Record episodes, one after the other, and return where the dataset is.

    An interrupted recording (Ctrl-C) keeps the episodes that were complete.

    Args:
        settings: Says who acts where; `run_dir` is the folder for what was asked.

    Raises:
        UserError: The name is taken, a policy cannot be had, or the environment cannot be recorded.
    """
    console = make_console()
    writer: Writer = WRITERS.load(settings.format)(settings.out)  # first: nobody wants to hear of it at the end
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    scene, env_settings, policies = _gather(settings, device)
    env = _recorded_env(env_settings, settings)
    try:
        writer.start(_recording(env, env_settings, scene, settings, list(policies)))  # says what its form cannot hold
        create(Path(settings.run_dir), settings)
        done, successes, steps, started = 0, 0, 0, time.monotonic()
        bar = tracked(total=settings.episodes, desc="recording", unit="episode", show=settings.progress_bar)
        try:
            for episode in _episodes(env, policies, settings):
                writer.add(episode)
                done, steps = done + 1, steps + episode.length
                successes += bool(episode.infos.get("is_success", np.zeros(1))[-1])
                bar.update()
        except KeyboardInterrupt:
            if done == 0:
                raise
            console.print(f"Interrupted; {counted(done, 'complete episode')} kept.")
        bar.close()
        writer.finish()
    finally:
        env.close()
    _report(console, settings, writer, done, steps, successes, env_settings, time.monotonic() - started)
    return writer.path


def _gather(settings: CollectConfig, device: str) -> tuple[SceneConfig, EnvSettings, dict[str, Policy]]:
    """Return where policies act, and the policies by name."""
    policies: dict[str, Policy] = {}
    if settings.run is not None:
        folder = find(settings.run)
        scene: SceneConfig
        scene, parts, model = open_run(folder, device)
        parts.close()
        env = parts.env
        policies[shown(folder.path)] = model
    else:
        assert settings.scene is not None
        scene = settings.scene
        env = _env_settings(scene, settings.frames, device)
    observation_space, action_space = spaces(env)
    for name in settings.policy:
        policies[name] = open_policy(
            name,
            observation_space,
            action_space,
            settings.algorithm,
            device,
            settings.seed,
            scene.env.name,
            scene.task.name,
        )
    return scene, replace(env, score_every=1), policies


def _env_settings(scene: SceneConfig, frames: bool, device: str) -> EnvSettings:
    """Say which environment to build; its pictures have the size that the encoder likes, unless they have their own."""
    height, width = scene.env.height, scene.env.width
    if frames and (height is None or width is None):
        encoder = scene.encoder.config.build(device)
        height, width = height or encoder.image_size[0], width or encoder.image_size[1]
    return EnvSettings(
        id=scene.env.id,
        task=scene.make_task(),
        height=height or 224,
        width=width or 224,
        profile=scene.env.profile,
        max_episode_steps=scene.env.max_episode_steps,
        kwargs=scene.env.kwargs,
    )


def _recorded_env(env: EnvSettings, settings: CollectConfig) -> gym.Env:
    """Build the environment with rows that hold what is recorded."""
    fields = {"observation"} | ({"frames"} if settings.frames else set())
    if settings.state:
        plain = make_env(env)
        if hasattr(plain.unwrapped, "simulator_state"):
            fields.add("state")
        plain.close()
    return make_env(env, fields)


def _recording(
    env: gym.Env, env_settings: EnvSettings, scene: SceneConfig, settings: CollectConfig, policies: list[str]
) -> Recording:
    """Say what all episodes share. What comes from where is among it, so that the dataset explains itself."""
    fps = env.metadata.get("render_fps")
    metadata = {
        "env": asdict(scene.env),
        "task": asdict(scene.task),
        "cameras": list(env_settings.task.cameras) if settings.frames else [],
        "collect": {
            "policies": policies,
            "random_actions": settings.random_actions,
            "deterministic": settings.deterministic,
            "seed": settings.seed,
        },
        "versions": versions(),
    }
    spec = env.unwrapped.spec
    return Recording(
        observation_space=env.observation_space,
        action_space=env.action_space,
        fps=float(fps) if fps else None,
        text=env_settings.task.goal,
        env_spec=spec,
        metadata=metadata,
        description=f"{scene.env.name}, task {scene.task.name}, policies: {', '.join(policies)}; made by vlmrl.collect",
        frame_size=(env_settings.height, env_settings.width) if settings.frames else None,
    )


def _episodes(env: gym.Env, policies: Mapping[str, Policy], settings: CollectConfig) -> Iterator[Episode]:
    """Let the policies act, in turn, and yield each episode when it is complete."""
    draws = np.random.default_rng(settings.seed)
    env.action_space.seed(settings.seed)
    torch.manual_seed(settings.seed)  # of the noise that policies make
    names = list(policies)
    for number in range(settings.episodes):
        index = number % len(names)
        yield _record(env, policies[names[index]], number, index, settings, draws)


def _record(
    env: gym.Env, policy: Policy, number: int, index: int, settings: CollectConfig, draws: np.random.Generator
) -> Episode:
    """Record one episode."""
    seed = episode_seed(settings.seed, 0, number)
    observation, info = env.reset(seed=seed)
    rows: list[Row] = [info[ROW]]
    steps: list[dict[str, Any]] = []
    state, first, over = None, True, False
    while not over:
        chosen, state = policy.predict(
            batch_of_one(observation), state, np.array([first]), deterministic=settings.deterministic
        )
        action = chosen[0]
        # The draw is made in any case: so a share of 0.3 changes those actions of a share of 0.2 that it must.
        at_random = draws.random() < settings.random_actions
        if at_random:
            action = np.asarray(env.action_space.sample())
        observation, reward, terminated, truncated, info = env.step(action)
        first, over = False, terminated or truncated
        rows.append(info[ROW])
        steps.append(
            {"action": action, "reward": float(reward), "terminated": terminated, "truncated": truncated} | info
        )
    infos: dict[str, Any] = {
        ENV_REWARD: np.array([step["original_reward"] for step in steps]),
        "policy": np.full(len(steps), index, dtype=np.int64),  # its number in the list of the metadata
    }
    if "predicate" in steps[-1]:
        infos["predicate"] = np.array([step["predicate"] for step in steps], dtype=bool)
        infos["is_success"] = np.zeros(len(steps), dtype=bool)
        infos["is_success"][-1] = steps[-1]["is_success"]
    if rows[0].state is not None:
        infos[STATE] = {name: np.stack([row.state[name] for row in rows]) for name in rows[0].state}  # type: ignore[index]
    frames = {}
    if rows[0].frames is not None:
        for camera in rows[0].frames:
            pictures = [row.frames[camera] for row in rows]  # type: ignore[index]
            frames[camera] = Frames(len(pictures), partial(iter, pictures))
    space = env.action_space
    return Episode(
        id=number,
        length=len(steps),
        observations=_stacked([row.observation for row in rows]),
        actions=np.stack([np.asarray(step["action"], dtype=space.dtype) for step in steps]),
        rewards=np.array([step["reward"] for step in steps], dtype=np.float64),
        terminations=np.array([step["terminated"] for step in steps], dtype=bool),
        truncations=np.array([step["truncated"] for step in steps], dtype=bool),
        infos=infos,
        frames=frames,
        fps=env.metadata.get("render_fps"),
        metadata={"seed": seed},
    )


def _stacked(observations: list[Any]) -> Any:
    """Stack observations, or each part of dicts of them."""
    if isinstance(observations[0], Mapping):
        return {name: _stacked([one[name] for one in observations]) for name in observations[0]}
    return np.stack(observations)


def _report(
    console: Console,
    settings: CollectConfig,
    writer: Writer,
    episodes: int,
    steps: int,
    successes: int,
    env: EnvSettings,
    seconds: float,
) -> None:
    """Say what there is now, and what to do with it."""
    told = f", {successes} of them successful" if env.task.predicate is not None else ""
    console.print(
        f"{counted(episodes, 'episode')}{told}, {counted(steps, 'step')}, {steps / max(seconds, 1e-9):.0f} a second",
        highlight=False,
    )
    console.print(f"dataset: {placed(settings.out, writer.path)}", soft_wrap=True, highlight=False)
    if settings.frames:
        console.print(
            f"rewards in words: {python_command()} -m vlmrl.relabel dataset={settings.out} reward=clip out=<id>",
            soft_wrap=True,
            highlight=False,
        )
