"""Updates of implicit Q-learning a second: the suite's against the loop that one would write first.

    python -m benchmarks.offline_updates

The plain loop has a replay buffer in numpy, two critics one after the other, and PyTorch's Adam as it comes; the
mathematics is the same (tests/benchmarks/test_offline_updates.py). Observations have 11 numbers, actions 3, as
Hopper's; networks two layers of 256 units; a batch 256 transitions. The second comparison has layers of 64 units, where
less of the time goes into products of matrices. On a CUDA device the suite's updates are graphs of 100; both have one
thread of torch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from benchmarks.blocks import Arm, Block, compare, parser, report
from vlmrl.datasets.base import Transitions

GOAL = 3.0
OBSERVATION, ACTION, BATCH = 11, 3, 256
GAMMA, TAU, EXPECTILE, BETA = 0.99, 0.005, 0.7, 3.0
WIDTHS = ((256, 256), (64, 64))


def main() -> None:
    """Run the comparison, print it, write it down."""
    made = parser(__doc__, "offline_updates", 400)
    made.add_argument("--device", default="cpu", help="where both learn (default %(default)s)")
    arguments = made.parse_args()
    comparisons = []
    for net_arch in WIDTHS:
        arms = {
            "vlmrl": (Arm("vlmrl", make_ours, net_arch=net_arch, device=arguments.device), arguments.steps),
            "plain": (Arm("plain", make_plain, net_arch=net_arch, device=arguments.device), arguments.steps),
        }
        comparisons.append(compare(f"{net_arch[0]} units", arms, arguments.blocks))
    report("offline_updates", vars(arguments), GOAL, "plain", comparisons, arguments.out)


def recordings(n: int = 100_000, seed: int = 0) -> Transitions:
    """Return transitions of random numbers: what they are changes no speed."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(n + 1, OBSERVATION)).astype(np.float32)
    ends = np.arange(n) % 1000 == 999
    return Transitions(
        observations=seen[:-1],
        actions=rng.uniform(-1, 1, (n, ACTION)).astype(np.float32),
        rewards=rng.normal(size=n).astype(np.float32),
        next_observations=seen[1:],
        terminations=ends & (rng.uniform(size=n) < 0.5),
        timeouts=ends,
        episode_ids=np.arange(n) // 1000,
    )


def make_ours(net_arch: Sequence[int], device: str) -> Block:
    """Make the suite's updates."""
    torch.set_num_threads(1)
    model = make_iql(recordings(), net_arch, device)
    model.learn(2 * model.block_size if device.startswith("cuda") else 1)  # what is made at first, such as the graph

    def block(n: int) -> float:
        started = time.perf_counter()
        model.learn(n, reset_num_timesteps=False)
        _finish(device)
        return time.perf_counter() - started

    return block


def make_iql(data: Transitions, net_arch: Sequence[int], device: str, **kwargs: Any) -> Any:
    """Make the suite's algorithm with the settings of the comparison."""
    from vlmrl.agents.offline.iql import IQL

    return IQL(
        dataset=data,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,)),
        action_space=gym.spaces.Box(-1, 1, (ACTION,)),
        batch_size=BATCH,
        gamma=GAMMA,
        tau=TAU,
        expectile=EXPECTILE,
        beta=BETA,
        reward_scale=1.0,
        policy_kwargs={"net_arch": list(net_arch)},
        seed=0,
        device=device,
        **kwargs,
    )


def make_plain(net_arch: Sequence[int], device: str) -> Block:
    """Make the plain loop."""
    torch.set_num_threads(1)
    loop = PlainIql(recordings(), net_arch, device, updates=1_000_000)
    rng = np.random.default_rng(0)

    def block(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            loop.update(rng.integers(0, len(loop.data), BATCH))
        _finish(device)
        return time.perf_counter() - started

    return block


class PlainIql:
    """Implicit Q-learning as one would write it first.

    Args:
        data: Transitions, which stay in numpy.
        net_arch: Width of each hidden layer.
        device: Torch device.
        updates: Length of the cosine of the policy's step size.
    """

    def __init__(self, data: Transitions, net_arch: Sequence[int], device: str, updates: int):
        self.data, self._device = data, device
        self.value = _mlp([OBSERVATION, *net_arch, 1]).to(device)
        self.actor = _mlp([OBSERVATION, *net_arch, ACTION]).to(device)
        self.log_std = nn.Parameter(torch.zeros(ACTION, device=device))
        self.critics = [_mlp([OBSERVATION + ACTION, *net_arch, 1]).to(device) for _ in range(2)]
        self.targets = [copy.deepcopy(critic) for critic in self.critics]
        self._value_optimizer = torch.optim.Adam(self.value.parameters(), lr=3e-4)
        self._actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4)
        both = [weight for critic in self.critics for weight in critic.parameters()]
        self._critic_optimizer = torch.optim.Adam(both, lr=3e-4)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._actor_optimizer, updates)

    def update(self, index: np.ndarray) -> None:
        """Do one update on these transitions."""
        data = self.data
        seen, actions, rewards, after, ends = (
            torch.as_tensor(np.asarray(column[index], dtype=np.float32), device=self._device)
            for column in (data.observations, data.actions, data.rewards, data.next_observations, data.terminations)
        )
        pairs = torch.cat([seen, actions], dim=1)
        with torch.no_grad():
            q_value = torch.min(*(target(pairs).squeeze(1) for target in self.targets))
        difference = q_value - self.value(seen).squeeze(1)
        value_loss = (torch.abs(EXPECTILE - (difference < 0).float()) * difference**2).mean()
        self._step(self._value_optimizer, value_loss)

        with torch.no_grad():
            weights = torch.exp(BETA * (q_value - self.value(seen).squeeze(1))).clamp(max=100.0)
        policy = torch.distributions.Normal(torch.tanh(self.actor(seen)), self.log_std.clamp(-5, 2).exp())
        self._step(self._actor_optimizer, -(weights * policy.log_prob(actions).sum(1)).mean())
        self._schedule.step()

        with torch.no_grad():
            wanted = rewards + GAMMA * (1 - ends) * self.value(after).squeeze(1)
        losses = [((critic(pairs).squeeze(1) - wanted) ** 2).mean() for critic in self.critics]
        self._step(self._critic_optimizer, losses[0] + losses[1])

        with torch.no_grad():
            for critic, target in zip(self.critics, self.targets, strict=True):
                for fast, slow in zip(critic.parameters(), target.parameters(), strict=True):
                    slow.copy_((1 - TAU) * slow + TAU * fast)

    def _step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        nn.init.orthogonal_(layers[-2].weight, math.sqrt(2))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
