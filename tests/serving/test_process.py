"""A process that is killed or hangs, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.toys import BrightnessConfig, BrightnessEncoder
from vlmrl.serving.engine import ScorerFailure
from vlmrl.serving.process import ProcessConfig, ProcessEngine
from vlmrl.serving.settings import Service


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    seconds, settings = request.param
    made = ProcessConfig(batch_size=4, **settings).build(BrightnessConfig(seconds=seconds), "cpu")
    yield made
    made.close()


def engine(service: Service) -> ProcessEngine:
    assert isinstance(service._engine, ProcessEngine)
    return service._engine


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


@pytest.mark.parametrize("service", [(0.1, {})], indirect=True)
def test_a_killed_process_comes_back_and_does_what_was_lost_again(service: Service) -> None:
    scorer = service.scorer()
    tickets = scorer.submit(frames(*range(10)))  # two batches are under way, and one is half full
    before = engine(service).pid
    os.kill(before, signal.SIGKILL)
    tickets += scorer.submit(frames(10, 11, 12))  # whether it notices now or later
    np.testing.assert_array_equal(scorer.collect(tickets), BrightnessEncoder().encode_images(frames(*range(13))))
    assert engine(service).pid != before
    assert scorer.pop_stats()["restarts"] == 1
    os.kill(engine(service).pid, signal.SIGKILL)  # while nothing is under way, and somebody asks for words
    np.testing.assert_array_equal(
        service.encoder.encode_texts(["bright"]), BrightnessEncoder().encode_texts(["bright"])
    )
    np.testing.assert_array_equal(
        scorer.collect(scorer.submit(frames(7))), BrightnessEncoder().encode_images(frames(7))
    )


@pytest.mark.parametrize("service", [(0.0, {"timeout_s": 0.5})], indirect=True)
def test_a_process_that_hangs_is_noticed_in_time_and_replaced(service: Service) -> None:
    scorer = service.scorer()
    os.kill(engine(service).pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="brightness failed: silent for 0.5 seconds. It is started anew"):
        got = scorer.collect(scorer.submit(frames(1)))
    assert time.monotonic() - began > 0.5
    np.testing.assert_array_equal(got, BrightnessEncoder().encode_images(frames(1)))
    assert engine(service).restarts == 1


@pytest.mark.parametrize("service", [(30.0, {"timeout_s": 0.2, "restarts": 1})], indirect=True)
def test_a_process_that_hangs_again_and_again_ends_the_run(service: Service) -> None:
    scorer = service.scorer()
    with pytest.raises(ScorerFailure, match=r"brightness failed 2 times in a row \(scorer.restarts=1\).*0.2 seconds"):
        scorer.collect(scorer.submit(frames(1)))


SCRIPT = """
import sys, time
import numpy as np
from tests.toys import BrightnessConfig
from vlmrl.serving.process import ProcessConfig

if __name__ == "__main__":
    service = ProcessConfig(batch_size=4).build(BrightnessConfig(seconds=60), "cpu")
    service.scorer().submit(np.zeros((8, 8, 8, 3), dtype=np.uint8))  # it is busy for two minutes
    print(service._engine.pid, flush=True)
    time.sleep(60)
"""


def test_nothing_stays_behind_where_the_run_itself_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    run = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert run.stdout is not None
    assert int(run.stdout.readline()) > 0
    run.kill()
    # The scorer has the same standard output. That ends when the scorer does: in the middle of its batch.
    assert run.communicate(timeout=20)[0] == ""
    if before:
        assert not {name for name in set(os.listdir("/dev/shm")) - before if "vlmrl" in name or "psm" in name}


def test_transport_costs_little_beyond_the_copy() -> None:
    """Submitting 150 kB, less the copy itself: generous here, for a busy machine; the benchmark says how little."""
    service = ProcessConfig(batch_size=64, slots=2).build(BrightnessConfig(), "cpu")
    scorer = service.scorer()
    pictures = [np.zeros((224, 224, 3), dtype=np.uint8) for _ in range(64)]
    room = np.zeros((64, 224, 224, 3), dtype=np.uint8)
    costs = []
    for _ in range(7):
        began = time.perf_counter()
        tickets = scorer.submit(pictures)
        submitted = time.perf_counter()
        for i, picture in enumerate(pictures):
            room[i] = picture
        copied = time.perf_counter()
        scorer.collect(tickets)
        costs.append(((submitted - began) - (copied - submitted)) / 64)
    service.close()
    assert min(costs) < 50e-6
