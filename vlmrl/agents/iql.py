"""Implicit Q-learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from vlmrl.agents.offline_config import Control, OfflineConfig, check_reward_scale, check_reward_shift, shared_arguments
from vlmrl.typed import Positive, Range, Share

if TYPE_CHECKING:
    import gymnasium as gym

    from vlmrl.agents.offline.iql import IQL


@dataclass(frozen=True, kw_only=True)
class IqlConfig(OfflineConfig):
    """Settings of `agent=iql`; `configs/agent/iql.yaml` has values.

    Attributes:
        actor_schedule: Whether the policy's step size goes down to 0 along a cosine over the run.
        gamma: Discount a step, 0 to 1.
        tau: Share of Q that flows into its slow copy at each update, 0 to 1.
        expectile: Which expectile of Q over the actions in the data is V, between 0 and 1.
        beta: Inverse temperature of the weights of actions.
        max_weight: Greatest weight of an action.
        reward_scale: What rewards are multiplied by: a number, or "returns", the steps of the longest episode over the
            spread of the episodes' returns.
        reward_shift: What is added to them then: a number, or "centre", minus their mean where no episode terminates.
        control: What becomes of the recorded rewards: "none" leaves them; "constant" replaces them by their mean and
            "shuffled" deals them out anew, so that what is learned shows what the data alone teach.
    """

    actor_schedule: Literal["cosine", "constant"]
    gamma: Share
    tau: Share
    expectile: Annotated[float, Range(0, 1, open=True)]
    beta: Annotated[float, Range(0)]
    max_weight: Positive
    reward_scale: str
    reward_shift: str
    control: Control = "none"

    def __post_init__(self) -> None:
        check_reward_scale(self.reward_scale)
        check_reward_shift(self.reward_shift)

    def build(self, observation_space: gym.Space, action_space: gym.Space, seed: int, device: str) -> IQL:
        """Make the algorithm, without data.

        Args:
            observation_space: Space of the recorded observations.
            action_space: Space of the recorded actions.
            seed: Seed of networks and batches.
            device: "auto", "cpu", "cuda" or "cuda:<n>".

        Raises:
            UserError: The spaces cannot be learned from.
        """
        from vlmrl.agents.offline.iql import IQL

        return IQL(
            **shared_arguments(self, observation_space, action_space, seed, device),
            actor_schedule=self.actor_schedule,
            gamma=self.gamma,
            tau=self.tau,
            expectile=self.expectile,
            beta=self.beta,
            max_weight=self.max_weight,
            reward_scale=self.reward_scale,
            reward_shift=self.reward_shift,
            control=self.control,
        )

    def algorithm(self) -> type[IQL]:
        """Return the class, which loads what it has saved."""
        from vlmrl.agents.offline.iql import IQL

        return IQL
