"""The page over HTTP: three files, and a handful of requests that they make."""

from __future__ import annotations

import io
import math
import secrets
from dataclasses import asdict
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from PIL import Image
from pydantic import BaseModel, Field
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vlmrl.errors import UserError
from vlmrl.workflows.config.label import LOOPBACK
from vlmrl.workflows.label.desk import LabelDesk, Shown

COOKIE = "vlmrl_label_token"
LAST_FRAME = 700  # milliseconds for which the last frame of a clip stays before it starts again
FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
# Nothing from outside, no frames of other pages around it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"\S")]


class Rated(BaseModel):
    """What a person says about a comparison, as they saw it."""

    key: str
    rater: Name
    verdict: Literal["left", "right", "tie", "abstain"]
    seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0


class Rater(BaseModel):
    """A person."""

    rater: Name


def make_app(desk: LabelDesk, fps: float, token: str = "", host: str = "127.0.0.1") -> FastAPI:
    """Make the application.

    Args:
        desk: Where comparisons come from.
        fps: Frames a second at which clips are shown.
        token: Word that people must know; empty asks for none.
        host: Address at which it listens; without a token, requests for other names are refused, so that no page of the
            web can get at it through a name of its own.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if not token:
        names = [*(f"[{name}]" if ":" in name else name for name in LOOPBACK), host, "testserver"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)

    @app.middleware("http")
    async def guard(request: Request, go_on: RequestResponseEndpoint) -> Response:
        response: Response
        if token and (given := request.query_params.get("token")) is not None and request.url.path == "/":
            if not _same(given, token):
                return JSONResponse({"detail": "wrong token"}, 401)
            response = RedirectResponse("/", 303)  # so that the word does not stay in the address
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
            return response
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and not (_same(request.cookies.get(COOKIE, ""), token) or _same(bearer, token)):
            return JSONResponse({"detail": "open the address with ?token=<word> that vlmrl.label printed"}, 401)
        response = await go_on(request)
        response.headers.update(HEADERS)
        return response

    def state(rater: str, shown: Shown | None) -> dict[str, Any]:
        progress = asdict(desk.progress(rater))
        return {"question": None if shown is None else asdict(shown), "progress": progress}

    @app.get("/api/next")
    def following(rater: Annotated[str, Query(min_length=1, max_length=60, pattern=r"\S")]) -> dict[str, Any]:
        return state(rater, desk.next(rater))

    @app.post("/api/rate")
    def rate(rated: Rated) -> dict[str, Any]:
        try:
            desk.rate(rated.key, rated.rater, rated.verdict, rated.seconds)
        except UserError as error:
            raise HTTPException(404, str(error)) from error
        return state(rated.rater, desk.next(rated.rater))

    @app.post("/api/undo")
    def undo(who: Rater) -> dict[str, Any]:
        shown = desk.undo(who.rater)
        if shown is None:
            raise HTTPException(
                409, "Nothing to take back: you have rated nothing, or your last answer is in use already."
            )
        return state(who.rater, shown)

    @app.get("/api/report")
    def report() -> dict[str, Any]:
        return desk.report()

    @lru_cache(maxsize=64)
    def animation(digest: bytes) -> bytes | None:
        clip = desk.clip(digest)
        return None if clip is None else animate(clip, fps)

    @app.get("/clip/{digest}.png")
    def clip(digest: str) -> Response:
        try:
            data = animation(bytes.fromhex(digest))
        except ValueError:
            data = None
        if data is None:
            raise HTTPException(404, "There is no such clip.")
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})

    @app.get("/{path:path}")
    def file(path: str) -> Response:
        if f"/{path}" not in FILES:
            raise HTTPException(404, "There is no such page.")
        name, kind = FILES[f"/{path}"]
        text = resources.files("vlmrl.workflows.label").joinpath(name).read_text(encoding="utf-8")
        return Response(text, media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    return app


def animate(clip: np.ndarray, fps: float) -> bytes:
    """Return a clip, (T, H, W, 3) uint8, as a PNG that moves and starts again, without loss."""
    frames = [Image.fromarray(frame) for frame in clip]
    buffer = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(buffer, "PNG")
    else:
        step = math.ceil(1000 / fps)
        times = [step] * (len(frames) - 1) + [max(step, LAST_FRAME)]
        frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return buffer.getvalue()


def _same(given: str, token: str) -> bool:
    """Compare in a time that tells nothing."""
    return secrets.compare_digest(given.encode(), token.encode())
