"""Settings of `agent=appo`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Positive, Range, Share

if TYPE_CHECKING:
    from vlmrl.agents.appo.policy import AppoPolicy


@dataclass(frozen=True)
class AppoConfig:
    """Settings of `agent=appo`; `configs/agent/appo.yaml` has values.

    They have the names of Stable-Baselines3's PPO where they mean the same.

    Attributes:
        learning_rate: Step size.
        n_workers: Processes that step environments; `n_envs` is shared out among them.
        n_steps: Steps of each environment that are learned from at once, a rollout.
        batch_size: Transitions a gradient step, a multiple of `n_steps`.
        n_minibatches: Gradient steps a pass over what was collected.
        n_epochs: Passes over it.
        asynchronous: Whether environments step on while the learner learns, by a policy that is some updates old.
        max_policy_lag: Updates after which a transition is too old to be learned from.
        gamma: Discount a step, 0 to 1.
        gae_lambda: Bias-variance trade-off of generalised advantage estimation, 0 to 1.
        vtrace: V-trace instead (Espeholt et al. 2018, arXiv 1802.01561), which corrects for the age of the policy.
        clip_range: Largest change of an action's probability ratio r that an update gains from: r from 1 / (1 + c) to
            1 + c.
        clip_range_vf: Largest change of a value that an update gains from.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Length to which gradients are cut.
        normalize_observations: Whether observations of real numbers get mean 0 and deviation 1.
        normalize_returns: Whether returns do; V-trace cannot.
        rnn: Memory of the policy, a gated recurrent unit, a long short-term memory, or none.
        rnn_size: Its width.
        net_arch: Width of each layer between what the policy sees with and its memory.
        features_dim: Width of what the parts of an observation that is a dict are made into, see
            `vlmrl.agents.features`; means nothing where observations are vectors.
        serial: Everything in one process, one thing after the other: slow, and the same every time.
        timeout_s: Seconds without a step after which the run ends with an error.
    """

    learning_rate: Positive
    n_workers: Count
    n_steps: Count
    batch_size: Count
    n_minibatches: Count
    n_epochs: Count
    asynchronous: bool
    max_policy_lag: Count
    gamma: Share
    gae_lambda: Share
    vtrace: bool
    clip_range: Positive
    clip_range_vf: Positive
    ent_coef: Annotated[float, Range(0)]
    vf_coef: Annotated[float, Range(0)]
    max_grad_norm: Positive
    normalize_observations: bool
    normalize_returns: bool
    rnn: Literal["none", "gru", "lstm"]
    rnn_size: Count
    net_arch: tuple[Count, ...]
    features_dim: Count
    serial: bool
    timeout_s: Positive

    # Its workers reward steps where they are taken; nothing can be filled in later.
    rewards_at_collection: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.batch_size % self.n_steps:
            raise UserError(
                f"agent.batch_size={self.batch_size} must be a multiple of agent.n_steps={self.n_steps}: whole "
                f"rollouts are learned from. Give {max(1, round(self.batch_size / self.n_steps)) * self.n_steps}."
            )
        if self.vtrace and self.normalize_returns:
            raise UserError(
                "agent.vtrace=true computes returns anew in each pass, and agent.normalize_returns=true does not bear "
                "that. Give agent.normalize_returns=false."
            )
        if self.rnn != "none" and self.n_steps == 1:
            raise UserError("agent.n_steps=1 teaches a memory nothing. Give more, or agent.rnn=none.")

    def check(self, n_envs: int) -> None:
        """See that a number of environments can be shared out.

        Raises:
            UserError: It cannot.
        """
        if n_envs % self.n_workers:
            raise UserError(
                f"n_envs={n_envs} cannot be shared out among agent.n_workers={self.n_workers} processes. Give a "
                "multiple."
            )
        collected, learned = n_envs * self.n_steps, self.batch_size * self.n_minibatches
        if not self.asynchronous and learned % collected:
            raise UserError(
                f"agent.asynchronous=false learns from whole rollouts of all environments: agent.batch_size * "
                f"agent.n_minibatches = {learned} must be a multiple of n_envs * agent.n_steps = {collected}."
            )

    def build(self, env: Any, seed: int, device: str) -> Any:
        """Refuse: sample-factory makes environments itself.

        Raises:
            UserError: Always.
        """
        raise UserError("agent=appo makes its environments itself and cannot be given some: train it with vlmrl.train.")

    def algorithm(self) -> type[AppoPolicy]:
        """Return the class that loads what it has saved.

        Raises:
            UserError: sample-factory is not installed.
        """
        require_sample_factory()
        from vlmrl.agents.appo.policy import AppoPolicy

        return AppoPolicy


def require_sample_factory() -> None:
    """See that sample-factory is there.

    Raises:
        UserError: It is not.
    """
    if importlib.util.find_spec("sample_factory") is None:
        raise UserError(
            "agent=appo needs sample-factory, which asks for older packages than the rest of the suite. It has an "
            "environment of its own: make appo, then .venv-appo/bin/python -m vlmrl.train ... agent=appo."
        )
