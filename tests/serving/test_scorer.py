from __future__ import annotations

import numpy as np
import pytest

from tests.toys import BrightnessEncoder
from vlmrl.serving.scorer import LocalScorer


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_embeddings_come_back_in_the_order_of_the_tickets() -> None:
    encoder = BrightnessEncoder()
    scorer = LocalScorer(encoder)
    first, second = scorer.submit(frames(0, 50)), scorer.submit(frames(100, 200))
    got = scorer.collect([second[1], first[0], second[0], first[1]])
    np.testing.assert_array_equal(got, encoder.encode_images(frames(200, 0, 100, 50)))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_results_do_not_depend_on_the_batch_size_and_memory_is_bounded(batch_size: int) -> None:
    encoder = BrightnessEncoder()
    scorer = LocalScorer(encoder, batch_size)
    tickets = [ticket for value in range(10) for ticket in scorer.submit(frames(value))]
    assert len(scorer._waiting) < batch_size
    got = scorer.collect(tickets)
    np.testing.assert_array_equal(got, BrightnessEncoder().encode_images(frames(*range(10))))
    assert max(encoder.batches) <= batch_size


def test_a_ticket_is_good_once() -> None:
    scorer = LocalScorer(BrightnessEncoder())
    tickets = scorer.submit(frames(1))
    scorer.collect(tickets)
    with pytest.raises(KeyError):
        scorer.collect(tickets)
