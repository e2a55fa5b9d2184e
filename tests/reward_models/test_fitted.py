"""Files that `vlmrl.fit` made: each way to be wrong is one message, and nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmrl.errors import UserError
from vlmrl.reward_models.fitted import read_fitted


class Mini:
    name, fingerprint = "mini", "mini"


def read(path: str) -> dict[str, np.ndarray]:
    return read_fitted("reward.steps", path, "steps", ("chosen",), "Make it anew.", Mini())  # type: ignore[arg-type]


def test_arrays_come_back_by_name(tmp_path: Path) -> None:
    path = tmp_path / "steps.npz"
    np.savez(path, chosen=np.arange(3), encoder="mini", more=np.zeros(2))
    found = read(str(path))
    assert sorted(found) == ["chosen", "encoder"]
    assert found["chosen"].tolist() == [0, 1, 2] and str(found["encoder"]) == "mini"


def test_a_file_must_be_named_and_there_and_of_this_encoder(tmp_path: Path) -> None:
    np.savez(tmp_path / "steps.npz", chosen=np.arange(3), encoder="another")
    with pytest.raises(UserError, match="steps.npz' was made with another encoder than mini. .* Make it anew.$"):
        read(str(tmp_path / "steps.npz"))
    with pytest.raises(UserError, match="^reward.steps: it must name a file. Make it anew.$"):
        read("")
    with pytest.raises(UserError, match="^reward.steps: there is no file 'nowhere.npz'. Make it anew.$"):
        read("nowhere.npz")


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "steps.npz"
    np.savez(path, chosen=np.arange(300), encoder="mini")
    whole = path.read_bytes()
    np.savez(path, chosen=np.arange(3))
    without_a_name = path.read_bytes()
    np.savez(path, chosen=np.array([None]), encoder="mini")
    pickled = path.read_bytes()
    np.save(tmp_path / "one.npy", np.arange(3))
    single = (tmp_path / "one.npy").read_bytes()
    damaged = whole.replace(np.arange(300).tobytes(), bytes(2400))
    for content in (b"", b"no archive", whole[:1000], damaged, without_a_name, pickled, single):
        path.write_bytes(content)
        with pytest.raises(UserError, match="steps.npz' holds no steps, or was cut short. Make it anew.$"):
            read(str(path))
