"""What holds of every scorer, wherever its encoder runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.toys import BrightnessConfig, BrightnessEncoder, BrokenConfig
from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.serving import SCORERS
from vlmrl.serving.engine import LocalEngine, ScorerFailure, bucket
from vlmrl.serving.scorer import BatchingScorer, LocalScorer
from vlmrl.serving.settings import Service

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs vlmrl[ray]")
EVERYWHERE = [pytest.param(name, marks=needs_ray if name == "ray" else ()) for name in SCORERS]
ELSEWHERE = [pytest.param(name, marks=needs_ray if name == "ray" else ()) for name in SCORERS if name != "local"]


def serve(name: str, encoder: Any, **settings: Any) -> Service:
    return SCORERS.load(name)(**settings).build(encoder, "cpu")


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    made = serve(request.param, BrightnessConfig(nan_above=250), batch_size=4)
    yield made
    made.close()


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


@pytest.mark.parametrize("service", EVERYWHERE, indirect=True)
def test_the_contract(service: Service) -> None:
    """One process for each scorer, and all that is asked of it."""
    reference = BrightnessEncoder()

    # Embeddings come in the order of the tickets, from full batches and others, and frames may change afterwards.
    scorer = service.scorer()
    given = frames(*range(10))
    tickets = scorer.submit(given)
    given[:] = 99
    order = [7, 0, 9, 3, 8, 1, 2, 4, 5, 6]
    got = scorer.collect([tickets[i] for i in order])
    np.testing.assert_array_equal(got, reference.encode_images(frames(*order)))
    with pytest.raises(KeyError):  # a ticket is good once
        scorer.collect(tickets[:1])

    # Others share the encoder; frames may have another size when nothing is being filled, and several slots' worth
    # of them wait for room.
    other = service.scorer()
    large = np.repeat(np.arange(40, dtype=np.uint8), 16 * 24 * 3).reshape(40, 16, 24, 3)
    more, few = other.submit(large), scorer.submit(frames(5))
    np.testing.assert_array_equal(other.collect(more), reference.encode_images(large))
    np.testing.assert_array_equal(scorer.collect(few), reference.encode_images(frames(5)))
    assert scorer.pop_stats()["queue_depth"] == 0

    # The encoder is at hand.
    encoder = service.encoder
    assert (encoder.name, encoder.image_size, encoder.dim, encoder.fingerprint) == ("brightness", (8, 8), 2, "0")
    np.testing.assert_array_equal(encoder.encode_images(large), reference.encode_images(large))
    with pytest.warns(UserWarning, match="a word of warning"):
        np.testing.assert_array_equal(encoder.encode_texts(["warn"]), reference.encode_texts(["warn"]))
    encoder.check_env("somewhere")
    with pytest.raises(UserError, match="not there"):
        encoder.check_env("nowhere")

    # What cannot be encoded is known, as what it is, to whoever collects; the rest goes on.
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        scorer.submit(np.zeros((1, 8, 8, 3), dtype=np.float32))
    broken = scorer.submit(frames(251, 251, 251, 251))
    assert np.isnan(scorer.collect(broken)).all()
    assert np.isfinite(scorer.collect(scorer.submit(frames(3)))).all()


@pytest.mark.parametrize("name", EVERYWHERE)
def test_all_scorers_give_the_same_embeddings(name: str) -> None:
    """To the bit on a CPU, full batches and others, padded ones to the last digits."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (21, 112, 112, 3), dtype=np.uint8)
    local = LocalScorer(MiniConfig().build("cpu"), batch_size=8)
    expected = local.collect(local.submit(pictures))
    service = serve(name, MiniConfig(), batch_size=8, **({"eager": True} if name != "local" else {}))
    try:
        eager = service.scorer()
        np.testing.assert_allclose(eager.collect(eager.submit(pictures)), expected, atol=1e-6)
        service._settings = dataclasses.replace(service._settings, **({"eager": False} if name != "local" else {}))
        service._engine._pad = False
        waits = service.scorer()
        np.testing.assert_array_equal(waits.collect(waits.submit(pictures)), expected)
    finally:
        service.close()


def test_neighbours_in_a_batch_change_nothing() -> None:
    """What an eager scorer relies on: time decides who is encoded together, but not what comes out."""
    rng = np.random.default_rng(0)
    encoder = MiniConfig().build("cpu")
    pictures = rng.integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    expected = encoder.encode_images(pictures)
    order = rng.permutation(16)
    for size in (8, 16):
        got = np.concatenate([encoder.encode_images(pictures[order[i : i + size]]) for i in range(0, 16, size)])
        np.testing.assert_allclose(got, expected[order], atol=1e-6)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_weights_that_cannot_be_had_are_the_persons_error(name: str) -> None:
    with pytest.raises(UserError, match="no such weights"):
        serve(name, BrokenConfig())


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_are_a_matter_of_the_order_of_calls(batch_size: int) -> None:
    encoder = BrightnessEncoder()
    scorer = LocalScorer(encoder, batch_size)
    tickets = [ticket for value in range(10) for ticket in scorer.submit(frames(value))]
    got = scorer.collect(tickets)
    np.testing.assert_array_equal(got, BrightnessEncoder().encode_images(frames(*range(10))))
    assert encoder.batches == {1: [1] * 10, 3: [3, 3, 3, 1], 64: [10]}[batch_size]


def test_what_is_known_is_not_encoded_again() -> None:
    encoder = BrightnessEncoder()
    scorer = BatchingScorer(LocalEngine(encoder, 4), deduplicate=2)
    first = scorer.submit(frames(1, 1, 2))  # 1 again before it is encoded
    np.testing.assert_array_equal(scorer.collect(first), encoder.encode_images(frames(1, 1, 2)))
    assert encoder.batches[0] == 2
    scorer.collect(scorer.submit(frames(2, 1)))  # and after
    assert len(encoder.batches) == 2  # the reference's was the second
    assert scorer.pop_stats()["reused"] == 3
    scorer.collect(scorer.submit(frames(3)))  # 2 is now the oldest of three
    scorer.collect(scorer.submit(frames(1)))
    assert len(encoder.batches) == 3
    scorer.collect(scorer.submit(frames(2)))
    assert len(encoder.batches) == 4


def test_many_scorers_fill_batches_until_there_are_no_slots() -> None:
    engine = LocalEngine(BrightnessEncoder())
    scorers = [BatchingScorer(engine) for _ in range(9)]
    for scorer in scorers[:8]:
        scorer.submit(frames(1))
    with pytest.raises(ScorerFailure, match="close one"):
        scorers[8].submit(frames(1))
    scorers[0].close()
    scorers[8].collect(scorers[8].submit(frames(1)))


class Gate(BrightnessEncoder):
    """Encodes when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        self.opened.wait(20)
        return super().encode_images(frames)


class GateConfig:
    def __init__(self) -> None:
        self.encoder = Gate()

    def build(self, device: str) -> Gate:
        return self.encoder


def test_environments_wait_rather_than_that_a_queue_grows() -> None:
    config = GateConfig()
    service = serve("thread", config, batch_size=2, slots=3)
    scorer = service.scorer()
    began = time.monotonic()
    tickets = scorer.submit(frames(*range(6)))  # three batches fill the slots, and nobody waits
    assert time.monotonic() - began < 5
    assert scorer.pop_stats()["queue_depth"] == 6
    threading.Timer(0.3, config.encoder.opened.set).start()
    began = time.monotonic()
    tickets += scorer.submit(frames(6))  # the fourth has no room before the encoder is done with one
    assert time.monotonic() - began > 0.2
    assert scorer.pop_stats()["wait_s"] > 0.2
    np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(*range(7))))
    service.close()


def test_a_thread_that_hangs_is_noticed() -> None:
    config = GateConfig()
    service = serve("thread", config, timeout_s=0.2)
    scorer = service.scorer()
    with pytest.raises(ScorerFailure, match="has not finished a batch for 0.2 seconds"):
        scorer.collect(scorer.submit(frames(1)))
    config.encoder.opened.set()
    service.close()


def test_an_eager_scorer_starts_when_there_is_nothing_else_to_do() -> None:
    config = GateConfig()
    service = serve("thread", config, batch_size=64, eager=True)
    scorer = service.scorer()
    tickets = scorer.submit(frames(1, 2))  # starts at once
    tickets += scorer.submit(frames(3))  # waits, and so does the next: together they are a batch
    tickets += scorer.submit(frames(4))
    config.encoder.opened.set()
    np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(1, 2, 3, 4)))
    assert config.encoder.batches == [8, 8]  # padded
    service.close()


@pytest.mark.parametrize(("n", "size"), [(1, 8), (8, 8), (9, 16), (33, 48), (48, 48)])
def test_batches_have_few_sizes(n: int, size: int) -> None:
    assert bucket(n, 48) == size
    assert bucket(n, 4) == 4


def test_a_learner_leaves_two_batches_alone() -> None:
    service = serve("thread", BrightnessConfig(), batch_size=64)
    assert service.lag(8) == 16
    assert service.lag(3 / 4) == 171
    service.close()
    assert serve("local", BrightnessConfig()).lag(8) == 0
    service = serve("thread", BrightnessConfig(), lag=5)
    assert service.lag(8) == 5
    service.close()
