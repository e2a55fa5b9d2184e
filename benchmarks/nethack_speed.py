"""What the suite costs on NetHack: steps a second of PPO with `env=nethack` against the same PPO on bare NLE.

    make setup-nethack
    .venv-nethack/bin/python -m benchmarks.nethack_speed

All arms have the same level, the same three observations, the same networks, rollouts and updates. The bare one is NLE
in Stable-Baselines3's own vector of environments, with its Monitor. The suite's hear all that the game says and keep
rows; `oni` also rewards each text from the labels that come with the suite, `game` takes the game's reward. The second
comparison has no learner: there the wrappers stand out most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.blocks import Arm, Block, compare, parser, report

if TYPE_CHECKING:
    from vlmrl.envs.lazy_rewards import LazyRewards
    from vlmrl.envs.reward_vec_env import RewardVecEnv

GOAL = 0.8
LEVEL = "NetHackScore-v0"
N_ENVS = 8
BARE = "bare NLE"
REWARDS = {"oni": ["reward=oni"], "game": ["reward=ground_truth"]}


def main() -> None:
    """Measure, print, write."""
    settings = parser(__doc__, "nethack_speed", steps=1024).parse_args()
    comparisons = []
    for name, learns, arms in (("PPO", True, ("oni", "game", BARE)), ("steps alone", False, ("oni", "game", BARE))):
        steps = settings.steps if learns else 8 * settings.steps
        made = {arm: (Arm(arm, make_arm, source=arm, learns=learns), steps) for arm in arms}
        comparisons.append(compare(name, made, settings.blocks))
    report("nethack_speed", vars(settings), GOAL, BARE, comparisons, settings.out)


def make_arm(source: str, learns: bool) -> Block:
    """Make environments and a function that steps them, with PPO or with random actions.

    Args:
        source: A key of `REWARDS`, or `BARE`.
        learns: Whether PPO learns, from rollouts of 32 steps in 4 passes; else rewards are only filled in.
    """
    import torch

    torch.set_num_threads(1)
    env = _bare() if source == BARE else _ours(source)
    if learns:
        return _learning(env)
    env.reset()
    rng = np.random.default_rng(0)

    def block(n: int) -> float:
        keys = []
        started = time.perf_counter()
        for step in range(n // N_ENVS):
            env.step(rng.integers(env.action_space.n, size=N_ENVS))
            if source != BARE:
                keys.append(env.keys)
                if (step + 1) % 32 == 0:
                    env.rewards.fill(np.concatenate(keys))
                    keys.clear()
        if keys:
            env.rewards.fill(np.concatenate(keys))
        return time.perf_counter() - started

    block.close = env.close  # type: ignore[attr-defined]
    return block


def _learning(env: Any) -> Block:
    from vlmrl.agents.buffers import attach_rewards

    model = make_ppo(env)
    attach_rewards(model)

    def block(n: int) -> float:
        started = time.perf_counter()
        model.learn(n, reset_num_timesteps=False)
        return time.perf_counter() - started

    block.close = env.close  # type: ignore[attr-defined]
    return block


def make_ppo(env: Any) -> Any:
    """Make PPO with the suite's networks for NetHack, rollouts of 32 steps of each environment and four passes.

    Args:
        env: NetHack, as `make_envs` makes it, or NLE in one of Stable-Baselines3's own vectors of environments.
    """
    from stable_baselines3 import PPO
    from stable_baselines3.common.buffers import DictRolloutBuffer

    from vlmrl.agents.buffers import RewardFillingDictRolloutBuffer
    from vlmrl.agents.features import policy_for
    from vlmrl.envs.reward_vec_env import RewardVecEnv

    policy, features = policy_for(env.observation_space, 128)
    return PPO(
        policy,
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=4,
        policy_kwargs=features,
        rollout_buffer_class=RewardFillingDictRolloutBuffer if isinstance(env, RewardVecEnv) else DictRolloutBuffer,
        seed=0,
        device="cpu",
    )


def _bare() -> Any:
    """Make NLE's environments as Stable-Baselines3 would have them."""
    import gymnasium as gym
    import nle  # noqa: F401  (registers its ids)
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from vlmrl.envs.nethack import KEYS

    def make() -> gym.Env:
        env = gym.make(LEVEL, observation_keys=KEYS, render_mode="ansi", disable_env_checker=True)
        return Monitor(env)

    return DummyVecEnv([make] * N_ENVS)


def _ours(reward: str) -> Any:
    from vlmrl.workflows.build import build_parts

    parts = build_parts(_settings(REWARDS[reward]), "cpu")
    return make_envs(parts.rewards(n_envs=N_ENVS), N_ENVS)


def make_envs(rewards: LazyRewards, n_envs: int) -> RewardVecEnv:
    """Make the environments of `vlmrl.train env=nethack task=none`, rewarded by `rewards`."""
    from vlmrl.envs.make import make_vec_env
    from vlmrl.workflows.build import build_parts

    return make_vec_env(build_parts(_settings(REWARDS["game"]), "cpu").env, rewards, n_envs, seed=0)


def _settings(reward: list[str]) -> Any:
    from vlmrl.commands import compose, plain
    from vlmrl.workflows.config.train import train_settings

    return train_settings(plain(compose("train", ["env=nethack", "task=none", *reward])))


if __name__ == "__main__":
    main()
