"""Settings of `vlmrl.label`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Positive, Range, typed

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class LabelConfig:
    """Settings of `vlmrl.label`; `configs/label.yaml` says what each key means.

    Raises:
        UserError: The settings contradict each other.
    """

    run: str | None
    store: str | None
    questions: Literal["waiting", "all"]
    expert: str | None
    export: str | None
    fps: Positive
    host: str
    port: Annotated[int, Range(0, 65535)]
    token_file: str | None
    run_dir: str = ""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.store is None):
            raise UserError("Give either run=<run folder> (or run=last), or store=<answer store>.")
        if self.host not in LOOPBACK and self.token_file is None:
            raise UserError(
                f"host={self.host} lets other machines in, and anybody there could answer. Write a word into a file "
                "and give token_file=<file>, or leave host at 127.0.0.1."
            )


def label_settings(values: Mapping[str, Any]) -> LabelConfig:
    """Check the settings of `vlmrl.label`.

    Raises:
        UserError: A key, type or value is wrong, or they contradict each other.
    """
    return typed(LabelConfig, values)
