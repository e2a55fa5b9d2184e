"""The updates of SAC and CrossQ with less work for the same numbers.

Stable-Baselines3's and SB3-Contrib's own updates are written to be read. These ones leave out what changes no result:
the gradients of the critics' weights in the actor's loss, which nobody uses; a second evaluation of each action's
density; losses read one by one; and an optimiser's loop over tensors in Python. Random numbers are drawn in the same
order, so that both ways agree up to rounding (`tests/agents/test_updates.py`), and a saved policy is the same zip.

Sources: Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, Kumar, Zhu, Gupta, Abbeel, Levine: "Soft Actor-Critic Algorithms
and Applications", 2018 (arXiv 1812.05905), algorithm 1; Bhatt, Palenicek, Belousov, Argus, Amiranashvili, Brox, Peters:
"CrossQ", 2024 (arXiv 1902.05605), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from sb3_contrib import CrossQ
from stable_baselines3 import SAC
from torch import Tensor
from torch.nn import functional

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
SQUASH = 1e-6  # keeps log(1 - tanh^2) finite, as Stable-Baselines3's SquashedDiagGaussianDistribution does


class Batch(NamedTuple):
    """Transitions.

    Attributes:
        observations: (n, O) float32.
        actions: (n, A) float32, -1 to 1.
        next_observations: (n, O) float32.
        rewards: (n, 1) float32.
        discounts: (n, 1) float32, what the next value counts; 0 where the episode terminated.
    """

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    discounts: Tensor


class Losses(NamedTuple):
    """What an update says of itself, scalars; None where it took no such step."""

    critic: Tensor
    actor: Tensor | None
    ent_coef: Tensor
    ent_coef_loss: Tensor | None


def sample_action(actor: Any, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Draw actions of a squashed Gaussian (SAC paper, appendix C).

    Args:
        actor: Of Stable-Baselines3's SAC or SB3-Contrib's CrossQ.
        observations: (n, O) float32.

    Returns:
        Actions (n, A), -1 to 1, and the logarithms of their densities (n, 1).
    """
    mean, log_std, _ = actor.get_action_dist_params(observations)
    noise = torch.randn_like(mean)
    action = torch.tanh(mean + log_std.exp() * noise)
    gaussian = -0.5 * noise**2 - log_std - HALF_LOG_TWO_PI
    return action, (gaussian - torch.log(1 - action**2 + SQUASH)).sum(dim=1, keepdim=True)


class FastSAC(SAC):
    """SAC with the faster update; see this module. State-dependent exploration is not for it."""

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """See `SAC.train`."""
        _train(self, gradient_steps, batch_size, self._step)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _step(self, batch: Batch, number: int) -> Losses:
        """Take gradient step `number` of this update."""
        action, log_prob = sample_action(self.actor, batch.observations)
        ent_coef, ent_coef_loss = _entropy_step(self, log_prob)
        with torch.no_grad():
            next_action, next_log_prob = sample_action(self.actor, batch.next_observations)
            next_value = _least(self.critic_target(batch.next_observations, next_action)) - ent_coef * next_log_prob
            target = batch.rewards + batch.discounts * next_value
        values = self.critic(batch.observations, batch.actions)
        critic_loss = 0.5 * torch.stack([functional.mse_loss(value, target) for value in values]).sum()
        _descend(critic_loss, self.critic)
        actor_loss = (ent_coef * log_prob - _least(self.critic(batch.observations, action))).mean()
        _descend(actor_loss, self.actor)
        if number % self.target_update_interval == 0:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.critic_target.parameters()), list(self.critic.parameters()), self.tau)
        return Losses(critic_loss.detach(), actor_loss.detach(), ent_coef, ent_coef_loss)


class FastCrossQ(CrossQ):
    """CrossQ with the faster update; see this module. State-dependent exploration is not for it."""

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """See `CrossQ.train`."""
        _train(self, gradient_steps, batch_size, self._step)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _step(self, batch: Batch, number: int) -> Losses:
        """Take a gradient step; every `policy_delay`-th with the actor's."""
        self._n_updates += 1
        with torch.no_grad():
            self.actor.set_bn_training_mode(False)
            next_action, next_log_prob = sample_action(self.actor, batch.next_observations)
        # One pass over both halves: batch renormalisation must see the mixture of them.
        self.critic.set_bn_training_mode(True)
        both = self.critic(
            torch.cat([batch.observations, batch.next_observations]), torch.cat([batch.actions, next_action])
        )
        self.critic.set_bn_training_mode(False)
        n = len(batch.observations)
        ent_coef = _entropy_coefficient(self)
        with torch.no_grad():
            next_value = _least([value[n:] for value in both]) - ent_coef * next_log_prob
            target = batch.rewards + batch.discounts * next_value
        critic_loss = 0.5 * torch.stack([functional.mse_loss(value[:n], target) for value in both]).sum()
        _descend(critic_loss, self.critic)
        if self._n_updates % self.policy_delay:
            return Losses(critic_loss.detach(), None, ent_coef, None)
        self.actor.set_bn_training_mode(True)
        action, log_prob = sample_action(self.actor, batch.observations)
        self.actor.set_bn_training_mode(False)
        _, ent_coef_loss = _entropy_step(self, log_prob)
        actor_loss = (ent_coef * log_prob - _least(self.critic(batch.observations, action))).mean()
        _descend(actor_loss, self.actor)
        return Losses(critic_loss.detach(), actor_loss.detach(), ent_coef, ent_coef_loss)


def _train(model: SAC | CrossQ, gradient_steps: int, batch_size: int, step: Callable[[Batch, int], Losses]) -> None:
    """Take gradient steps and log the means of their losses."""
    model.policy.set_training_mode(True)
    optimizers = [model.actor.optimizer, model.critic.optimizer]
    model._update_learning_rate([*optimizers, *([model.ent_coef_optimizer] if model.ent_coef_optimizer else [])])
    assert model.replay_buffer is not None
    losses = []
    for number in range(gradient_steps):
        data = model.replay_buffer.sample(batch_size, env=model._vec_normalize_env)
        gamma = data.discounts if data.discounts is not None else model.gamma  # n steps have gamma**n
        batch = Batch(data.observations, data.actions, data.next_observations, data.rewards, (1 - data.dones) * gamma)
        losses.append(step(batch, number))
    for name in Losses._fields:
        values = [value for loss in losses if (value := getattr(loss, name)) is not None]
        if values:
            key = name if name.startswith("ent_coef") else f"{name}_loss"
            model.logger.record(f"train/{key}", float(torch.stack(values).mean()))


def _entropy_coefficient(model: SAC | CrossQ) -> Tensor:
    """Return the entropy coefficient, a tensor of one number outside of any graph."""
    return model.ent_coef_tensor if model.log_ent_coef is None else model.log_ent_coef.detach().exp()


def _entropy_step(model: SAC | CrossQ, log_prob: Tensor) -> tuple[Tensor, Tensor | None]:
    """Move a learned entropy coefficient towards the target entropy.

    Returns:
        The coefficient before that, and the loss; None where it is fixed.
    """
    before = _entropy_coefficient(model)
    if model.ent_coef_optimizer is None or model.log_ent_coef is None:
        return before, None
    error = (log_prob.detach() + float(model.target_entropy)).mean()
    loss = -(model.log_ent_coef * error).mean()
    model.ent_coef_optimizer.zero_grad()
    loss.backward()
    model.ent_coef_optimizer.step()
    return before, loss.detach()


def _least(values: Sequence[Tensor]) -> Tensor:
    """Return the least of several critics' values, each (n, 1)."""
    return torch.stack(tuple(values)).amin(dim=0) if len(values) != 2 else torch.minimum(*values)


def _descend(loss: Tensor, network: Any) -> None:
    """Take an optimiser's step; gradients are computed for its own network only."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    network.optimizer.step()
