"""Actors that are killed, for real; and what is said where Ray is missing."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

import numpy as np
import pytest

from tests.toys import BrightnessConfig, BrightnessEncoder
from vlmrl.errors import UserError
from vlmrl.serving.ray import RayConfig


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs vlmrl[ray]")
def test_actors_that_are_killed_come_back_and_do_what_was_lost_again() -> None:
    service = RayConfig(batch_size=2, replicas=2, num_cpus=0.5, timeout_s=20).build(BrightnessConfig(0.3), "cpu")
    try:
        scorer = service.scorer()
        scorer.collect(scorer.submit(frames(1, 2, 3, 4)))
        for pid in service._engine._pids.values():
            os.kill(pid, signal.SIGKILL)
        tickets = scorer.submit(frames(*range(7)))
        np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(*range(7))))
        assert scorer.pop_stats()["restarts"] == 2

        pid = next(iter(service._engine._pids.values()))  # one that hangs
        service._engine._timeout = 1.0
        os.kill(pid, signal.SIGSTOP)
        tickets = scorer.submit(frames(*range(4)))
        np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(*range(4))))
    finally:
        service.close()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    with pytest.raises(UserError, match=r"pip install 'vlmrl\[ray\]'"):
        RayConfig().build(BrightnessConfig(), "cpu")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs vlmrl[ray]")
def test_a_machine_that_goes_away_takes_nothing_with_it() -> None:
    """Two Ray nodes on this machine; the one that encodes is taken away in the middle of its batches."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        first = cluster.add_node(num_cpus=1)
        service = RayConfig(batch_size=2, timeout_s=60, address=cluster.address).build(BrightnessConfig(0.5), "cpu")
        scorer = service.scorer()
        tickets = scorer.submit(frames(*range(5)))
        cluster.add_node(num_cpus=1)
        cluster.remove_node(first, allow_graceful=False)
        np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(*range(5))))
        service.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
