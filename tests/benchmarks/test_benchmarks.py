"""What benchmarks measure, not how fast anything is: that depends on the machine and on what else runs there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.blocks import Arm, compare, report
from tests.benchmarks.arms import dying, failing, known
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def test_arms_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    arms = {
        "a": (Arm("a", known, seconds=[9.0, 1.0, 2.0, 1.0], diary=diary, name="a"), 40),
        "b": (Arm("b", known, seconds=[9.0, 2.0, 2.0, 4.0], diary=diary, name="b"), 10),
    }
    result = compare("known", arms, blocks=3)
    lines = [line.split() for line in diary.read_text().splitlines()]
    assert [(name, int(steps)) for name, steps, _ in lines] == [("a", 10), ("b", 2)] + 3 * [("a", 40), ("b", 10)]
    assert len({process for _, _, process in lines}) == 2
    assert result.per_second == {"a": [40, 20, 40], "b": [5, 5, 2.5]}  # the first block warms up
    ratio = result.ratios["b"]
    assert ratio["blocks"] == [8, 4, 16]
    assert ratio["mean"] == pytest.approx(28 / 3)
    low, high = ratio["interval"]
    assert 4 <= low < 28 / 3 < high <= 16
    assert (tmp_path / "a.closed").exists() and (tmp_path / "b.closed").exists()


def test_an_arm_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"The arm 'broken' failed:\n(.|\n)*no such wheel"):
        compare("x", {"broken": (Arm("broken", failing), 1)}, blocks=1)
    with pytest.raises(RuntimeError, match="The arm 'dead' died with exit code 3"):
        compare("x", {"dead": (Arm("dead", dying), 1)}, blocks=1)


@pytest.mark.parametrize(("goal", "reached"), [(4.0, True), (4.1, False)])
def test_a_goal_is_reached_by_the_lower_end(
    goal: float, reached: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {
        "a": (Arm("a", known, seconds=[1.0, 1.0, 1.0], diary=tmp_path / "d", name="a"), 40),
        "b": (Arm("b", known, seconds=[1.0, 1.0, 1.0], diary=tmp_path / "d", name="b"), 10),
    }
    out = tmp_path / "deep" / "out.json"
    report("known", {"blocks": 2, "out": out}, goal, "b", [compare("known", arms, blocks=2)], out)
    assert json.loads(out.read_text())["goal"] == {"ratio": goal, "against": "b", "reached": reached}
    printed = capsys.readouterr().out
    assert "4.00 [4.00, 4.00]" in printed
    assert ("NOT reached" in printed) != reached


def run(name: str, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--blocks", "2", "--out", str(out), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r"goal: at least \d+ times as fast", result.stdout)
    read = json.loads(out.read_text())
    assert read["benchmark"] == name
    assert {"settings", "machine", "versions", "goal", "comparisons"} <= set(read)
    for comparison in read["comparisons"]:
        first, *others = comparison["per_second"]
        assert set(comparison["steps"]) == {first, *others} and set(comparison["ratios"]) == set(others)
        for speeds in comparison["per_second"].values():
            assert len(speeds) == 2 and all(np.isfinite(speed) and speed > 0 for speed in speeds)
        for other, ratio in comparison["ratios"].items():
            expected = np.divide(comparison["per_second"][first], comparison["per_second"][other])
            np.testing.assert_allclose(ratio["blocks"], expected)
            assert min(expected) <= ratio["interval"][0] <= ratio["mean"] <= ratio["interval"][1] <= max(expected)
    return read


def test_render(tmp_path: Path) -> None:
    read = run("render", tmp_path, "--steps", "2", "--size", "64")
    (comparison,) = read["comparisons"]
    assert list(comparison["per_second"]) == ["lean", "gymnasium"]
    assert comparison["name"] == "64 px"


def test_reward_path(tmp_path: Path) -> None:
    read = run("reward_path", tmp_path, "--steps", "2", "--n-envs", "2", "--fill-every", "3", "--updates", "1/8")
    assert [comparison["name"] for comparison in read["comparisons"]] == ["no learner", "1/8 updates"]
    assert list(read["comparisons"][0]["per_second"]) == ["suite", "naive", "naive, 480 px"]
    assert list(read["comparisons"][1]["per_second"]) == ["suite", "naive"]


@pytest.mark.slow  # the package's worlds take their time
def test_crafter(tmp_path: Path) -> None:
    read = run("crafter", tmp_path, "--steps", "3")
    assert [list(comparison["per_second"]) for comparison in read["comparisons"]] == [["vlmrl", "package"]] * 3


def test_the_naive_wrapper_gives_the_suites_reward() -> None:
    """Same picture, same words: then the comparison is about speed alone."""
    import gymnasium as gym
    import torch

    from benchmarks.reward_path import BASELINE, GOAL_WORDS, NaiveReward
    from vlmrl.encoders.mini import MiniConfig
    from vlmrl.envs.wrappers import ModelRewardWrapper
    from vlmrl.reward_models.clip import ClipReward

    torch.set_num_threads(1)
    encoder = MiniConfig().build("cpu")
    height, width = encoder.image_size
    kwargs = {"render_mode": "rgb_array", "height": height, "width": width}
    naive = NaiveReward(gym.make("vlmrl/CartPole-v0", **kwargs))
    ours = ModelRewardWrapper(
        gym.make("vlmrl/CartPole-v0", **kwargs), ClipReward(GOAL_WORDS, BASELINE, encoder=encoder)
    )
    naive.reset(seed=0), ours.reset(seed=0)
    for action in (0, 1, 1):
        expected, got = ours.step(action)[1], naive.step(action)[1]
        assert got == pytest.approx(expected, abs=1e-5)
    naive.close(), ours.close()


@pytest.mark.parametrize("blocks", ["0", "-1", "x"])
def test_wrong_arguments_are_refused(blocks: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.render", "--blocks", blocks], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2 and "is no whole number of at least 1" in result.stderr
