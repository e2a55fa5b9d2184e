"""What all tests share."""

from __future__ import annotations

import os

import pytest

# Several workers share few cores: one thread each, in the processes that tests start as well.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
