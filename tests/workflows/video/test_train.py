"""`env=crafter reward=clip4mc` with what comes with the suite, for real and in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.workflows.test_train import COMMON, last, run

TINY = ["env=crafter", "n_envs=2", "agent.n_steps=32", "agent.batch_size=32", "agent.net_arch=[16]", "video=false"]


def test_a_video_reward_beside_the_games_success_on_a_fresh_machine(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        *TINY,
        *COMMON,
        "reward=clip4mc",
        "use_as=bonus",
        "standardize=false",
        "env.max_episode_steps=40",
        "total_timesteps=192",
    )
    assert "the model's reward is added to that of the task, with weight 1.0" in output
    assert "encoder: crafter, pictures of 64 x 64" in output
    result = json.loads((last(tmp_path) / "result.json").read_text())
    assert result["steps"] == 192
    # Each step is paid at most 1 - 1/N; nobody collects wood in every one of 40 steps.
    assert 0 <= result["policies"]["trained"]["model_reward"]["mean"] < 40
