"""What a reward model adds to the environment's own reward: a hint that leaves the task as it is, or a bonus.

Sources: Ng, Harada, Russell: "Policy Invariance under Reward Transformations: Theory and Application to Reward
Shaping", ICML 1999, theorem 1; a bonus beside a sparse reward of success is what agents of MineDojo learn from (Fan et
al. 2022, arXiv 2206.08853, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PotentialShaping:
    """Adds F(s, s') = weight * (gamma * Phi(s') - Phi(s)) to the environment's own reward.

    Along an episode the discounted F add up to weight * (gamma^T * Phi(s_T) - Phi(s_0)). Nothing that a policy does
    changes the second part, and the first is 0 where the episode terminates, since Phi of a terminal state counts as 0
    there: so the policies that are optimal without F are optimal with it. At a truncation s_T is a state like any
    other, from which learners bootstrap, and keeps its potential.

    Attributes:
        gamma: Discount a step, 0 to 1; the learner's own, or the invariance is lost.
        weight: Strength, more than 0.
    """

    gamma: float
    weight: float = 1.0

    def __call__(
        self, rewards: np.ndarray, potentials: np.ndarray, terminated: np.ndarray, before: float
    ) -> np.ndarray:
        """Shape the rewards of consecutive steps of one episode.

        Args:
            rewards: (n,) float, what the environment gave for arriving at each state.
            potentials: (n,) float, Phi of those states.
            terminated: (n,) bool, whether the episode terminated there.
            before: Phi of the state before the first of them.

        Returns:
            (n,) float32.
        """
        arrived = np.where(terminated, 0.0, potentials)
        left = np.concatenate([[before], potentials[:-1]])
        return (rewards + self.weight * (self.gamma * arrived - left)).astype(np.float32)


@dataclass(frozen=True)
class RewardBonus:
    """Adds the model's reward to the environment's own. What is optimal may change with it.

    Attributes:
        weight: Factor of the model's reward, more than 0.
    """

    weight: float = 1.0

    def __call__(self, rewards: np.ndarray, added: np.ndarray, terminated: np.ndarray, before: float) -> np.ndarray:
        """Add up the rewards of consecutive steps of one episode.

        Args:
            rewards: (n,) float, what the environment gave for arriving at each state.
            added: (n,) float, what the model gave for it.
            terminated: (n,) bool; not read.
            before: Not read.

        Returns:
            (n,) float32.
        """
        return (rewards + self.weight * added).astype(np.float32)


Shaping = PotentialShaping | RewardBonus
