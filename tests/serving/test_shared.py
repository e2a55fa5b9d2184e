"""One process that encodes for several runs; it and they are killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.toys import BrightnessConfig, BrightnessEncoder, BrokenConfig
from vlmrl.errors import UserError
from vlmrl.serving import shared_worker
from vlmrl.serving.process import ProcessConfig, ProcessEngine
from vlmrl.serving.settings import Service
from vlmrl.serving.shared_worker import Counter, Hello, socket_path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scorer.share is for Linux")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets of a test lie in its folder, and no process of it stays."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    for process in psutil.process_iter(["cmdline"]):
        if str(tmp_path) in " ".join(process.info["cmdline"] or []):
            process.kill()


def join(seconds: float = 0.0, **settings: object) -> Service:
    settings = {"batch_size": 4, "share": "here", **settings}
    return ProcessConfig(**settings).build(BrightnessConfig(seconds=seconds), "cpu")  # type: ignore[arg-type]


def pid(service: Service) -> int:
    assert isinstance(service._engine, ProcessEngine)
    return service._engine.pid


def frames(*values: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def expected(*values: int) -> np.ndarray:
    return BrightnessEncoder().encode_images(frames(*values))


def test_runs_of_one_name_share_a_process_that_ends_when_the_last_has_left() -> None:
    one, two = join(), join()
    process = psutil.Process(pid(one))
    assert pid(one) == pid(two) != os.getpid()
    first, second = one.scorer(), two.scorer()
    tickets = first.submit(frames(*range(10))), second.submit(frames(*range(100, 107)))
    np.testing.assert_array_equal(second.collect(tickets[1]), expected(*range(100, 107)))
    np.testing.assert_array_equal(first.collect(tickets[0]), expected(*range(10)))
    np.testing.assert_array_equal(two.encoder.encode_texts(["bright"]), BrightnessEncoder().encode_texts(["bright"]))
    other = join(share="elsewhere")
    assert pid(other) != pid(one)
    other.close()
    one.close()
    np.testing.assert_array_equal(second.collect(second.submit(frames(5))), expected(5))
    two.close()
    process.wait(shared_worker.LINGER + 10)
    assert not socket_path("here").exists()


def test_where_the_process_is_killed_all_runs_find_the_same_new_one_and_lose_nothing() -> None:
    one, two = join(0.05), join(0.05)
    first, second = one.scorer(), two.scorer()
    tickets = first.submit(frames(*range(10))), second.submit(frames(*range(100, 110)))
    before = pid(one)
    os.kill(before, signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="brightness failed: it is gone. It is started anew"):
        np.testing.assert_array_equal(first.collect(tickets[0]), expected(*range(10)))
    with pytest.warns(RuntimeWarning, match="brightness failed: it is gone. It is started anew"):
        np.testing.assert_array_equal(second.collect(tickets[1]), expected(*range(100, 110)))
    assert pid(one) == pid(two) != before
    one.close()
    two.close()


def test_a_process_that_hangs_is_replaced_for_all() -> None:
    one, two = join(timeout_s=0.5), join(timeout_s=0.5)
    before = pid(one)
    os.kill(before, signal.SIGSTOP)
    with pytest.warns(RuntimeWarning, match="brightness failed: silent for 0.5 seconds"):
        np.testing.assert_array_equal(_ask(one), expected(1))
    with pytest.warns(RuntimeWarning, match="brightness failed"):
        np.testing.assert_array_equal(_ask(two), expected(1))
    assert pid(one) == pid(two) != before
    one.close()
    two.close()


def _ask(service: Service) -> np.ndarray:
    scorer = service.scorer()
    return scorer.collect(scorer.submit(frames(1)))


RUN = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
import numpy as np
from tests.toys import BrightnessConfig
from vlmrl.serving.process import ProcessConfig

service = ProcessConfig(batch_size=4, share="here").build(BrightnessConfig(seconds=0.05), "cpu")
scorer = service.scorer()
while True:
    tickets = scorer.submit(np.zeros((8, 512, 512, 3), dtype=np.uint8))
    print(service._engine.pid, flush=True)
    scorer.collect(tickets)
"""


def test_where_a_run_is_killed_its_memory_is_freed_and_the_others_go_on(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.stdout is not None
    started = int(run.stdout.readline())
    other = join(0.05)  # the process was started by the run that will be killed, and outlives it
    assert pid(other) == started
    scorer = other.scorer()
    tickets = scorer.submit(frames(*range(10)))
    assert len(_shared_maps(started)) == 2
    run.kill()
    run.wait()
    np.testing.assert_array_equal(scorer.collect(tickets), expected(*range(10)))
    until = time.monotonic() + 10
    while len(_shared_maps(started)) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(_shared_maps(started)) == 1
    assert scorer.pop_stats()["restarts"] == 0
    other.close()


def _shared_maps(number: int) -> list[str]:
    return [line for line in Path(f"/proc/{number}/maps").read_text().splitlines() if "vlmrl-frames" in line]


def test_a_run_that_wants_another_encoder_is_told_so() -> None:
    one = join()
    with pytest.raises(
        UserError, match=r"scorer.share: the process of this name runs .*seconds=0.0.* wants .*seconds=1"
    ):
        join(seconds=1)
    np.testing.assert_array_equal(_ask(one), expected(1))
    one.close()


def test_an_encoder_that_cannot_be_loaded_is_said_and_leaves_no_process() -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="no such weights"):
            ProcessConfig(share="here").build(BrokenConfig(), "cpu")
    assert not socket_path("here").exists()


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(UserError, match="it is a name of letters, digits"):
        join(share=name)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"vlmrl-{os.getuid()}").mkdir()
    (tmp_path / f"vlmrl-{os.getuid()}").chmod(0o755)
    with pytest.raises(UserError, match="others may enter"):
        join()


@pytest.mark.parametrize(("merge", "batches"), [(True, [8, 4]), (False, [3, 4, 4])])
def test_batches_of_runs_that_allow_it_are_encoded_together(merge: bool, batches: list[int]) -> None:
    """Two fit into one batch of 8, the third does not; what comes out is the same."""
    import socket
    from multiprocessing.connection import Connection

    from vlmrl.serving.process_worker import Batch

    encoder = BrightnessEncoder()
    with socket.socket(socket.AF_UNIX) as listening:
        counter = Counter(listening, Hello(BrightnessConfig(), "cpu", 1, 8, merge), encoder)
        runs = [socket.socketpair() for _ in range(3)]
        connections = [Connection(ours.detach()) for ours, _ in runs]
        wanted = [frames(1, 2, 3), frames(4, 5, 6, 7), frames(8, 9, 10, 11)]
        waiting = [(each, Batch(0, given, len(given))) for each, given in zip(connections, wanted, strict=True)]
        if merge:
            counter._merging.update(connections)
        outcomes = []
        while waiting:
            together = counter._together(waiting)
            waiting = waiting[len(together) :]
            outcomes += counter._encode([batch for _, batch in together])
        for each, (_, theirs) in zip(connections, runs, strict=True):
            each.close()
            theirs.close()
    assert encoder.batches == batches
    for outcome, given in zip(outcomes, wanted, strict=True):
        np.testing.assert_array_equal(outcome, BrightnessEncoder().encode_images(given))
