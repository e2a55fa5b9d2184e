"""Requests for rewards over HTTP: who may ask, how much, and answers in JSON.

    GET  /health       {"status": "ok"}; needs no token
    GET  /v1/models    the encoder, rewards with their settings, limits
    POST /v1/rewards   multipart/form-data: `request`, a JSON object (see `RewardRequest`), and files in order of time,
                       whose field is the name of their camera -> {"rewards": [one a picture], ...}

What is wrong with a request is said as {"error": sentence}.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from vlmrl.errors import UserError
from vlmrl.serving.engine import ScorerFailure
from vlmrl.serving.uploads import MEGABYTE, TooLarge, UnknownKind, UploadLimits, decode_clip
from vlmrl.typed import typed
from vlmrl.workflows.config.serve import is_loopback
from vlmrl.workflows.serve.rewarder import Rewarder, RewardRequest

MAX_JSON = 1 << 18  # bytes of `request`: the sentences that the limits allow, and room to spare

logger = logging.getLogger(__name__)


class HttpError(UserError):
    """A request that is wrong in a way for which HTTP has a number.

    Args:
        status: The number.
        message: What is wrong.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class RewardApi:
    """Answers HTTP requests.

    Args:
        rewarder: Gives the rewards.
        token: What clients must show; None lets all in that come over the loopback device.
    """

    def __init__(self, rewarder: Rewarder, token: str | None):
        self._rewarder = rewarder
        self._token = token
        self._routes = {"/health": ("GET", self._health), "/v1/models": ("GET", self._models)} | {
            "/v1/rewards": ("POST", self._rewards)
        }

    async def respond(self, request: Request) -> Response:
        """Answer a request; whatever is wrong with it is part of the answer."""
        try:
            path = request.url.path
            if path not in self._routes:
                raise HttpError(404, f"There is no {path}. There are {', '.join(self._routes)}.")
            method, answer = self._routes[path]
            if request.method != method:
                raise HttpError(405, f"{path} takes {method}, not {request.method}.")
            if path != "/health":
                self._check_caller(request)
            return JSONResponse(await answer(request))
        except UserError as error:
            headers = {"WWW-Authenticate": "Bearer"} if _status(error) == 401 else None
            return JSONResponse({"error": str(error)}, _status(error), headers)
        except ScorerFailure as error:
            logger.exception("The encoder is gone")
            return JSONResponse({"error": f"The encoder is gone, try again later: {error}"}, 503)
        except ClientDisconnect:
            return JSONResponse({"error": "The client is gone."}, 400)  # nobody reads it
        except Exception:  # the server goes on; its log has the traceback, and strangers do not
            logger.exception("A request failed")
            return JSONResponse({"error": "The server has a fault; its log says which."}, 500)

    async def _health(self, request: Request) -> dict[str, Any]:
        if self._rewarder.failure is not None:
            raise self._rewarder.failure
        return {"status": "ok"}

    async def _models(self, request: Request) -> dict[str, Any]:
        return await self._rewarder.about()

    async def _rewards(self, request: Request) -> dict[str, Any]:
        limits = self._rewarder.settings.limits
        form = await _read_form(request, limits)
        try:
            asked = _read_request(form)
            pictures = await _read_pictures(form, limits)
        finally:
            await form.close()
        rewards, prompt = await self._rewarder.rewards(asked, pictures)
        return {
            "rewards": [float(reward) for reward in rewards],
            "reward": asked.reward,
            "warnings": list(prompt.warned),
        }

    def _check_caller(self, request: Request) -> None:
        """Let in who shows the token; without one, who calls this machine by a name of its own.

        The second keeps web pages out that make a browser here believe that their own name leads to 127.0.0.1.

        Raises:
            HttpError: Neither.
        """
        if self._token is None:
            if not is_loopback(request.url.hostname or ""):
                raise HttpError(403, "Without a token this server answers only at 127.0.0.1 or localhost.")
            return
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        # In constant time: how long it takes must not tell how much of the token was right.
        if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), self._token.encode()):
            raise HttpError(401, "This server wants its token: a header 'Authorization: Bearer <token>'.")


def _status(error: UserError) -> int:
    if isinstance(error, HttpError):
        return error.status
    return 413 if isinstance(error, TooLarge) else 415 if isinstance(error, UnknownKind) else 422


async def _read_form(request: Request, limits: UploadLimits) -> FormData:
    """Read the body as it comes, and stop where it is too long.

    Raises:
        HttpError: It is no multipart form, or too large.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HttpError(415, "A request is multipart/form-data: a field 'request' of JSON, and files (curl -F).")
    most = limits.max_megabytes * MEGABYTE
    too_long = HttpError(413, f"The request is longer than {limits.max_megabytes} MiB (max_megabytes).")
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > most:
        raise too_long

    async def body() -> AsyncIterator[bytes]:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                raise too_long
            yield chunk

    parser = MultiPartParser(
        request.headers,
        body(),  # type: ignore[arg-type]  # an asynchronous generator
        max_files=limits.max_frames,
        max_fields=1,
        max_part_size=MAX_JSON,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise HttpError(400, f"The form cannot be read: {error.message}") from error


def _read_request(form: FormData) -> RewardRequest:
    """Return what is asked.

    Raises:
        HttpError: There is no JSON object.
        UserError: A key, type or value is wrong.
    """
    text = form.get("request")
    if not isinstance(text, str):
        raise HttpError(400, """The field 'request' is missing: a JSON object, such as {"goal": "an open drawer"}.""")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"The field 'request' is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise HttpError(400, """The field 'request' must be a JSON object, such as {"goal": "an open drawer"}.""")
    return typed(RewardRequest, values)


async def _read_pictures(form: FormData, limits: UploadLimits) -> dict[str, np.ndarray]:
    """Decode the files of each camera, (n, H, W, 3) uint8 RGB.

    Raises:
        UserError: There are none, or what is wrong with them.
    """
    files: dict[str, list[bytes]] = {}
    for camera, file in form.multi_items():
        if isinstance(file, UploadFile):
            files.setdefault(camera, []).append(await file.read())
    if not files:
        raise HttpError(400, "There are no pictures: add a file, such as -F clip=@clip.mp4.")
    pictures: dict[str, np.ndarray] = {}
    for camera, contents in files.items():
        before = sum(frames.nbytes for frames in pictures.values())
        pictures[camera] = await run_in_threadpool(decode_clip, contents, limits, before)
        if (total := sum(map(len, pictures.values()))) > limits.max_frames:
            raise TooLarge(f"There are {total} pictures over all cameras; at most {limits.max_frames} (max_frames).")
    return pictures
