"""The arms of `reward_pipeline`: the same replayed actions, and what it takes to reward them.

Every function here makes a block (see `blocks`) in a process of its own. Actions are drawn once from a seed, row `t` of
environment `i`, so that all arms play the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.blocks import Block
from benchmarks.render import make_humanoid
from benchmarks.reward_path import BASELINE, GOAL_WORDS, NaiveReward, learning

EPISODE = 100  # steps
ACTIONS = 17  # of the humanoid
LIMIT = 0.4  # of each of them, as the humanoid has it


def replayed(env: int) -> Iterator[np.ndarray]:
    """Yield the actions of an environment, (17,) float32, without end."""
    recorded = np.random.default_rng((0, env)).uniform(-LIMIT, LIMIT, (10 * EPISODE, ACTIONS)).astype(np.float32)
    while True:
        yield from recorded


def make_free(updates: Fraction | None, n_envs: int, device: str) -> Block:
    """No reward from pictures: the environment's own, nothing is drawn."""
    from vlmrl.envs.lazy_rewards import LazyRewards
    from vlmrl.envs.make import EnvSettings, make_vec_env
    from vlmrl.reward_models.ground_truth import GroundTruthReward

    one_thread()
    env = make_vec_env(EnvSettings("vlmrl/Humanoid-v0", task()), LazyRewards(GroundTruthReward()), n_envs, seed=0)
    return learned(env, n_envs, updates, device) if updates is not None else stepping(env, n_envs, fill_every=8)


def make_suite(
    scorer: str,
    settings: dict[str, Any],
    encoder: Any,
    device: str,
    n_envs: int,
    score_every: int,
    fill_every: int,
    updates: Fraction | None,
) -> Block:
    """The path that the commands use, with an encoder that runs where `scorer` says."""
    from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
    from vlmrl.envs.make import EnvSettings, make_vec_env
    from vlmrl.reward_models.clip import ClipReward
    from vlmrl.serving import SCORERS

    one_thread()
    service = SCORERS.load(scorer)(**settings).build(encoder, device)
    height, width = service.encoder.image_size
    rewards = LazyRewards(
        ClipReward(GOAL_WORDS, BASELINE, encoder=service.encoder),
        service.scorer(),
        RewardScale(enabled=updates is not None),
        every=score_every,
        delay=service.lag(n_envs / score_every),
    )
    env_settings = EnvSettings("vlmrl/Humanoid-v0", task(), height, width, score_every=score_every)
    env = make_vec_env(env_settings, rewards, n_envs, seed=0)
    block = learned(env, n_envs, updates, device) if updates is not None else stepping(env, n_envs, fill_every)
    return closing(block, env.close, service.close)


def make_naive(encoder: Any, device: str, default_look: bool) -> Block:
    """A wrapper that draws, preprocesses with PIL and encodes one picture a step."""
    one_thread()
    name = model_name(encoder)
    size = encoder.build("cpu").image_size[0]
    drawn = make_humanoid("Humanoid-v5" if default_look else "vlmrl/Humanoid-v0", size)
    env = NaiveReward(gym.wrappers.TimeLimit(drawn.unwrapped, EPISODE), name, device)
    env.reset(seed=0)
    actions = replayed(0)

    def block(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            _, reward, terminated, truncated, _ = env.step(next(actions))
            assert np.isfinite(reward)
            if terminated or truncated:
                env.reset()
        return time.perf_counter() - started

    return closing(block, env.close)


class FramesInInfo(gym.Wrapper):
    """Sends each step's picture along, as VLM-RM does."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step and draw."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, 0.0, terminated, truncated, {**info, "frame": self.env.render()}


def make_episodic(encoder: Any, device: str, n_envs: int, default_look: bool) -> Block:
    """VLM-RM's manner: environments fill an episode, then all its pictures are encoded while they wait.

    With Gymnasium's look pictures are of its default size, 480 pixels, as in that paper.
    """
    from stable_baselines3.common.vec_env import SubprocVecEnv

    one_thread()
    model = encoder.build(device)
    goal = model.encode_texts([GOAL_WORDS])[0]
    size = None if default_look else model.image_size[0]

    def make() -> gym.Env:
        drawn = make_humanoid("Humanoid-v5" if default_look else "vlmrl/Humanoid-v0", size)
        return gym.wrappers.TimeLimit(FramesInInfo(drawn.unwrapped), EPISODE)

    env = SubprocVecEnv([make] * n_envs, start_method="forkserver")
    env.reset()
    actions = [replayed(i) for i in range(n_envs)]

    def block(n: int) -> float:
        done = 0
        started = time.perf_counter()
        while done < n:
            frames = []
            for _ in range(min(EPISODE, -(-(n - done) // n_envs))):
                _, _, _, infos = env.step(np.stack([next(each) for each in actions]))
                frames += [info["frame"] for info in infos]
            rewards = model.encode_images(np.stack(frames)) @ goal
            assert np.isfinite(rewards).all()
            done += len(frames)
        return (time.perf_counter() - started) * n / done

    return closing(block, env.close)


def make_encoder(encoder: Any, device: str, batch_size: int) -> Block:
    """The encoder alone, on pictures that are there: no path can be faster than it and the reward-free loop."""
    one_thread()
    model = encoder.build(device)
    frames = np.random.default_rng(0).integers(0, 256, (batch_size, *model.image_size, 3), dtype=np.uint8)

    def block(n: int) -> float:
        batches = -(-n // batch_size)
        started = time.perf_counter()
        for _ in range(batches):
            model.encode_images(frames)
        return (time.perf_counter() - started) * n / (batches * batch_size)

    return block


def stepping(env: Any, n_envs: int, fill_every: int) -> Block:
    """Step without a learner, and fill rewards every so many vector steps as a replay buffer does."""
    env.reset()
    actions = [replayed(i) for i in range(n_envs)]
    waiting: list[np.ndarray] = []

    def fill(leave: int) -> None:
        ready = waiting[: len(waiting) - leave]
        if ready:
            assert np.isfinite(env.rewards.fill(np.concatenate(ready))).all()
            del waiting[: len(ready)]

    def block(n: int) -> float:
        vector_steps = -(-n // n_envs)
        started = time.perf_counter()
        for step in range(1, vector_steps + 1):
            env.step(np.stack([next(each) for each in actions]))
            waiting.append(env.keys)
            if step % fill_every == 0:
                fill(env.rewards.lag)
        fill(0)  # nothing of a block may be done on the time of the next arm's
        return (time.perf_counter() - started) * n / (vector_steps * n_envs)

    return closing(block, env.close)


def learned(env: Any, n_envs: int, updates: Fraction, device: str) -> Block:
    """Let SAC learn; it has begun to when the first block does, and each block ends with all of its rewards there."""
    starts = n_envs * (env.rewards.lag + 1)
    learn = learning(env, n_envs, updates, starts, device)
    learn(starts + n_envs)
    buffer = learn.model.replay_buffer  # type: ignore[attr-defined]

    def block(n: int) -> float:
        seconds = learn(n)
        started = time.perf_counter()
        buffer._fill(buffer._added)  # nothing of a block may be done on the time of the next arm's
        return seconds + time.perf_counter() - started

    return closing(block, env.close)


def closing(block: Callable[[int], float], *close: Callable[[], None]) -> Block:
    """Return a block that closes what it used."""
    before = getattr(block, "close", None)

    def each() -> None:
        for one in close if before is None else (before, *close):
            one()

    def run(n: int) -> float:
        return block(n)

    run.close = each  # type: ignore[attr-defined]
    return run


def task() -> Any:
    """Return the humanoid's kneeling."""
    from vlmrl.envs.tasks import PREDICATES, Task

    return Task("kneeling", GOAL_WORDS, BASELINE, predicate=PREDICATES.load("humanoid/kneeling"))


def model_name(encoder: Any) -> str | None:
    """Return an encoder's model in open_clip's words; None for the embedded one."""
    return getattr(encoder, "model", None)


def one_thread() -> None:
    """Compute with one thread, as `vlmrl.train` does: workers draw on the other cores."""
    import torch

    torch.set_num_threads(1)
