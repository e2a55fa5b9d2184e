"""The comparison of updates: that both sides do the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import offline_updates
from benchmarks.offline_updates import BATCH, PlainIql, make_iql, recordings


def test_the_suites_updates_are_those_of_the_plain_loop() -> None:
    """The same weights, batches and step sizes come to the same weights: V, then policy and Q, then the slow Q."""
    data, updates = recordings(2000), 20
    ours = make_iql(data, (16, 16), "cpu", block_size=5)
    plain = PlainIql(data, (16, 16), "cpu", updates)
    copy_weights(ours, plain)
    draws = np.random.default_rng(0)
    ours.learn(updates)
    for _ in range(updates):
        plain.update(draws.integers(0, len(data), BATCH))
    assert not torch.allclose(plain.targets[0][0].weight, plain.critics[0][0].weight, atol=1e-5)
    seen, actions = torch.from_numpy(data.observations[:64]), torch.from_numpy(data.actions[:64])
    policy, pairs = ours.policy, torch.cat([seen, actions], 1)
    with torch.no_grad():
        torch.testing.assert_close(policy.value_net(seen), plain.value(seen), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(policy.action_net.net(seen), plain.actor(seen), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(policy.action_net.log_std, plain.log_std, rtol=1e-4, atol=1e-5)
        for twin in range(2):
            for one, other in ((policy.critic, plain.critics), (policy.critic_target, plain.targets)):
                torch.testing.assert_close(
                    one(seen, actions)[twin], other[twin](pairs).squeeze(1), rtol=1e-4, atol=1e-5
                )


def copy_weights(ours, plain: PlainIql) -> None:  # type: ignore[no-untyped-def]
    policy = ours.policy
    plain.value.load_state_dict(policy.value_net.state_dict())
    plain.actor.load_state_dict(policy.action_net.net.state_dict())
    with torch.no_grad():
        for twin in range(2):
            for networks in (plain.critics, plain.targets):
                linear = [layer for layer in networks[twin] if isinstance(layer, torch.nn.Linear)]
                for i, layer in enumerate(linear):
                    layer.weight.copy_(policy.critic.net.weights[i][twin].T)
                    layer.bias.copy_(policy.critic.net.biases[i][twin, 0])


def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["offline_updates", "--blocks", "1", "--steps", "3", "--out", str(out)])
    monkeypatch.setattr(offline_updates, "WIDTHS", ((8, 8),))
    offline_updates.main()
    result = json.loads(out.read_text())
    (comparison,) = result["comparisons"]
    assert list(comparison["per_second"]) == ["vlmrl", "plain"] and result["goal"]["ratio"] == 3.0
