"""What a trace says of a program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmrl.workflows.search.reflection import Trace, read_trace, reflection, remarks

UP = np.linspace(0.0, 1.0, 20)
WAVE = 0.5 + 0.3 * np.sin(np.arange(20))


@pytest.mark.parametrize(
    ("components", "reward", "success", "said"),
    [
        ({"up": UP, "effort": 0 * UP}, UP, UP, ["'effort' is dead"]),
        ({"up": UP, "still": 0 * UP + 0.4}, UP, UP, ["'still' is dead"]),  # it may be large, and never moves
        ({"up": UP, "alive": 5 + 0.01 * UP}, UP, UP, ["'alive' floods the others: it is 91%"]),
        ({"up": 0.01 * UP, "speed": 10 * UP}, UP, UP, ["'speed' dominates: it is 100%"]),
        ({"up": UP, "calm": WAVE}, UP, 0 * UP, ["practically never done"]),
        ({"up": UP, "calm": WAVE}, UP, UP[::-1], ["the reward rises while success falls"]),
        ({"up": UP, "calm": WAVE}, UP[::-1], UP, ["the reward falls while success rises"]),
        ({"up": UP, "calm": WAVE}, UP, UP, []),
    ],
)
def test_each_failure_is_named_and_nothing_else(
    components: dict[str, np.ndarray], reward: np.ndarray, success: np.ndarray, said: list[str]
) -> None:
    found = remarks(Trace(components, reward, success))
    assert len(found) == len(said), found
    for remark, words in zip(found, said, strict=True):
        assert words in remark


def test_the_text_that_a_model_reads() -> None:
    trace = Trace(
        {"up": np.array([0.1, 0.2, 0.4]), "alive": np.array([2.0, 2.0, 2.001])}, UP[:3], np.array([0, 0.1, 0.3])
    )
    assert reflection(trace) == (
        "An agent was trained on that reward. Means a step of each term, and the share of steps at which the task is "
        "done, at equal distances in time:\n"
        "\n"
        "up: [0.1, 0.2, 0.4], least 0.1, most 0.4\n"
        "alive: [2, 2, 2], least 2, most 2\n"
        "task done: [0, 0.1, 0.3], least 0, most 0.3\n"
        "\n"
        "- 'alive' is dead: it stays at 2. Change its scale, write it anew or leave it out.\n"
        "\n"
        "Think about why it went so, then write a better reward: the whole function, in one block of Python, by the "
        "same rules."
    )


def test_a_trace_is_read_from_the_log_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text(
        "reward/component_up,rollout/predicate_fraction,reward/component_a,rollout/ep_vlm_rew_mean,time\n"
        "0.1,,0.2,,1\n0.3,0.5,0.4,9,2\n0.5,0.75,0.6,10,3\n"
    )
    trace = read_trace(path)
    assert list(trace.components) == ["a", "up"]
    np.testing.assert_array_equal(trace.components["up"], [0.3, 0.5])
    np.testing.assert_array_equal(trace.success, [0.5, 0.75])
    np.testing.assert_array_equal(trace.reward, [9, 10])
