"""A real endpoint on loopback that speaks OpenAI's chat completions, with a tiny model behind it.

The model is a linear layer on the mean colour of a picture, trained on the spot to tell how red a picture is. It reads
the PNGs of the request, and writes its verdict word by word with the probabilities that it has. `mode` makes the server
behave badly in the ways that servers do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

MODEL = "tiny-red"


def train_redness(seed: int = 0) -> torch.nn.Linear:
    """Train the model on pictures of one colour: mean colour (3,) in [0, 1] -> red minus the mean of green and blue."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(256, 3, generator=generator)
    wanted = colours[:, :1] - colours[:, 1:].mean(dim=1, keepdim=True)
    model = torch.nn.Linear(3, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        loss = torch.nn.functional.mse_loss(model(colours), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 1e-3
    return model


@dataclass
class Endpoint:
    """The server's behaviour, which a test may change while it runs, and what it was asked.

    Attributes:
        url: Address for `base_url`.
        mode: "fair"; "first" always prefers the clip that is shown first; "limited" answers 429 `failures` times, then
            fairly; "broken" always 500; "stall" never answers; "babble" writes words without a verdict; "html" is not
            even JSON; "empty" has no choices; "refuse" declines.
        failures: See "limited".
        retry_after: Seconds that a 429 asks for.
        key: The only key that is taken; any, if empty.
        refuses: Fields of a request that it answers with `refusal`.
        refusal: 400, or 422 as of servers that are made with FastAPI.
        one_at_a_time: Whether `n` is ignored.
        requests: Bodies of all requests so far.
        under_way: Requests under way now, and `most` of them at the same time so far.
    """

    url: str = ""
    mode: str = "fair"
    failures: int = 0
    retry_after: float = 0.05
    key: str = ""
    refuses: tuple[str, ...] = ()
    refusal: int = 400
    one_at_a_time: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0


def pictures_of(body: dict[str, Any]) -> list[list[np.ndarray]]:
    """Return the pictures of each clip of a request, as the model sees them."""
    clips: list[list[np.ndarray]] = []
    for message in body["messages"]:
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            if part["type"] == "text" and part["text"].startswith("Clip "):
                clips.append([])
            elif part["type"] == "image_url":
                data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
                clips[-1].append(cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])
    return clips


def app_of(endpoint: Endpoint) -> FastAPI:
    app = FastAPI()
    model = train_redness()

    def redness(clip: list[np.ndarray]) -> float:
        with torch.inference_mode():
            colours = torch.tensor(np.array([picture.mean((0, 1)) for picture in clip]) / 255, dtype=torch.float32)
            return float(model(colours).mean())

    def reply(body: dict[str, Any]) -> tuple[str, dict[str, float]]:
        """Return what the model writes, and {word: probability} of its verdict."""
        text = json.dumps(body["messages"])
        clips = pictures_of(body)
        if clips:
            left, right = (redness(clip) for clip in clips)
        else:  # the second request of "analyse": what it wrote itself
            left, right = (float(part) for part in text.split("redness ")[1].split(" ;")[0].split(" against "))
        first = 1 / (1 + np.exp(-20 * (left - right)))
        chances = {"1": float(first), "2": float(1 - first)}
        if endpoint.mode == "first":
            chances = {"1": 0.99, "2": 0.01}
        verdict = max(chances, key=chances.__getitem__)
        if endpoint.mode == "babble":
            return "Both clips are lovely.", {"Both": 0.5}
        if "JSON object" in text:
            critique = {"clip_1": f"{left:.3f}", "clip_2": f"{right:.3f}", "verdict": verdict}
            return f"Here it is:\n{json.dumps(critique | {'confidence': max(chances.values())})}", chances
        if "Answer with one word" not in text:
            return f"redness {left:.3f} against {right:.3f} ;", chances
        return verdict, chances

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        if endpoint.key and request.headers.get("authorization") != f"Bearer {endpoint.key}":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        endpoint.requests.append(body)
        endpoint.under_way += 1
        endpoint.most = max(endpoint.most, endpoint.under_way)
        try:
            return await answer(body)
        finally:
            endpoint.under_way -= 1

    async def answer(body: dict[str, Any]) -> Response:
        for name in endpoint.refuses:
            if name in body:
                instead = ", use 'max_completion_tokens'" if name == "max_tokens" else ""
                return JSONResponse({"error": {"message": f"'{name}' is not supported{instead}"}}, endpoint.refusal)
        if endpoint.mode == "limited" and endpoint.failures > 0:
            endpoint.failures -= 1
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": str(endpoint.retry_after)})
        if endpoint.mode == "broken":
            return JSONResponse({"error": {"message": "out of order"}}, 500)
        if endpoint.mode == "stall":
            await asyncio.sleep(1)  # longer than any test waits
        if endpoint.mode == "html":
            return Response("<html>gateway</html>", media_type="text/html")
        if endpoint.mode == "empty":
            return JSONResponse({"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "choices": []})
        await asyncio.sleep(0.01)  # so that requests overlap
        text, chances = reply(body)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if endpoint.mode == "refuse":
            message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            tops = [
                {"token": word, "logprob": float(np.log(chance)), "bytes": None} for word, chance in chances.items()
            ]
            tops.append({"token": "the", "logprob": -9.0, "bytes": None})
            choice["logprobs"] = {"content": [tops[0] | {"top_logprobs": tops}]}
        n = 1 if endpoint.one_at_a_time else body.get("n", 1)
        usage = {"prompt_tokens": 100, "completion_tokens": 10 * n, "total_tokens": 100 + 10 * n}
        return JSONResponse(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [choice | {"index": i} for i in range(n)],
                "usage": usage,
            }
        )

    return app


@contextlib.contextmanager
def serve() -> Iterator[Endpoint]:
    """Run an endpoint on a free port of loopback, in a thread."""
    endpoint = Endpoint()
    config = uvicorn.Config(app_of(endpoint), host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield endpoint
    finally:
        server.should_exit = True
        thread.join(10)
