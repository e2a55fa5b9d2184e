from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlmrl.errors import UserError, did_you_mean, require, unknown


def test_unknown_says_what_was_given_what_is_allowed_and_what_was_meant() -> None:
    error = unknown("reward", "clp", ["ground_truth", "clip"])
    assert str(error) == "Unknown reward 'clp'. Did you mean 'clip'? Available: clip, ground_truth."


def test_unknown_without_a_near_miss_or_any_name() -> None:
    assert str(unknown("reward", "zzz", ["clip"])) == "Unknown reward 'zzz'. Available: clip."
    assert str(unknown("reward", "zzz", [])) == "Unknown reward 'zzz'. Available: none."


def test_unknown_says_the_nearest_of_very_many_names() -> None:
    names = [f"Room-{number:03d}" for number in range(200)] + ["Maze-v0"]
    message = str(unknown("level", "Maze-v1", names))
    assert message.startswith("Unknown level 'Maze-v1'. Did you mean 'Maze-v0'? The nearest of 201: Maze-v0, Room-")
    assert message.count(", ") == 9  # ten names
    assert "The nearest of 201" in str(unknown("level", "", names))


@pytest.mark.parametrize(("given", "meant"), [("seeed", "seed"), ("humaniod", "humanoid"), ("sed", "seed")])
def test_did_you_mean_finds_near_misses(given: str, meant: str) -> None:
    assert did_you_mean(given, ["seed", "humanoid", "device"]) == f" Did you mean '{meant}'?"


def test_did_you_mean_keeps_quiet_about_far_ones() -> None:
    assert did_you_mean("xyz", ["seed", "device"]) == ""


def test_require_returns_the_module() -> None:
    assert require("json").dumps({}) == "{}"


@pytest.mark.parametrize(("extra", "target"), [(None, "'vlmrl'"), ("ray", r"'vlmrl\[ray\]'")])
def test_require_says_how_to_install(extra: str | None, target: str) -> None:
    with pytest.raises(UserError, match=rf"'no_such_module'.*pip install {target}"):
        require("no_such_module", extra=extra)


def test_require_does_not_hide_a_module_that_is_broken_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("broken_inside.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        require("broken_inside")
    assert not isinstance(caught.value, UserError)
    sys.modules.pop("broken_inside", None)
