"""What all agents have in common that learn in an environment: what is said of the words, how policies are measured."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.build import build_parts
from vlmrl.workflows.config.train import train_settings
from vlmrl.workflows.run_folder import RunFolder
from vlmrl.workflows.train import train
from vlmrl.workflows.train_offline import train_offline
from vlmrl.workflows.training import announce, measure_policies

ONI = ["env=minigrid", "reward=oni"]
ASKED = ["reward.labels=judge", "judge=openai", "judge.model=labeller"]
ONES_OWN = ["task=none", "goal=find a way out"]


@pytest.mark.parametrize(
    ("overrides", "said", "unsaid"),
    [
        (ONI, "recorded labels, aim: ", "goal: "),
        ([*ONI, *ASKED, *ONES_OWN], "goal: 'find a way out'", "changes nothing"),
        ([*ONI, *ONES_OWN], "reward oni is made of no sentences: goal= changes nothing here", "goal: "),
        (["env=cartpole", "reward=ground_truth"], "reward ground_truth", "goal: "),
        (["env=cartpole", "agent=dqn", "reward=vlm_preference", "judge=human"], "-m vlmrl.label run=", "asks none"),
        (["env=cartpole", "agent=dqn", "reward=vlm_preference", "judge=encoder"], "judge encoder", "vlmrl.label"),
    ],
)
def test_a_goal_is_said_where_the_reward_is_made_of_it(
    overrides: list[str], said: str, unsaid: str, tmp_path: Path
) -> None:
    pytest.importorskip("minigrid")  # of vlmrl[dev]
    settings = train_settings(plain(compose("train", overrides)))
    parts = build_parts(settings, "cpu")
    printed = StringIO()
    try:
        announce(Console(file=printed, width=200), settings, parts, RunFolder(tmp_path), "cpu", 0, ["one thing more"])
    finally:
        parts.close()
    output = printed.getvalue()
    assert said in output and unsaid not in output
    assert "one thing more" in output


class Recording:
    """A policy that does nothing, and keeps how it was asked."""

    def __init__(self) -> None:
        self.asked: set[bool] = set()

    def predict(self, observation: Any, state: Any, episode_start: Any, deterministic: bool) -> tuple[np.ndarray, None]:
        self.asked.add(deterministic)
        return np.zeros(len(observation), dtype=int), None


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_was_learned_is_measured_as_the_settings_say(deterministic: bool, tmp_path: Path) -> None:
    overrides = ["env=cartpole", "reward=ground_truth", "eval_episodes=2", "n_envs=2", "video=false"]
    settings = train_settings(plain(compose("train", [*overrides, f"eval_deterministic={deterministic}"])))
    parts = build_parts(settings, "cpu")
    policies = {name: Recording() for name in ("trained", "untrained", "zero")}
    try:
        printed = StringIO()
        results, clip = measure_policies(settings, parts, RunFolder(tmp_path), policies, Console(file=printed))
    finally:
        parts.close()
    assert clip is None and len(results["trained"].truth) == 2
    assert policies["trained"].asked == policies["untrained"].asked == {deterministic}
    assert policies["zero"].asked == {True}
    assert "measuring 2 episodes each: trained, untrained, zero" in printed.getvalue()


@pytest.mark.parametrize(
    ("work", "overrides"),
    [(train, ["env=cartpole"]), (train_offline, ["env=none", "agent=iql", "dataset=there-is-none"])],
)
def test_a_run_that_is_long_enough_is_refused_before_anything_is_built(
    work: Any, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = plain(compose("train", [*overrides, "total_timesteps=300"]))
    settings = train_settings({**values, "resume": str(tmp_path), "run_dir": str(tmp_path)})
    for module in ("training", "train_offline"):
        monkeypatch.setattr(f"vlmrl.workflows.{module}.build_parts", lambda *_: pytest.fail("something was built"))
    with pytest.raises(UserError, match="holds no checkpoint"):
        work(settings)
    tmp_path.joinpath("checkpoints", "300").mkdir(parents=True)
    with pytest.raises(UserError, match=r"nothing left to do.*stands at step 300,.*total_timesteps=600"):
        work(settings)
