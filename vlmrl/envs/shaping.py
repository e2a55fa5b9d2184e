"""What a reward model adds to the environment's own reward: a hint that leaves the task as it is, or a bonus.

Sources: Ng, Harada, Russell: "Policy Invariance under Reward Transformations: Theory and Application to Reward
Shaping", ICML 1999, theorem 1; Devlin, Kudenko: "Dynamic Potential-Based Reward Shaping", AAMAS 2012, section 3, for
potentials of more than a state; a bonus beside a sparse reward of success is what agents of MineDojo learn from (Fan et
al. 2022, arXiv 2206.08853, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, called


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


def check_potential(model: RewardModel) -> None:
    """See whether a model's reward can be taken for a potential at all; `potential_caveat` says what it costs.

    Raises:
        UserError: As a potential the reward says nothing; the model says why (`no_potential`).
    """
    reason = getattr(model, "no_potential", "")
    if reason:
        raise UserError(
            f"use_as=potential takes a reward for the potential of a state, and of {called(model)} it is none: {reason}"
        )


def potential_caveat(model: RewardModel) -> str:
    """Say what it costs to take a model's reward for a potential; empty where it costs nothing.

    One that looks at earlier rows is a potential of a past and not of a state. The sum of `PotentialShaping` telescopes
    all the same, whatever the potential is a function of, so that every policy's return changes by the same and what is
    optimal stays so. But a learner that does not observe this past can no longer tell what a state is worth: to it the
    shaped reward is no function of what it sees. That costs variance and not the optimum, so it is said, not refused.
    """
    if model.context == 0:
        return ""
    past = "all of the episode so far" if model.context == "episode" else f"{model.context} earlier steps as well"
    return (
        f"{called(model)} looks at {past}, so that the same state has another potential after another past. What is "
        "optimal stays so, but what a state is worth depends on what the agent does not observe, which makes learning "
        "noisier. use_as=bonus adds the reward as it is"
    )
