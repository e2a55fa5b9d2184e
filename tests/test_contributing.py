"""CONTRIBUTING.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"^`(my_suite/[\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
TINY = [
    "n_envs=2",
    "total_timesteps=120",
    "env.max_episode_steps=30",
    "agent.learning_starts=40",
    "agent.batch_size=8",
    "agent.net_arch=[8]",
    "eval_episodes=2",
    "video=false",
    "progress_bar=false",
    "device=cpu",
]


def run(cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contributing")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def commands() -> list[list[str]]:
    block = PAGE.partition("### Run it")[2].partition("```\n")[2].partition("```")[0]
    return [line.removeprefix("python -m ").split() for line in block.splitlines()]


def test_the_page_holds_a_whole_package() -> None:
    assert set(FILES) == {
        "my_suite/__init__.py",
        "my_suite/pendulum.py",
        "my_suite/margin.py",
        "my_suite/td3.py",
        "my_suite/test_my_suite.py",
        *(f"my_suite/configs/{name}.yaml" for name in ("env/pendulum", "task/upright", "reward/margin", "agent/td3")),
    }


@pytest.mark.xdist_group("contributing")
def test_its_commands_train_and_measure(folder: Path) -> None:
    train, evaluate = commands()
    output = run(folder, *train, *TINY)
    assert "trained for 120 steps" in output
    path = (folder / "runs" / "last").resolve()
    assert path.parent.name == "pendulum-upright-margin-td3"
    assert yaml.safe_load((path / "config.yaml").read_text())["plugins"] == ["my_suite"]
    trained = json.loads((path / "result.json").read_text())["policies"]["trained"]
    assert "success" in trained and trained["model_reward"]["mean"] != trained["truth"]["mean"]
    # The run remembers its plugins: nothing of them is said here.
    run(folder, *evaluate, "episodes=2", "n_envs=1", "progress_bar=false")
    (result,) = (folder / "runs" / "evaluate").glob("*/result.json")
    (summary,) = json.loads(result.read_text()).values()
    assert "success" in summary


@pytest.mark.xdist_group("contributing")
def test_its_tests_pass(folder: Path) -> None:
    output = run(folder, "pytest", "-q", "-p", "no:cacheprovider", "my_suite/test_my_suite.py")
    assert "2 passed" in output


@pytest.mark.xdist_group("contributing")
def test_its_code_is_in_form(folder: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    config = f"--config={ROOT / 'pyproject.toml'}"
    for arguments in (["check", "--ignore=D,I001"], ["format", "--check"]):  # imports: here my_suite is no third party
        result = subprocess.run(
            [ruff, *arguments, "--no-cache", config, "my_suite"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_make_target_that_it_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([\w-]+)", PAGE, flags=re.MULTILINE))
    assert targets >= {"test", "lint", "format", "test-latest"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_path_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:vlmrl|tests|docs)/[\w./]+)`|\]\((docs/[\w./]+)\)", PAGE.partition("## Into")[0]))
    paths = {path for pair in named for path in pair if path}
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


PYTHON = """#!/bin/sh
# Stands for a Python that makes environments in which everything is installed at once.
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") [ "$3" = freeze ] && echo torch==99.0 || true ;;
    "-m pytest") exit {status} ;;
esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("status", "verdict"),
    [(0, "the tests PASS."), (1, "the tests FAIL."), (None, "they CANNOT BE INSTALLED.")],
)
def test_the_newest_releases_are_reported_and_block_nothing(tmp_path: Path, status: int | None, verdict: str) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(status=status) if status is not None else "#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    # As typed by a person, also where `make test` has started this: make tells the makes below it what it was told.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    result = subprocess.run(
        ["make", "test-latest", f"PYTHON={python}", f"LATEST={tmp_path / 'venv'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"With the newest releases, {verdict}\n")
    assert ("torch==99.0" in result.stdout) == (status is not None)


def test_the_hooks_run_the_tools_of_this_house() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert all(entry.startswith(".venv/bin/") for entry in entries)
    assert {entry.split("/")[2].split()[0] for entry in entries} == {"ruff", "mypy"}
