"""Stable-Baselines3 as you know it, with a reward in words around a single environment.

    python examples/sb3_humanoid.py --total-timesteps 20000

Each step waits for its reward here. `python -m vlmrl.train` is the same on a faster path: worker processes, rewards in
batches at the last moment.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.monitor import Monitor

from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.reward_models.clip import ClipReward

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--goal", default="a humanoid robot kneeling")
parser.add_argument("--baseline", default="a humanoid robot")
parser.add_argument("--total-timesteps", type=int, default=20_000)
parser.add_argument("--learning-starts", type=int, default=1000)
parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    """Train, and say what the environment and the model thought of the last episode."""
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array", width=112, height=112)
    env = Monitor(env)  # below the wrapper, so that rollout/ep_rew_mean stays what the environment itself gives
    env = ModelRewardWrapper(env, ClipReward(args.goal, baseline=args.baseline))

    model = SAC("MlpPolicy", env, gamma=0.95, learning_starts=args.learning_starts, seed=args.seed, verbose=1)
    model.learn(args.total_timesteps)

    observation, _ = env.reset(seed=args.seed)
    ours = original = 0.0
    over = False
    while not over:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        ours, original = ours + info["vlm_reward"], original + info["original_reward"]
        over = terminated or truncated
    print(f"one episode after training: model reward {ours:.2f}, reward of the environment {original:.2f}")
    env.close()


if __name__ == "__main__":
    main()
