"""Programs that disagree with the truth are turned away without a step of training."""

from __future__ import annotations

import numpy as np
import pytest

from vlmrl.commands import compose, plain
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.program_scene import ProgramScene
from vlmrl.reward_models.confinement.process import ConfinedProgram, measured_level
from vlmrl.reward_models.programs.answers import RecordedWriter, code_in
from vlmrl.workflows.config.train import train_settings
from vlmrl.workflows.search.screening import Recorded, record_episodes, screen

TURNED = "\n\ndef compute_dense_reward(state, action):\n    total, terms = right_way(state, action)\n"
TURNED += "    turned = {name: -value for name, value in terms.items()}\n    return -total, turned\n"


@pytest.mark.parametrize(("env", "task"), [("cartpole", "balance"), ("hopper", "run"), ("humanoid", "standing")])
def test_a_reward_with_its_sign_turned_is_rejected(env: str, task: str) -> None:
    settings = train_settings(plain(compose("train", [f"env={env}", f"task={task}", "reward=ground_truth"])))
    scene = ProgramScene(EnvSettings(settings.env.id, settings.make_task(), kwargs=settings.env.kwargs))
    assert settings.words is not None
    source = code_in(RecordedWriter(scene.abstraction, settings.words).recording.answer)
    recorded = record_episodes(scene.env, 16, 50, seed=0)
    turned = source.replace("def compute_dense_reward", "def right_way") + TURNED
    with ConfinedProgram(source, scene.abstraction, measured_level()) as program:
        good = screen(program, recorded)
    with ConfinedProgram(turned, scene.abstraction, measured_level()) as program:
        bad = screen(program, recorded)
    assert good.reason == "" and good.pairs >= 10
    assert "orders only" in bad.reason
    assert good.agreement is not None and bad.agreement is not None and good.agreement > 0.6 > 0.4 > bad.agreement


def _toy(truth: np.ndarray) -> Recorded:
    n = len(truth)
    return Recorded(truth[:, None], np.zeros((n, 1)), truth, np.arange(n) // 4)


def test_pairs_and_steps_are_counted_as_they_are() -> None:
    truth = np.repeat(np.arange(8.0), 4)
    said = screen(lambda states, actions: (states[:, 0], {}), _toy(truth))
    assert said.agreement == 1.0 and said.pairs == 28 and said.correlation == pytest.approx(1.0)
    said = screen(lambda states, actions: (-states[:, 0], {}), _toy(truth))
    assert said.agreement == 0.0 and said.correlation == pytest.approx(-1.0) and "0% of 28 pairs" in said.reason


def test_nothing_is_concluded_from_too_little() -> None:
    said = screen(lambda states, actions: (-states[:, 0], {}), _toy(np.repeat(np.arange(3.0), 4)))
    assert said.agreement is None and said.reason == ""
    said = screen(lambda states, actions: (-states[:, 0], {}), _toy(np.zeros(80)))  # a truth that never moves
    assert said.agreement is None and said.reason == ""
