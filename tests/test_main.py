"""`python -m vlmrl`, which somebody types who knows no command yet."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pytest

from vlmrl import __main__ as commands_page


def test_it_shows_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vlmrl"])
    commands_page.main()
    shown = capsys.readouterr().out
    modules = [Path(str(file)) for file in resources.files("vlmrl").iterdir() if file.name.endswith(".py")]
    names = [path.stem for path in modules if "run_command(" in path.read_text() and path.stem != "commands"]
    assert {"train", "audit"} < set(names)
    for name in names:
        assert f"  python -m vlmrl.{name} " in shown
    assert "Train an agent on a reward in words\n" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "goal=a robot"], "Each command is a module: python -m vlmrl.train 'goal=a robot'"),
        (["trian"], "Unknown command 'trian'. Did you mean 'train'?"),
    ],
)
def test_a_command_is_told_how_it_is_called(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vlmrl", *arguments])
    with pytest.raises(SystemExit) as caught:
        commands_page.main()
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
