from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.judges.endpoint import Endpoint, serve
from vlmrl.judges.store import AnswerStore


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with serve() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server: Endpoint) -> Endpoint:
    """The server in its first state."""
    server.__dict__.update(Endpoint(url=server.url).__dict__)
    return server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    answers = AnswerStore(tmp_path / "answers.sqlite")
    yield answers
    answers.close()
