"""A real endpoint on loopback that labels texts, with a rule in place of a model, and behaves as badly as is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

GOOD = ("key", "door", "gold")  # a text that has one of these helps


@dataclass
class LabelServer:
    """What a test may change while the server runs, and what it was asked.

    Attributes:
        url: Address for `base_url`.
        mode: "fair"; "broken" always 500; "silent" never answers; "babble" writes no label; "babble once" does so
            for the first answer about each text; "empty" writes nothing, and counts no token.
        latency: Seconds that an answer takes.
        texts: How often each text was asked about; of a pair both together.
        under_way, most: Requests now, and the most at the same time so far.
    """

    url: str = ""
    mode: str = "fair"
    latency: float = 0.0
    texts: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most: int = 0

    @property
    def requests(self) -> int:
        return self.texts.total()


def _app(server: LabelServer) -> FastAPI:
    app = FastAPI()

    def good(text: str) -> bool:
        return any(word in text for word in GOOD)

    def reply(prompt: str, text: str) -> tuple[str, dict[str, float]]:
        if server.mode == "babble" or (server.mode == "babble once" and server.texts[text] == 1):
            return "What a lovely game.", {"What": 0.9}
        if "Message 1: " in prompt:
            first, second = (good(prompt.split(f"Message {i}: ")[1].split("\n\n")[0]) for i in (1, 2))
            word = "equal" if first == second else "1" if first else "2"
            return word, {"1": 0.9 if word == "1" else 0.05, "2": 0.9 if word == "2" else 0.05, "equal": 0.05}
        word = "yes" if good(text) else "no"
        if "label: yes" in prompt:
            return f"It is a message.\nlabel: {word}", {}
        return word, {"yes": 0.8 if word == "yes" else 0.1, "no": 0.1 if word == "yes" else 0.8}

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "labeller", "object": "model"}]})

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        prompt = body["messages"][-1]["content"]
        text = prompt.split("\n\n")[1]
        server.texts[text] += 1
        server.under_way += 1
        server.most = max(server.most, server.under_way)
        try:
            if server.mode == "silent":
                await asyncio.sleep(60)
            await asyncio.sleep(server.latency)
        finally:
            server.under_way -= 1
        if server.mode == "broken":
            return JSONResponse({"error": {"message": "out of order"}}, 500)
        content, chances = ("", {}) if server.mode == "empty" else reply(prompt, text)
        tops = [{"token": word, "logprob": math.log(chance), "bytes": None} for word, chance in chances.items()]
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "finish_reason": "stop",
        }
        if tops and body.get("logprobs"):
            choice["logprobs"] = {"content": [tops[0] | {"top_logprobs": tops}]}
        return JSONResponse(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "labeller",
                "choices": [choice],
                "usage": {"prompt_tokens": 100, "completion_tokens": int(bool(content)), "total_tokens": 101},
            }
        )

    return app


@contextlib.contextmanager
def serve_labels(port: int = 0) -> Iterator[LabelServer]:
    """Run the endpoint in a thread, on a free port of loopback or on the one that is named."""
    labels = LabelServer()
    config = uvicorn.Config(_app(labels), host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    labels.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield labels
    finally:
        server.should_exit = True
        thread.join(10)
