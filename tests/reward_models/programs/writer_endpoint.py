"""A server on loopback that speaks OpenAI's chat completions, and writes what it is scripted to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted"


@dataclass
class WriterEndpoint:
    """Attributes: `url` for `judge.base_url`; `script` from a request's body to the answer; `requests`, all bodies."""

    script: Callable[[dict[str, Any]], str]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def serve_writer(script: Callable[[dict[str, Any]], str]) -> Iterator[WriterEndpoint]:
    """Run an endpoint on a free port of loopback, in threads."""
    endpoint = WriterEndpoint(script)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            endpoint.requests.append(body)
            message = {"role": "assistant", "content": endpoint.script(body)}
            self._reply(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": MODEL,
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
                }
            )

        def _reply(self, values: dict[str, Any]) -> None:
            data = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *values: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
