"""Servers of language models on loopback, where they are installed: vLLM's, and the one of transformers.

That of transformers takes `pip install 'vlmrl[judges]' 'transformers[serving]'`; vLLM's is there if its program `vllm`
is beside this Python or on PATH: it pins a torch, so it wants an environment of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from benchmarks.tiny_llm import LONGEST
from vlmrl.judges.openai import ChoiceWay

PATIENCE = 240.0  # seconds until a server must be there: vLLM imports for most of a minute on a slow machine


@dataclass(frozen=True)
class Kind:
    """A server.

    Attributes:
        missing: Says what is missing here, in words; empty where it can be started.
        command: Makes its command line of the model's folder and a port.
        choices: How it is held to one of several words.
        tells_logprobs: Whether it says how likely each word was.
    """

    missing: Callable[[], str]
    command: Callable[[Path, int], list[str]]
    choices: ChoiceWay
    tells_logprobs: bool


def _program(name: str) -> str:
    """Return the path of a program beside this Python, or else on PATH; empty where there is none."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name) or ""


def _transformers_missing() -> str:
    missing = [name for name in ("transformers", "accelerate", "fastapi", "uvicorn") if find_spec(name) is None]
    return f"needs {', '.join(missing)}: make test-judges" if missing else ""


def _vllm_missing() -> str:
    return "" if _program("vllm") else "needs vLLM's program vllm, which is neither beside this Python nor on PATH"


def _vllm(folder: Path, port: int) -> list[str]:
    # Eager and in float32: the model is tiny, and the machine may have no GPU.
    lean = ["--enforce-eager", "--dtype", "float32", "--max-model-len", str(LONGEST), "--max-num-seqs", "64"]
    return [_program("vllm"), "serve", str(folder), "--port", str(port), "--host", "127.0.0.1", *lean]


def _transformers(folder: Path, port: int) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    # As the program `transformers`, but for a torchvision whose compiled part is for another torch.
    start = "from vlmrl.encoders.torchvision_ops import prepare_torchvision as prepare; prepare(); "
    start += "from transformers.cli.transformers import main; main()"
    return [sys.executable, "-c", start, "serve", str(folder), *where]


KINDS = {
    "vllm": Kind(_vllm_missing, _vllm, "structured_outputs", True),
    "transformers": Kind(_transformers_missing, _transformers, "words", False),
}


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[str]:
    """Run a server of a model, whose name is its folder.

    Args:
        kind: Which, a key of `KINDS`.
        folder: Model and tokenizer in the form of transformers.

    Yields:
        Its address, as `judge.base_url` takes it.

    Raises:
        RuntimeError: It cannot be started here, it ended, or was not there in time; with the end of what it printed.
    """
    if missing := KINDS[kind].missing():
        raise RuntimeError(f"The server '{kind}' cannot be started: it {missing}.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Nothing is to be looked for on a hub, and usage is nobody's business.
    env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            KINDS[kind].command(folder, port), stdout=log, stderr=log, env=env, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", kind, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):  # whatever it has started is in its group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, kind: str, log: IO[bytes]) -> None:
    """Wait until a server says that it is well."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):  # not there, or not ready
            return
        time.sleep(0.2)
    log.seek(0)
    printed = log.read().decode(errors="replace")[-3000:]
    said = (
        f"ended with code {process.returncode}"
        if process.returncode is not None
        else f"is not there after {PATIENCE:g} s"
    )
    raise RuntimeError(f"The server '{kind}' {said}. It printed:\n{printed}")
