"""Every file in examples/ runs, as a person would run it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from tests.patience import PATIENCE

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "own_environment": ["--steps", "60"],
    "ppo_from_scratch": ["--total-timesteps", "512"],
    "sb3_humanoid": ["--total-timesteps", "120", "--learning-starts", "100"],
}


def run(name: str, cwd: Path) -> str:
    result = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *SMALL[name]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert list(cwd.iterdir()) == []  # nothing is left behind
    return result.stdout


def test_each_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_each_example_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    line = next(line.split() for line in text.splitlines() if line.lstrip().startswith("python "))
    assert line[1] == f"examples/{name}.py"
    options = set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", text))
    assert {word for word in line if word.startswith("--")} <= options


def test_ppo_learns_from_the_models_reward(tmp_path: Path) -> None:
    lines = run("ppo_from_scratch", tmp_path).splitlines()
    assert len(lines) == 2  # 512 steps, episodes of 200
    rewards = [float(re.search(r"model reward (-?[\d.]+)", line).group(1)) for line in lines]  # type: ignore[union-attr]
    assert all(abs(reward) < 200 for reward in rewards) and rewards[0] != rewards[1]  # not the environment's 1 a step


def test_sb3_sees_the_models_reward_and_logs_the_environments(tmp_path: Path) -> None:
    output = run("sb3_humanoid", tmp_path)
    ours, original = map(float, re.search(r"model reward (\S+), reward of the environment (\S+)", output).groups())  # type: ignore[union-attr]
    assert -100 <= ours <= 100 < original  # 100 steps: cosines, and some five a step for staying alive
    assert "Wrapping the env with a `Monitor`" not in output


def test_an_environment_of_ones_own(tmp_path: Path) -> None:
    output = run("own_environment", tmp_path)
    least, best = (float(value) for value in re.findall(r"reward (-?[\d.]+)\)", output))
    assert -1 <= least < best <= 1


def test_its_environment_is_not_registered_and_keeps_to_the_rules() -> None:
    from gymnasium.utils.env_checker import check_env

    spec = importlib.util.spec_from_file_location("own_environment", EXAMPLES / "own_environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    env = module.Dot(size=32)
    assert not any("own_environment" in str(entry.entry_point) for entry in gym.registry.values())
    check_env(env, skip_render_check=True)
    env._place[:] = (1, 1)
    assert tuple(env.render()[0, -1]) == (220, 30, 30)  # top right
    assert tuple(env.render()[-1, 0]) == (255, 255, 255)
