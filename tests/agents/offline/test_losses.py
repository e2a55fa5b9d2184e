"""Losses, against numbers worked out by hand and against another library."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.agents.offline.recordings import CORRIDOR, LINE, along_a_corridor, on_a_line
from vlmrl.agents.offline.iql import IQL
from vlmrl.agents.offline.losses import advantage_weights, expectile_loss, twin_q_loss, weighted_log_likelihood_loss
from vlmrl.agents.offline.networks import CategoricalHead, GaussianHead, TwinCritic


def test_expectile_loss_weighs_what_is_above_by_the_expectile() -> None:
    # 0.7 * 1^2 and 0.3 * 2^2, their mean
    assert expectile_loss(torch.tensor([1.0, -2.0]), 0.7).item() == pytest.approx(0.95)
    assert expectile_loss(torch.tensor([1.0, -2.0]), 0.5).item() == pytest.approx(1.25)  # half the mean of 1 and 4


def test_the_minimum_of_the_expectile_loss_is_the_expectile() -> None:
    # Of 0 and 1 with equal weight it is tau: (1 - tau) v = tau (1 - v).
    values = torch.tensor([0.0, 1.0])
    grid = torch.linspace(0, 1, 1001)
    losses = torch.stack([expectile_loss(values - v, 0.9) for v in grid])
    assert grid[losses.argmin()].item() == pytest.approx(0.9, abs=1e-3)


def test_weights_grow_with_the_advantage_up_to_the_clip() -> None:
    weights = advantage_weights(torch.tensor([0.0, 1.0, -1.0, 2.0]), beta=3.0, clip=100.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(3), math.exp(-3), 100.0])


def test_critics_are_added_up() -> None:
    q_values = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    # 1 + 0 and 0 + 4 for targets 0 and 2
    assert twin_q_loss(q_values, torch.tensor([0.0, 2.0])).item() == pytest.approx(2.5)
    assert weighted_log_likelihood_loss(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])).item() == 3.5


def test_densities_are_those_of_torch() -> None:
    torch.manual_seed(0)
    head = GaussianHead(3, 2, [8], 0.0)
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-9.0, 0.5]))  # the first is cut to -5
    seen, actions = torch.randn(4, 3), torch.rand(4, 2)
    reference = torch.distributions.Normal(head.mode(seen), torch.tensor([-5.0, 0.5]).exp())
    torch.testing.assert_close(head.log_prob(seen, actions), reference.log_prob(actions).sum(1))
    discrete = CategoricalHead(3, 4, [8], 0.0)
    chosen = torch.tensor([0, 3, 1, 1])
    reference = torch.distributions.Categorical(logits=discrete.net(seen))
    torch.testing.assert_close(discrete.log_prob(seen, chosen), reference.log_prob(chosen))


@pytest.mark.parametrize("discrete", [False, True])
def test_twin_critics_are_two_networks(discrete: bool) -> None:
    critic = TwinCritic(3, 2, discrete, [8, 8])
    seen, actions = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]) if discrete else torch.rand(5, 2)
    both = critic(seen, actions)
    for twin in range(2):
        hidden = seen if discrete else torch.cat([seen, actions], 1)
        for i, (weight, bias) in enumerate(zip(critic.net.weights, critic.net.biases, strict=True)):
            hidden = hidden @ weight[twin] + bias[twin]
            hidden = torch.relu(hidden) if i < 2 else hidden
        wanted = hidden.gather(1, actions[:, None])[:, 0] if discrete else hidden[:, 0]
        torch.testing.assert_close(both[twin], wanted)


def test_targets_bootstrap_at_time_limits_and_not_at_the_end() -> None:
    data = along_a_corridor(episodes=20)
    model = IQL(dataset=data, **CORRIDOR, gamma=0.5, reward_scale=2.0, reward_shift=-1.0, device="cpu", seed=0)
    batch = model.batch(torch.arange(len(data)))
    ends = torch.from_numpy(data.terminations)
    assert data.timeouts.any() and ends.any()
    assert (batch["discounts"][ends] == 0).all() and (batch["discounts"][~ends] == 0.5).all()
    assert (batch["rewards"][ends] == 1).all() and (batch["rewards"][~ends] == -1).all()  # 2 r - 1


@pytest.mark.parametrize("discrete", [False, True])
def test_losses_equal_torchrls(discrete: bool) -> None:
    """Run with `make test-torchrl`; all three losses on one batch with the same weights."""
    pytest.importorskip("torchrl")
    spaces: dict[str, Any] = CORRIDOR if discrete else LINE
    data = along_a_corridor(episodes=30) if discrete else on_a_line(episodes=30)
    model = IQL(dataset=data, **spaces, seed=0, device="cpu", reward_scale=1.0, policy_kwargs={"net_arch": [16, 16]})
    model.learn(20)  # the slow Q is then another than Q
    batch = model.batch(torch.from_numpy(np.random.default_rng(0).integers(0, len(data), 64)))
    with torch.no_grad():
        q_value = model.slow_q_value(batch)
        value = model.policy.value_net(batch["observations"]).squeeze(1)
        next_value = model.policy.value_net(batch["next_observations"]).squeeze(1)
        weights = advantage_weights(q_value - value, model.beta, model.max_weight)
        ours = {
            "loss_value": model.value_loss(batch, q_value),
            "loss_actor": model.actor_loss(batch, weights),
            "loss_qvalue": model.critic_loss(batch, next_value),
        }
    theirs = torchrl_losses(model, batch, discrete)
    for name, loss in ours.items():
        assert loss.item() == pytest.approx(theirs[name].item(), rel=1e-5), name


def torchrl_losses(model: IQL, batch: dict[str, torch.Tensor], discrete: bool) -> Any:
    """Compute TorchRL's losses with our weights."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Categorical
    from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
    from torchrl.objectives import DiscreteIQLLoss, IQLLoss

    head, critic = model.policy.action_net, model.policy.critic

    class One(nn.Module):
        """One of the two critics."""

        def __init__(self, twin: int, source: TwinCritic):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(weight[twin].clone()) for weight in source.net.weights])
            self.biases = nn.ParameterList([nn.Parameter(bias[twin].clone()) for bias in source.net.biases])

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            hidden = torch.cat(inputs, -1)
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                hidden = hidden @ weight + bias
                hidden = torch.relu(hidden) if i < len(self.weights) - 1 else hidden
            return hidden

    class Normal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = copy.deepcopy(head)

        def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean = self.head.mode(seen)
            return mean, self.head.log_std.clamp(-5, 2).exp().expand_as(mean)

    if discrete:
        actor = ProbabilisticActor(
            TensorDictModule(copy.deepcopy(head.net), ["observation"], ["logits"]),
            in_keys=["logits"],
            distribution_class=torch.distributions.Categorical,
            spec=Categorical(2),
        )
        kind, inputs, outputs = DiscreteIQLLoss, ["observation"], ["state_action_value"]
        extra: dict[str, Any] = {"action_space": "categorical"}
    else:
        actor = ProbabilisticActor(
            TensorDictModule(Normal(), ["observation"], ["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=IndependentNormal,
            distribution_kwargs={"tanh_loc": False},
        )
        kind, inputs, outputs = IQLLoss, ["observation", "action"], ["state_action_value"]
        extra = {}
    qvalues = [ValueOperator(One(twin, critic), in_keys=inputs, out_keys=outputs) for twin in range(2)]
    value = ValueOperator(copy.deepcopy(model.policy.value_net), in_keys=["observation"])
    loss = kind(
        actor, qvalues, value_network=value, expectile=model.expectile, temperature=model.beta, loss_function="l2",
        num_qvalue_nets=2, **extra,
    )  # fmt: skip
    loss.make_value_estimator(gamma=model.gamma)
    with torch.no_grad():  # its own copy of the slow critics
        slow = [One(twin, model.policy.critic_target) for twin in range(2)]
        for name, target in loss.target_qvalue_network_params.items(True, True):
            parts = [part for part in (name if isinstance(name, tuple) else (name,)) if part in ("weights", "biases")]
            if parts:
                number = int(name[name.index(parts[0]) + 1])
                target.data.copy_(torch.stack([getattr(one, parts[0])[number] for one in slow]))
    done = (batch["discounts"] == 0).unsqueeze(1)
    data = TensorDict(
        {
            "observation": batch["observations"],
            "action": batch["actions"],
            "next": {
                "observation": batch["next_observations"],
                "reward": batch["rewards"].unsqueeze(1),
                "done": done,
                "terminated": done,
            },
        },
        batch_size=[len(done)],
    )
    with torch.no_grad():
        return loss(data)
