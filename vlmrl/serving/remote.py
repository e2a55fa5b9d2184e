"""An encoder that lives elsewhere: what is asked of it, and how it answers."""

from __future__ import annotations

import pickle
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from vlmrl.encoders.base import Encoder, gives_unit_vectors, video_head_of
from vlmrl.errors import UserError

# Takes the name of an encoder's method or attribute and its arguments.
Ask: TypeAlias = "Callable[..., Answer]"


class Answer(NamedTuple):
    """What came of a question.

    Attributes:
        value: What the encoder gave; the error, where it raised one.
        failed: Whether it raised.
        warned: Texts of its warnings.
    """

    value: Any
    failed: bool
    warned: tuple[str, ...]


class Card(NamedTuple):
    """What an encoder says of itself; see `Encoder`, `gives_unit_vectors` and `video_head_of`."""

    name: str
    image_size: tuple[int, int]
    dim: int
    unit_vectors: bool
    video_head: Path | None


def card(encoder: Encoder) -> Card:
    """Return what an encoder says of itself."""
    return Card(encoder.name, encoder.image_size, encoder.dim, gives_unit_vectors(encoder), video_head_of(encoder))


def answer(encoder: Encoder, what: str, *arguments: Any) -> Answer:
    """Ask an encoder that is here; errors and warnings are part of the answer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            member = getattr(encoder, what)
            value, failed = (member(*arguments) if callable(member) else member), False
        except Exception as error:
            value, failed = portable(error), True
    return Answer(value, failed, tuple(str(entry.message) for entry in caught if entry.category is UserWarning))


def portable(error: Exception) -> Exception:
    """Return an error that can travel to another process, with its traceback as a note unless it is a `UserError`."""
    if not isinstance(error, UserError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # what an exception's own class makes of pickling is anybody's guess
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.add_note("".join(traceback.format_exception(error)))
        return plain


class RemoteEncoder:
    """Stands for an encoder in another process; see `base.Encoder`.

    Args:
        card: What it says of itself.
        ask: Brings a question there and the answer back.
        encode: Brings pictures there, (n, H, W, 3) uint8, and their embeddings back.
    """

    def __init__(self, card: Card, ask: Ask, encode: Callable[[np.ndarray], np.ndarray]):
        self.name, self.image_size, self.dim, self.unit_vectors, self.video_head = card
        self._ask = ask
        self._encode = encode

    @cached_property
    def fingerprint(self) -> str:
        """See `base.Encoder`."""
        return str(self._asked("fingerprint"))

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """See `base.Encoder.encode_images`."""
        return self._encode(frames)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `base.Encoder.encode_texts`."""
        return np.asarray(self._asked("encode_texts", list(texts)))

    def check_env(self, env: str) -> None:
        """See `base.Encoder.check_env`."""
        self._asked("check_env", env)

    def _asked(self, what: str, *arguments: Any) -> Any:
        value, failed, warned = self._ask(what, *arguments)
        for text in warned:
            warnings.warn(text, stacklevel=4)
        if failed:
            raise value
        return value
