"""The command itself, with Ray: `make test-ray`."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from vlmrl.encoders.mini import MiniConfig
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.rows import Rows
from vlmrl.serving.client import RewardClient

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("fastapi") is None, reason="needs vlmrl[ray]"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmrl.serve", "threads=1", "device=cpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@needs_ray
def test_the_command_serves_until_it_is_told_to_end_and_leaves_nothing_behind() -> None:
    port = free_port()
    with command(f"port={port}", "replicas=2", "num_cpus=0.5") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert f"with encoder mini at http://127.0.0.1:{port}" in said
        started = psutil.Process(process.pid).children(recursive=True)
        frames = np.random.default_rng(0).integers(0, 255, (6, 112, 112, 3), dtype=np.uint8)
        client = RewardClient(f"http://127.0.0.1:{port}")
        encoder = MiniConfig().build("cpu")
        model = ClipReward("a humanoid robot kneeling", encoder=encoder)
        wanted = model(Rows(np.arange(6), {"embeddings": {"clip": encoder.encode_images(frames)}}))
        for _ in range(4):  # of both replicas
            got = client.rewards(frames, "a humanoid robot kneeling", env="humanoid")
            np.testing.assert_allclose(got, wanted, atol=1e-5)
        with pytest.raises(UserError, match=r"\(422\): Unknown reward 'clipp'. Did you mean 'clip'"):
            client.rewards(frames, "a humanoid robot kneeling", env="humanoid", reward="clipp")

        (replica, *_) = [child for child in started if "ServeReplica" in " ".join(child.cmdline())]
        replica.kill()  # Ray starts another one, and the second answers meanwhile
        np.testing.assert_allclose(
            client.rewards(frames, "a humanoid robot kneeling", env="humanoid"), wanted, atol=1e-5
        )

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(started, timeout=20)
        assert not alive


@pytest.mark.slow
@needs_ray
def test_what_is_wrong_with_the_encoder_is_one_line() -> None:
    with command("encoder.path=/nowhere", f"port={free_port()}") as process:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 2
        assert said.strip().splitlines()[-1].startswith("Error: ")
        assert "/nowhere" in said


def test_an_address_that_is_taken_is_said_at_once() -> None:
    from vlmrl.workflows.serve.run import _check_free

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"host=127.0.0.1 port={port}: Address already in use. Give another port="):
            _check_free("127.0.0.1", port)
    _check_free("127.0.0.1", port)


def test_without_ray_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.workflows.serve.test_http import SETTINGS
    from vlmrl.workflows.serve.run import serve

    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    with pytest.raises(UserError, match=r"pip install 'vlmrl\[ray\]'"):
        serve(SETTINGS)
