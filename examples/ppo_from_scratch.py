"""PPO in one file, in the manner of CleanRL, with a reward in words: three lines of it are about that.

    python examples/ppo_from_scratch.py --total-timesteps 50000

Prints what the model gave in each episode, and in how many of its 200 steps the pole was up.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from vlmrl.envs.lazy_rewards import RewardScale
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.reward_models.clip import ClipReward

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--total-timesteps", type=int, default=50_000)
parser.add_argument("--num-steps", type=int, default=256, help="steps between updates")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--learning-rate", type=float, default=1e-3)
parser.add_argument("--gamma", type=float, default=0.98)
parser.add_argument("--gae-lambda", type=float, default=0.8)
parser.add_argument("--clip", type=float, default=0.2)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--minibatches", type=int, default=4)


class Agent(nn.Module):
    """Policy and value of an observation."""

    def __init__(self, n_inputs: int, n_actions: int):
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(n_inputs, 64), nn.Tanh(), nn.Linear(64, n_actions))
        self.value = nn.Sequential(nn.Linear(n_inputs, 64), nn.Tanh(), nn.Linear(64, 1))

    def act(self, observation: np.ndarray) -> tuple[int, float, float]:
        """Draw an action; return it with its log-probability and the value of the observation."""
        with torch.no_grad():
            inputs = torch.as_tensor(observation)
            distribution = Categorical(logits=self.policy(inputs))
            action = distribution.sample()
            return int(action), float(distribution.log_prob(action)), float(self.value(inputs))


def main() -> None:
    """Train."""
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    # What this example is about. Any environment with pictures will do.
    reward_model = ClipReward("pole vertically upright on top of the cart")
    env: Any = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=112, height=112)
    env = ModelRewardWrapper(env, reward_model)
    # Cosines differ by hundredths around some tenths. The first rollout fixes what is 0 and what is 1.
    scale = RewardScale(enabled=True, centre=True)

    agent = Agent(env.observation_space.shape[0], env.action_space.n)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate)
    observation, _ = env.reset(seed=args.seed)
    episode_reward, episode_upright = 0.0, 0

    for update in range(1, args.total_timesteps // args.num_steps + 1):
        observations, actions, log_probs, rewards, values, next_values, ends = [], [], [], [], [], [], []
        for _ in range(args.num_steps):
            action, log_prob, value = agent.act(observation)
            next_observation, reward, terminated, truncated, info = env.step(action)
            # A time limit is no end of the world: the value of what would have come next still counts.
            next_value = 0.0 if terminated else agent.act(next_observation)[2]
            observations.append(observation)
            actions.append(action)
            log_probs.append(log_prob)
            rewards.append(reward)
            values.append(value)
            next_values.append(next_value)
            ends.append(terminated or truncated)
            episode_reward += info["vlm_reward"]
            episode_upright += abs(env.unwrapped.simulator_state()["angle"]) < np.deg2rad(12)
            observation = next_observation
            if ends[-1]:
                last = f"model reward {episode_reward:.1f}, pole up in {episode_upright} steps"
                print(f"step {update * args.num_steps:>7}   {last}")
                observation, _ = env.reset()
                episode_reward, episode_upright = 0.0, 0

        scaled = scale(np.array(rewards, dtype=np.float32))
        # Generalised advantage estimation (Schulman et al. 2016, eq. 16), from the last step to the first.
        advantages = np.zeros(args.num_steps, dtype=np.float32)
        running = 0.0
        for t in reversed(range(args.num_steps)):
            delta = scaled[t] + args.gamma * next_values[t] - values[t]
            running = delta + args.gamma * args.gae_lambda * (not ends[t]) * running
            advantages[t] = running
        inputs, taken = torch.as_tensor(np.array(observations)), torch.as_tensor(actions)
        old_log_probs, gains = torch.as_tensor(log_probs), torch.as_tensor(advantages)
        returns = gains + torch.as_tensor(np.array(values, dtype=np.float32))

        for _ in range(args.epochs):
            for batch in torch.randperm(args.num_steps).chunk(args.minibatches):
                distribution = Categorical(logits=agent.policy(inputs[batch]))
                ratio = (distribution.log_prob(taken[batch]) - old_log_probs[batch]).exp()
                gain = (gains[batch] - gains[batch].mean()) / (gains[batch].std() + 1e-8)
                # The clipped objective (Schulman et al. 2017, eq. 7).
                policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - args.clip, 1 + args.clip) * gain).mean()
                value_loss = (agent.value(inputs[batch]).squeeze(-1) - returns[batch]).square().mean()
                optimizer.zero_grad()
                (policy_loss + 0.5 * value_loss).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    env.close()


if __name__ == "__main__":
    main()
