"""Tasks of Minecraft in words: the suite's, and MineDojo's from its package's files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vlmrl.envs.minecraft import tasks
from vlmrl.envs.minecraft.tasks import SHIPPED, find_task, library
from vlmrl.errors import UserError

ENTRY = "{name}:\n  category: harvest\n  guidance: |-\n    1. Find it.\n  prompt: {prompt}\n"
INSTALLED = importlib.util.find_spec("minedojo") is not None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `minedojo` with one task in each of its files; importing it is an error."""
    folder = tmp_path / "minedojo" / "tasks" / "description_files"
    folder.mkdir(parents=True)
    (tmp_path / "minedojo" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for name, entry in (("programmatic", "harvest_milk"), ("creative", "'creative:0'"), ("playthrough", "playthrough")):
        file = "playthrough_task.yaml" if name == "playthrough" else f"{name}_tasks.yaml"
        (folder / file).write_text(ENTRY.format(name=entry, prompt=f"prompt of {name}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    library.cache_clear()
    yield folder
    library.cache_clear()


@pytest.mark.skipif(INSTALLED, reason="the real package is here, and is tested instead")
def test_mine_dojos_tasks_are_read_without_importing_it(package: Path) -> None:
    assert list(library()) == ["harvest_milk", "creative:0", "playthrough"]
    task = find_task("creative:0")
    assert (task.prompt, task.guidance, task.minedojo_id) == ("prompt of creative", "1. Find it.", "creative:0")
    with pytest.raises(UserError, match="no Minecraft task 'harvest_silk'. Did you mean 'harvest_milk'"):
        find_task("harvest_silk")


@pytest.mark.skipif(INSTALLED, reason="the package is here")
def test_without_the_package_the_suites_own_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    assert find_task("milk_cow").prompt == "milk a cow" and library() == {}
    with pytest.raises(UserError, match="MineDojo has 3131 more.*--no-deps minedojo"):
        find_task("creative:3")
    library.cache_clear()


def test_the_real_library() -> None:
    pytest.importorskip("minedojo", reason="make test-minedojo")
    assert len(library()) == 3131
    assert all(task.prompt and task.guidance for task in library().values())
    assert all(task.minedojo_id in library() for task in SHIPPED.values())
    assert find_task("harvest_milk").prompt == "obtain milk from a cow"


def test_each_has_what_engines_need() -> None:
    for name, task in SHIPPED.items():
        assert task.id == name and task.goal in ("item", "kill") and task.target and task.mob and task.minedojo_id
    assert tasks.FILES[0] == "programmatic_tasks.yaml"
