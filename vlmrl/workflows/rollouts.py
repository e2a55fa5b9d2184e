"""Episodes of a policy: figures and clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import gymnasium as gym
import numpy as np

from vlmrl.envs.make import EnvSettings, make_env, make_vec_env
from vlmrl.stats import bootstrap_mean, clopper_pearson, interquartile_mean, interquartile_mean_interval, wilson
from vlmrl.workflows.build import Parts
from vlmrl.workflows.report import tracked


class Policy(Protocol):
    """Anything that acts; every SB3 algorithm does."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Return actions, (n_envs, ...), and a recurrent state or None."""
        ...


class RandomPolicy:
    """Uniformly random actions: a control.

    Args:
        action_space: Space to draw from.
        seed: Seed of the draws.
    """

    def __init__(self, action_space: gym.Space, seed: int):
        self._space = action_space
        self._space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Draw one action for each environment."""
        return np.stack([self._space.sample() for _ in range(count(observation))]), None


@dataclass
class Episodes:
    """What happened in n episodes.

    Attributes:
        truth: (n,) sums of the task's ground-truth reward.
        model_reward: (n,) sums of the reward model's rewards.
        fraction: (n,) share of steps at which the predicate held; empty without a predicate.
        success: (n,) bool; empty without a predicate.
        length: (n,) steps.
        start: (n,) how each episode started, such as "fallen"; empty where the environment does not say.
        origin: (n,) number of the start that each episode had; equal numbers of policies that were measured together
            are equal starts.
    """

    truth: list[float] = field(default_factory=list)
    model_reward: list[float] = field(default_factory=list)
    fraction: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return means with 95 % intervals (Wilson for success, bootstrap for the others), ready for JSON.

        Success has the exact interval of Clopper and Pearson as well, the truth its interquartile mean.

        Where episodes started in different ways, `by_start` has the same for each.
        """
        result: dict[str, Any] = {"episodes": len(self.truth)}
        for name in ("truth", "model_reward", "fraction"):
            values = getattr(self, name)
            if values:
                result[name] = {"mean": float(np.mean(values)), "interval": bootstrap_mean(np.array(values))}
        if self.success:
            wins = int(sum(self.success))
            n = len(self.success)
            result["success"] = {
                "mean": wins / n,
                "interval": wilson(wins, n),
                "clopper_pearson": clopper_pearson(wins, n),
            }
        if self.truth:
            truth = np.array(self.truth)
            strata = np.array(self.start) if self.start else None
            result["truth"]["iqm"] = {
                "mean": interquartile_mean(truth),
                "interval": interquartile_mean_interval(truth, strata),
            }
        starts = sorted(set(self.start))
        if len(starts) > 1:
            result["by_start"] = {start: self.started(start).summary() for start in starts}
        return result

    def started(self, start: str) -> Episodes:
        """Return the episodes that started in this way."""
        chosen = np.array(self.start) == start
        return Episodes(
            **{
                entry.name: [value for value, own in zip(getattr(self, entry.name), chosen, strict=True) if own]
                for entry in fields(self)
                if getattr(self, entry.name)  # some are empty
            }
        )


def run_episodes(policy: Policy, env: Any, n_episodes: int, label: str = "") -> Episodes:
    """Let a policy act, without exploration, until `n_episodes` are complete.

    Each environment contributes the same number of episodes, give or take one: taking whichever end first would favour
    short ones.

    Args:
        policy: Acts on the vector's observations.
        env: A `RewardVecEnv` made with `wait=False`; an episode's rewards are asked for when it is complete.
        n_episodes: Number of episodes, at least 1.
        label: Shown in a progress bar; none without it.
    """
    n_envs = env.num_envs
    quota = [n_episodes // n_envs + (i < n_episodes % n_envs) for i in range(n_envs)]
    episodes = Episodes()
    observations = env.reset()
    begun = [info.get("start") for info in env.venv.reset_infos]
    keys: list[list[np.ndarray]] = [[] for _ in range(n_envs)]  # of each running episode
    number = [0] * n_envs  # of each running episode, in its environment
    state, starts = None, np.ones(n_envs, dtype=bool)
    bar = tracked(total=n_episodes, desc=f"measuring {label}", unit="episode", show=bool(label), leave=False)
    while any(quota):
        actions, state = policy.predict(observations, state, starts, deterministic=True)
        observations, _, starts, infos = env.step(actions)
        for i in range(n_envs):
            keys[i].append(env.keys[i])
        for i in map(int, np.flatnonzero(starts)):
            total = float(env.rewards.fill(np.array(keys[i])).sum(dtype=np.float64))
            if quota[i]:
                quota[i] -= 1
                bar.update()
                episodes.truth.append(float(infos[i]["episode"]["r"]))
                episodes.length.append(int(infos[i]["episode"]["l"]))
                episodes.model_reward.append(total)
                episodes.origin.append(number[i] * n_envs + i)
                if begun[i] is not None:
                    episodes.start.append(str(begun[i]))
                if "is_success" in infos[i]:
                    episodes.fraction.append(float(infos[i]["predicate_fraction"]))
                    episodes.success.append(bool(infos[i]["is_success"]))
            keys[i], begun[i] = [], env.venv.reset_infos[i].get("start")
            number[i] += 1
    if any(keys):  # no row may wait for its reward when the next policy begins
        env.leave()
        env.rewards.fill(np.array([key for running in keys for key in running]))
    bar.close()
    return episodes


def measure(
    policies: Mapping[str, Policy], parts: Parts, n_episodes: int, n_envs: int, seed: int, progress: bool = False
) -> dict[str, Episodes]:
    """Run episodes of each policy in one environment, from the same starts, each to its full length.

    A reward model that ends episodes does not do so here: what happened after it was satisfied counts as well.

    Args:
        policies: {name: policy}.
        parts: Environment and reward model.
        n_episodes: Episodes of each policy.
        n_envs: Environments that step together, at most as many as there are episodes.
        seed: Seed of the starts.
        progress: Whether to show a progress bar.
    """
    n_envs = min(n_envs, n_episodes)
    results = {}
    env = make_vec_env(parts.env, parts.rewards(), n_envs, seed, end_episodes=False)
    try:
        for name, policy in policies.items():
            env.set_next_episodes(np.zeros(n_envs, dtype=int))  # the same starts for each
            results[name] = run_episodes(policy, env, n_episodes, name if progress else "")
    finally:
        env.close()
    return results


def record_clip(
    policies: Mapping[str, Policy],
    settings: EnvSettings,
    path: Path,
    n_episodes: int,
    seed: int,
    length: int,
    size: int = 320,
) -> None:
    """Write an mp4 of policies side by side, from the same starts, episode after episode, at half speed.

    A green frame shows that the task's predicate holds. Pictures go to the encoder one by one.

    Args:
        policies: {label: policy}.
        settings: Environment; drawn at `size` by `size` pixels whatever it says.
        path: The file; its folder is made.
        n_episodes: Episodes of each policy, one after the other.
        seed: Seed of the first episode; the next ones count on.
        length: Most steps of an episode that are shown.
        size: Height and width of one policy's picture, in pixels; even.
    """
    row = [_Panel(label, policy, settings, size) for label, policy in policies.items()]
    _film(path, [row], [[seed + episode] for episode in range(n_episodes)], length)


def record_grid(
    columns: Mapping[str, tuple[Policy, EnvSettings]],
    path: Path,
    n_episodes: int,
    seed: int,
    length: int,
    size: int = 224,
) -> None:
    """Write an mp4 in which all episodes run at the same time: a column a policy, a row a start.

    Like `record_clip` otherwise. There are as many environments as pictures, each with an OpenGL context of its own.

    Args:
        columns: {label: policy and its environment}.
        path: The file; its folder is made.
        n_episodes: Number of rows.
        seed: Seed of the first row's start; the next ones count on.
        length: Most steps of an episode that are shown.
        size: Height and width of one picture, in pixels; even.
    """
    rows = [
        [_Panel(f"{label} {episode + 1}", policy, settings, size) for label, (policy, settings) in columns.items()]
        for episode in range(n_episodes)
    ]
    _film(path, rows, [[seed + episode for episode in range(n_episodes)]], length)


class _Panel:
    """One policy in one environment, and the picture of where it is: labelled, framed where the predicate holds."""

    def __init__(self, label: str, policy: Policy, settings: EnvSettings, size: int):
        self._label, self._policy = label, policy
        self.env = make_env(replace(settings, height=size, width=size), render=True)

    def start(self, seed: int) -> None:
        self._observation, _ = self.env.reset(seed=seed)
        self._state, self._first, self.running = None, True, True
        self._draw(None)

    def step(self) -> None:
        """Step, unless the episode has ended: then the last picture stays."""
        if not self.running:
            return
        actions, self._state = self._policy.predict(
            batch_of_one(self._observation), self._state, np.array([self._first]), deterministic=True
        )
        self._observation, _, terminated, truncated, info = self.env.step(actions[0])
        self._first, self.running = False, not (terminated or truncated)
        self._draw(info.get("predicate"))

    def _draw(self, predicate: bool | None) -> None:
        self.picture = np.ascontiguousarray(self.env.render())
        text = self._label if predicate is None else f"{self._label}: {'yes' if predicate else 'no'}"
        cv2.putText(self.picture, text, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(self.picture, text, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        if predicate:
            corner = (self.picture.shape[1] - 1, self.picture.shape[0] - 1)
            cv2.rectangle(self.picture, (0, 0), corner, (0, 200, 0), 6)


def count(observation: Any) -> int:
    """Return how many observations there are in a vector of them, or in a dict of vectors."""
    return len(next(iter(observation.values())) if isinstance(observation, dict) else observation)


def batch_of_one(observation: Any) -> Any:
    """Give an observation, or each part of a dict of them, a first axis of length 1."""
    if isinstance(observation, dict):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return np.asarray(observation)[None]


def _film(path: Path, panels: list[list[_Panel]], takes: list[list[int]], length: int) -> None:
    """Film rows of panels, one take after the other, and close their environments.

    Args:
        path: The file; its folder is made.
        panels: Rows of pictures.
        takes: For each take, the seed of each row.
        length: Most steps of a take.
    """
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    everyone = [panel for row in panels for panel in row]
    try:
        fps = max(1, int(everyone[0].env.metadata.get("render_fps", 30)) // 2)
        writer: Any = imageio.get_writer(path, fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=2)
        with writer:
            for seeds in takes:
                for row, seed in zip(panels, seeds, strict=True):
                    for panel in row:
                        panel.start(seed)
                writer.append_data(_montage(panels))
                for _ in range(length):
                    if not any(panel.running for panel in everyone):
                        break
                    for panel in everyone:
                        panel.step()
                    writer.append_data(_montage(panels))
    finally:
        for panel in everyone:
            panel.env.close()


def _montage(panels: list[list[_Panel]]) -> np.ndarray:
    return np.concatenate([np.concatenate([panel.picture for panel in row], axis=1) for row in panels], axis=0)
