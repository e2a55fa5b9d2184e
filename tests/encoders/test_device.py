"""Names of devices, as a program gives them to an encoder."""

from __future__ import annotations

import pytest
import torch

from vlmrl.encoders.device import find_device
from vlmrl.errors import UserError


def with_cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "name", "device"),
    [(0, "auto", "cpu"), (2, "auto", "cuda"), (0, "cpu", "cpu"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_that_is_there(count: int, name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, count)
    assert find_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "name", "says"),
    [
        (0, "gpu", "device is 'gpu', which torch does not know. Use auto, cpu, cuda"),
        (0, "cuda", "device=cuda: torch sees no CUDA device here"),
        (0, "cuda:1", "device=cuda:1: torch sees no CUDA device here"),
        (2, "cuda:2", "device=cuda:2: the CUDA devices here are cuda:0 to cuda:1"),
    ],
)
def test_a_device_that_is_not_there(count: int, name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, count)
    with pytest.raises(UserError, match=says):
        find_device(name)
