"""Ask a reward server (`python -m vlmrl.serve`) from anywhere; needs NumPy and Python's own library only."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np

from vlmrl.errors import UserError

Pictures = np.ndarray | str | Path | Sequence[str | Path]


class RewardClient:
    """A reward server, as a function from pictures and words to rewards.

    Example:
        >>> client = RewardClient("http://127.0.0.1:8265")  # doctest: +SKIP
        >>> client.rewards(frames, "a humanoid robot kneeling", env="humanoid")  # doctest: +SKIP

    Args:
        url: Where it is, such as "http://127.0.0.1:8265".
        token: What the server wants to be told, if it does.
        timeout_s: Seconds to wait for an answer.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 120.0):
        if not url.startswith(("http://", "https://")):
            raise UserError(f"The server's address is '{url}'; it begins with http:// or https://.")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout_s

    def rewards(
        self,
        pictures: Pictures | Mapping[str, Pictures],
        goal: str | Sequence[str],
        *,
        baseline: str | Sequence[str] = (),
        negatives: str | Sequence[str] = (),
        reward: str = "clip",
        options: Mapping[str, Any] | None = None,
        env: str | None = None,
    ) -> np.ndarray:
        """Reward each picture of a clip.

        Args:
            pictures: (n, H, W, 3) uint8 RGB, or files in order of time: an mp4, PNG, JPEG or npy. For several cameras,
                {name: as many pictures}.
            goal: What the agent should do, a sentence or several.
            baseline: What the scene shows anyway.
            negatives: What the agent may do instead.
            reward: Name of a reward model that the server offers.
            options: Its settings, such as {"alpha": 0.5}.
            env: The environment of the suite that the pictures show, if one does: an encoder that was made for some
                environments asks.

        Returns:
            (n,) float32.

        Raises:
            UserError: What the server says is wrong, or that it cannot be reached.
        """
        cameras = pictures if isinstance(pictures, Mapping) else {"clip": pictures}
        asked = {
            "goal": _texts(goal),
            "baseline": _texts(baseline),
            "negatives": _texts(negatives),
            "reward": reward,
            "options": dict(options or {}),
            "env": env,
        }
        parts: list[tuple[str, str | None, bytes]] = [("request", None, json.dumps(asked).encode())]
        parts += [(name, file, content) for name, view in cameras.items() for file, content in _files(view)]
        answer = self._send("/v1/rewards", *_multipart(parts))
        return np.asarray(answer["rewards"], dtype=np.float32)

    def models(self) -> dict[str, Any]:
        """Return what the server offers: its encoder, rewards with their settings, and limits."""
        return self._send("/v1/models")

    def _send(self, path: str, body: bytes | None = None, content_type: str | None = None) -> dict[str, Any]:
        headers = self._headers | ({"Content-Type": content_type} if content_type else {})
        try:
            with urlopen(Request(self._url + path, body, headers), timeout=self._timeout) as response:
                return json.load(response)
        except HTTPError as error:
            raise UserError(f"{self._url} refuses ({error.code}): {_message(error)}") from error
        except (URLError, TimeoutError) as error:
            raise UserError(
                f"{self._url} does not answer ({getattr(error, 'reason', error)}). Is it running there? "
                "python -m vlmrl.serve"
            ) from error


def _texts(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _files(pictures: Pictures) -> list[tuple[str, bytes]]:
    """Return (name, content) of each file to send."""
    if isinstance(pictures, np.ndarray):
        stream = io.BytesIO()
        np.save(stream, pictures, allow_pickle=False)
        return [("clip.npy", stream.getvalue())]
    paths = [Path(pictures)] if isinstance(pictures, str | Path) else [Path(entry) for entry in pictures]
    return [(path.name, path.read_bytes()) for path in paths]


def _multipart(parts: Sequence[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    """Write (field, file name, content) as multipart/form-data (RFC 7578); return the body and its content type."""
    boundary = uuid.uuid4().hex  # long and random: no picture holds it
    body = io.BytesIO()
    for field, file, content in parts:
        named = f'; filename="{_quoted(file)}"' if file is not None else ""
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"{named}\r\n\r\n'.encode())
        body.write(content)
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    return body.getvalue(), f"multipart/form-data; boundary={boundary}"


def _quoted(name: str) -> str:
    """Escape what would end a name in a header; RFC 7578 leaves it to percent signs."""
    return name.replace("%", "%25").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _message(error: HTTPError) -> str:
    """Return what the server says is wrong; the first of its words where it is not a server of ours."""
    text = error.read(4096).decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200] or str(error.reason)
