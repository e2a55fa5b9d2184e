"""Starting and ending servers of language models; vLLM's by a stand-in that takes the options which vLLM documents."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks import llm_servers
from benchmarks.llm_servers import KINDS, serving

PYTHON = sys.executable
# The options of `vllm serve` that are used here, with their types and choices as vLLM's reference of its command line
# gives them; anything else ends it with code 2, as it does the program itself. It says that it is well a while after
# its start, calls its model by the folder, and has a process beside it, as vLLM has its engine.
VLLM = """#!{python}
import argparse, http.server, json, os, subprocess, sys, time
parser = argparse.ArgumentParser("vllm", allow_abbrev=False)
serve = parser.add_subparsers(required=True).add_parser("serve", allow_abbrev=False)
serve.add_argument("model_tag", nargs="?")
serve.add_argument("--host")
serve.add_argument("--port", type=int, default=8000)
serve.add_argument("--dtype", choices=["auto", "bfloat16", "float", "float16", "float32", "half"])
serve.add_argument("--max-model-len", type=int)
serve.add_argument("--max-num-seqs", type=int)
serve.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction)
given = parser.parse_args()
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
ready = time.monotonic() + 0.5

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {{"/health": "", "/v1/models": {{"data": [{{"id": given.model_tag}}], "engine": engine.pid,
                "offline": os.environ["HF_HUB_OFFLINE"], "length": given.max_model_len}}}}
        self.send_response(200 if time.monotonic() > ready and self.path in told else 503)
        self.end_headers()
        self.wfile.write(json.dumps(told.get(self.path)).encode())
    def log_message(self, *line):
        pass

http.server.HTTPServer((given.host, given.port), Answers).serve_forever()
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all there is on PATH; nothing beside this Python counts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(llm_servers.sys, "executable", str(tmp_path / "elsewhere" / "python"))
    return folder


def install(folder: Path, text: str) -> None:
    program = folder / "vllm"
    program.write_text(text.format(python=PYTHON))
    program.chmod(0o755)


def test_the_command_of_vllm_is_one_that_it_documents(path: Path, tmp_path: Path) -> None:
    install(path, VLLM)
    assert KINDS["vllm"].missing() == ""
    with serving("vllm", tmp_path) as url:
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
        with urllib.request.urlopen(f"{url}/models", timeout=5) as reply:
            told = json.loads(reply.read())
        assert told["data"][0]["id"] == str(tmp_path)  # the name by which judges ask for it
        assert told["offline"] == "1" and told["length"] == llm_servers.LONGEST
    deadline = time.monotonic() + 20
    while _runs(told["engine"]):  # what a server has started ends with it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path("/proc", str(pid), "stat")
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_an_option_that_a_server_does_not_take_is_shown_in_its_own_words(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(path, VLLM.replace('"--max-num-seqs"', '"--max-seqs"'))
    with (
        pytest.raises(RuntimeError, match=r"(?s)'vllm' ended with code 2.*unrecognized arguments: --max-num-seqs 64"),
        serving("vllm", tmp_path),
    ):
        pytest.fail("it was there")


def test_what_is_not_installed_is_said(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "needs vLLM's program vllm, which is neither beside this Python nor on PATH"
    assert KINDS["vllm"].missing() == said
    with (
        pytest.raises(RuntimeError, match=f"The server 'vllm' cannot be started: it {said}"),
        serving("vllm", tmp_path),
    ):
        pytest.fail("it was there")
    monkeypatch.setattr(llm_servers, "find_spec", lambda name: None if name == "accelerate" else object())
    with (
        pytest.raises(RuntimeError, match="'transformers' cannot be started: it needs accelerate: make test-judges"),
        serving("transformers", tmp_path),
    ):
        pytest.fail("it was there")
