"""Updates in blocks: that a graph could be made of them, and that it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.agents.offline.recordings import CORRIDOR, LINE, along_a_corridor, on_a_line
from vlmrl.agents.offline.bc import BC
from vlmrl.agents.offline.blocks import UpdateBlocks
from vlmrl.agents.offline.iql import IQL


def test_a_block_does_each_update_and_reports_the_mean() -> None:
    done = []

    def update(index: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        done.append(index.tolist())
        return rates.clone()

    blocks = UpdateBlocks(update, torch.device("cpu"), 3)
    figures = blocks.run(torch.arange(6).reshape(3, 2), torch.tensor([[1.0], [2.0], [6.0]]))
    assert done == [[0, 1], [2, 3], [4, 5]] and figures.tolist() == [3.0]


@pytest.mark.parametrize("kind", [IQL, BC])
@pytest.mark.parametrize("discrete", [False, True])
def test_an_update_never_waits_for_the_device(kind: type, discrete: bool) -> None:
    """A graph cannot hold what the host must know: the length of a result, or a number of it."""
    data, spaces = (along_a_corridor(episodes=9), CORRIDOR) if discrete else (on_a_line(episodes=9), LINE)
    model = kind(dataset=data, **spaces, device="cpu", policy_kwargs={"net_arch": [8]})
    model.learn(1)
    waited = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                waited.append(function)
            return function(*args, **(kwargs or {}))

    index, rates = torch.arange(8), torch.full((len(model.optimizers),), 1e-3)
    with Watch():
        torch.ones(1).item()
        assert len(waited) == 1  # it would have been seen
        model.update(index, rates)
    assert len(waited) == 1


@pytest.mark.gpu
def test_a_graph_learns_the_same_as_updates_one_by_one() -> None:
    data, seen = on_a_line(), np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    arguments = {"policy_kwargs": {"net_arch": [32, 32]}, "seed": 0, "device": "cuda"}
    model = IQL(dataset=data, **LINE, **arguments, block_size=10).learn(60)
    assert model._blocks is not None and model._blocks._graph is not None
    plain = IQL(dataset=data, **LINE, **{**arguments, "device": "cpu"}, block_size=10)
    plain.learn(60)
    np.testing.assert_allclose(
        model.predict(seen, deterministic=True)[0], plain.predict(seen, deterministic=True)[0], atol=1e-2
    )
