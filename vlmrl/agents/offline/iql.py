"""Implicit Q-learning (Kostrikov, Nair, Levine 2021, arXiv 2110.06169), for continuous and discrete actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from vlmrl.agents.offline.algorithm import OfflineAlgorithm, descend
from vlmrl.agents.offline.data import controlled, reward_factor, reward_offset
from vlmrl.agents.offline.losses import advantage_weights, expectile_loss, twin_q_loss, weighted_log_likelihood_loss
from vlmrl.agents.offline.policies import IQLPolicy, OfflinePolicy
from vlmrl.agents.offline_config import CENTRE, RETURNS, Control, check_reward_scale, check_reward_shift
from vlmrl.datasets.base import Transitions


class IQL(OfflineAlgorithm):
    """Learns values by expectile regression on the actions in the data, and a policy by advantage-weighted regression.

    No action that is not in the data is ever asked about. One update is that of the authors' code: V from the slow Q,
    then the policy and Q with the new V, then the slow Q. Defaults are
    the paper's for locomotion, but for rewards without a mean, see `reward_offset`.

    Example:
        >>> model = IQL("MlpPolicy", gym.make("Hopper-v5"), transitions(open_dataset("mujoco/hopper/medium-v0")))
        >>> model.learn(1_000_000).save("iql.zip")

    Args:
        policy: "MlpPolicy".
        env: See `OfflineAlgorithm`.
        dataset: See `OfflineAlgorithm`.
        observation_space: See `OfflineAlgorithm`.
        action_space: See `OfflineAlgorithm`.
        learning_rate: Step size of all networks.
        actor_schedule: Whether the policy's step size goes down to 0 along a cosine over the run ("cosine"), or not.
        batch_size: Transitions an update.
        gamma: Discount a step, 0 to 1.
        tau: Share of Q that flows into its slow copy at each update, 0 to 1.
        expectile: Which expectile of Q over the actions in the data is V; 0.5 is the mean, 1 the greatest.
        beta: Inverse temperature of the weights of actions; 0 is behaviour cloning.
        max_weight: Greatest weight.
        reward_scale: What rewards are multiplied by: a number, or "returns", see `reward_factor`.
        reward_shift: What is added to them then: a number, or "centre", see `reward_offset`.
        control: Rewards that say nothing in place of those in the data, see `controlled`.
        normalize_observations: See `OfflineAlgorithm`.
        block_size: See `OfflineAlgorithm`.
        policy_kwargs: See `OfflineAlgorithm`.
        tensorboard_log: See Stable-Baselines3.
        verbose: See Stable-Baselines3.
        seed: See `OfflineAlgorithm`.
        device: See `OfflineAlgorithm`.
    """

    policy: IQLPolicy
    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": IQLPolicy, "MultiInputPolicy": IQLPolicy}
    figures = ("value_loss", "actor_loss", "critic_loss", "value", "q_value", "advantage", "weight")
    optimizers = ("value_optimizer", "actor_optimizer", "critic_optimizer")

    def __init__(
        self,
        policy: str | type[OfflinePolicy] = "MlpPolicy",
        env: GymEnv | str | None = None,
        dataset: Transitions | None = None,
        *,
        observation_space: gym.Space | None = None,
        action_space: gym.Space | None = None,
        learning_rate: float | Schedule = 3e-4,
        actor_schedule: Literal["cosine", "constant"] = "cosine",
        batch_size: int = 256,
        gamma: float = 0.99,
        tau: float = 0.005,
        expectile: float = 0.7,
        beta: float = 3.0,
        max_weight: float = 100.0,
        reward_scale: float | str = RETURNS,
        reward_shift: float | str = CENTRE,
        control: Control = "none",
        normalize_observations: bool = False,
        block_size: int = 100,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        check_reward_scale(str(reward_scale))
        check_reward_shift(str(reward_shift))
        self.actor_schedule, self.gamma, self.tau = actor_schedule, gamma, tau
        self.expectile, self.beta, self.max_weight = expectile, beta, max_weight
        self.reward_scale, self.reward_shift, self.control = reward_scale, reward_shift, control
        self.reward_factor: float | None = None
        self.reward_offset: float | None = None
        super().__init__(
            policy,
            env,
            dataset,
            observation_space=observation_space,
            action_space=action_space,
            learning_rate=learning_rate,
            batch_size=batch_size,
            normalize_observations=normalize_observations,
            block_size=block_size,
            policy_kwargs=policy_kwargs,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _columns(self, dataset: Transitions, actions: np.ndarray) -> dict[str, np.ndarray]:
        if self.reward_factor is None:  # fixed by the first dataset, as Q is learned at that scale
            # By the rewards that were recorded: a control differs in what rewards say, not in how great they are.
            self.reward_factor = reward_factor(dataset, str(self.reward_scale))
        if self.reward_offset is None:
            self.reward_offset = reward_offset(dataset, str(self.reward_shift), self.reward_factor)
        dataset = replace(dataset, rewards=controlled(dataset.rewards, self.control, self.seed))
        return {
            "observations": self._seen(dataset.observations),
            "actions": self._scaled(actions),
            "rewards": dataset.rewards * self.reward_factor + self.reward_offset,
            # Time limits bootstrap, terminal states do not.
            "discounts": self.gamma * (1.0 - dataset.terminations),
            "next_observations": self._seen(dataset.next_observations),
        }

    def describe(self) -> list[str]:
        """Say how the rewards are scaled."""
        if self.reward_offset is None:
            return []
        if self.reward_scale == RETURNS and self.reward_factor == 1.0:
            return ["rewards: all episodes have the same return, so there is no spread to scale by"]
        offset = self.reward_offset
        shift = f" {'+' if offset > 0 else '-'} {abs(offset):.4g}" if offset else ""
        control = f", {self.control} (a control)" if self.control != "none" else ""
        return [f"rewards: times {self.reward_factor:.4g}{shift}{control}"]

    def _rates(self, progress: np.ndarray) -> np.ndarray:
        base = np.array([self.lr_schedule(1 - share) for share in progress])
        cosine = 0.5 * (1 + np.cos(np.pi * progress)) if self.actor_schedule == "cosine" else 1.0
        return np.stack([base, base * cosine, base], axis=1)

    def batch(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the transitions with these numbers, as losses take them: one-dimensional but for vectors."""
        assert self._data is not None
        batch = self._data.batch(index)
        for name in ("rewards", "discounts"):
            batch[name] = batch[name].squeeze(1)
        if self.policy.discrete:
            batch["actions"] = batch["actions"].squeeze(1).long()
        return batch

    def value_loss(self, batch: dict[str, torch.Tensor], q_value: torch.Tensor) -> torch.Tensor:
        """Expectile loss of V against the smaller slow Q, (n,)."""
        return expectile_loss(q_value - self.policy.value_net(batch["observations"]).squeeze(1), self.expectile)

    def actor_loss(self, batch: dict[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        """Weighted negative log-likelihood of the actions in the data; weights are (n,)."""
        log_prob = self.policy.action_net.log_prob(batch["observations"], batch["actions"])
        return weighted_log_likelihood_loss(weights, log_prob)

    def critic_loss(self, batch: dict[str, torch.Tensor], next_value: torch.Tensor) -> torch.Tensor:
        """Squared error of both Q against r + gamma (1 - terminated) V(s'), V(s') being (n,)."""
        target = batch["rewards"] + batch["discounts"] * next_value
        return twin_q_loss(self.policy.critic(batch["observations"], batch["actions"]), target)

    def slow_q_value(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the smaller of both slow Q, (n,), without a gradient."""
        with torch.no_grad():
            return self.policy.critic_target(batch["observations"], batch["actions"]).amin(dim=0)

    def update(self, index: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Do one update; see `OfflineAlgorithm`."""
        policy, batch = self.policy, self.batch(index)
        q_value = self.slow_q_value(batch)

        value_loss = self.value_loss(batch, q_value)
        descend(policy.value_optimizer, value_loss, rates[0])

        with torch.no_grad():  # the new V, of both ends of the transitions in one pass
            both = torch.cat([batch["observations"], batch["next_observations"]])
            value, next_value = policy.value_net(both).squeeze(1).chunk(2)
            advantage = q_value - value
            weights = advantage_weights(advantage, self.beta, self.max_weight)

        actor_loss = self.actor_loss(batch, weights)
        descend(policy.actor_optimizer, actor_loss, rates[1])

        critic_loss = self.critic_loss(batch, next_value)
        descend(policy.critic_optimizer, critic_loss, rates[2])

        with torch.no_grad():
            slow: list[torch.Tensor] = list(policy.critic_target.parameters())
            fast: list[torch.Tensor] = list(policy.critic.parameters())
            torch._foreach_lerp_(slow, fast, self.tau)
            return torch.stack(
                [
                    value_loss.detach(),
                    actor_loss.detach(),
                    critic_loss.detach(),
                    value.mean(),
                    q_value.mean(),
                    advantage.mean(),
                    weights.mean(),
                ]
            )
