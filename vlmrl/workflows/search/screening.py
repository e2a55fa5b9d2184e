"""Is a program worth training on? Asked of recorded episodes, whose truth is known, without a step of training.

Every transition of the episodes is rewarded anew, and two things are looked at: whether the program orders pairs of
episodes as the truth does (trajectory preference evaluation of CARD, Sun et al. 2025, which compares episodes that
succeed with ones that fail; pairs with a clear difference in truth are there long before any succeeds), and whether
its rewards rise with the truth over single steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from vlmrl.envs.abstraction import StateReader
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.workflows.search.reflection import correlation

HOLDS = (1, 4, 16, 64)  # steps that a random action is held: bodies that hardly move tell nothing apart
CLEAR = 0.1  # difference of two episodes' mean truth that counts, as a share of the largest
FEWEST_PAIRS = 10  # below it, nothing is concluded
AGREEMENT = 0.5  # share of pairs that must be ordered as the truth orders them


@dataclass(frozen=True)
class Recorded:
    """Episodes, one after the other: n steps.

    Attributes:
        states: (n, size) float64.
        actions: (n, A) float64.
        truth: (n,) float64, the task's ground truth.
        episode: (n,) int, number of the episode.
    """

    states: np.ndarray
    actions: np.ndarray
    truth: np.ndarray
    episode: np.ndarray


def record_episodes(settings: EnvSettings, n: int, steps: int, seed: int) -> Recorded:
    """Let random actions, held for various times, run n episodes of at most so many steps."""
    env = make_env(settings)
    reader = StateReader(env)
    rng = np.random.default_rng(seed)
    columns: tuple[list, list, list, list] = ([], [], [], [])
    try:
        env.action_space.seed(int(rng.integers(2**31)))
        for episode in range(n):
            env.reset(seed=int(rng.integers(2**31)))
            hold, quiet = HOLDS[episode % len(HOLDS)], 1.0 if episode % 2 else 0.3
            for t in range(steps):
                if t % hold == 0:
                    action = env.action_space.sample()
                    if isinstance(env.action_space, gym.spaces.Box):
                        action = (quiet * action).astype(env.action_space.dtype)
                _, truth, terminated, truncated, _ = env.step(action)
                values = (reader(), np.asarray(action, dtype=np.float64).reshape(-1), float(truth), episode)
                for column, value in zip(columns, values, strict=True):
                    column.append(value)
                if terminated or truncated:
                    break
    finally:
        env.close()
    states, actions, truths, episodes = columns
    return Recorded(np.stack(states), np.stack(actions), np.array(truths), np.array(episodes))


@dataclass(frozen=True)
class Screened:
    """What came out.

    Attributes:
        agreement: Share of clear pairs that the program orders as the truth does; None where there are too few.
        pairs: Number of clear pairs.
        correlation: Of reward and truth over single steps; None where one does not move.
        reason: Why it is not worth training on; empty if it is.
    """

    agreement: float | None
    pairs: int
    correlation: float | None
    reason: str


def screen(run: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, dict]], recorded: Recorded) -> Screened:
    """Reward recorded episodes and compare with the truth."""
    rewards, _ = run(recorded.states, recorded.actions)
    counts = np.bincount(recorded.episode)
    by_reward = np.bincount(recorded.episode, rewards) / counts
    by_truth = np.bincount(recorded.episode, recorded.truth) / counts
    first, second = np.triu_indices(len(counts), 1)
    apart = by_truth[first] - by_truth[second]
    clear = np.abs(apart) > CLEAR * max(np.ptp(by_truth), 1e-12)
    pairs = int(clear.sum())
    agreement = None
    if pairs >= FEWEST_PAIRS:
        agreement = float(np.mean(np.sign(by_reward[first] - by_reward[second])[clear] == np.sign(apart)[clear]))
    steps = correlation(rewards, recorded.truth)
    reason = ""
    if agreement is not None and agreement < AGREEMENT and (steps is None or steps < 0):
        reason = (
            f"it orders only {agreement:.0%} of {pairs} pairs of recorded episodes as the task's truth does, and over "
            f"single steps it {'does not move with' if steps is None else 'falls where'} the truth"
            f"{'' if steps is None else f' rises (correlation {steps:.2f})'}"
        )
    return Screened(agreement, pairs, steps, reason)
