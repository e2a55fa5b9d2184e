"""A program as a reward model, and a run with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.reward_models.programs.toy import GOOD, TOY, recorded
from vlmrl.commands import compose, plain
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words, in_background
from vlmrl.reward_models.confinement import process
from vlmrl.reward_models.confinement.process import measured_level
from vlmrl.reward_models.text2reward import ProgramReward, Text2RewardConfig
from vlmrl.rows import Row, RowKey, stack
from vlmrl.workflows.build import build_parts, settled
from vlmrl.workflows.config.train import train_settings

LEVEL = measured_level()
WORDS = Words(("an arm that points up",))


class ToyScene:
    abstraction, episode, desk = TOY, "An episode has 10 steps.", None

    def record(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return recorded(n)


def _model(source: str = GOOD, **settings: Any) -> ProgramReward:
    return Text2RewardConfig(program=source, confinement=LEVEL, **settings).build(WORDS, None, ToyScene())


def _rows(model: ProgramReward, n: int, first: int = 1) -> list[Row]:
    """Return rows as environments write them for this model: with what its program reads."""
    states, actions = recorded(64)
    _, places = TOY.narrowed(model.quantities)
    return [Row(quantities=states[first + i][places], action=actions[first + i]) for i in range(n)]


def test_rows_are_rewarded_by_the_program() -> None:
    model = _model()
    assert model.quantities == {("angle",)}
    rows = stack(_rows(model, 5), range(1, 6), model.needs)
    states, actions = recorded(64)
    up, effort = np.exp(-(states[1:6, 12] ** 2)), -0.1 * actions[1:6, 0] ** 2
    rewards = model(rows)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, up + effort, rtol=1e-6)
    stats = model.pop_stats()
    assert stats.keys() == {"component_up", "component_effort"}
    assert stats["component_up"] == pytest.approx(up.mean()) and stats["component_effort"] == pytest.approx(
        effort.mean()
    )
    assert model.pop_stats() == {}
    model.close()


def test_a_vector_step_is_one_call_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    assert in_background(model)
    rewards = LazyRewards(model)
    calls: list[int] = []
    submit = process.ConfinedProgram.submit

    def counted(self: Any, states: np.ndarray, actions: np.ndarray) -> Any:
        calls.append(len(states))
        return submit(self, states, actions)

    monkeypatch.setattr(process.ConfinedProgram, "submit", counted)
    n_envs, rows = 4, _rows(model, 8)
    keys = []
    for t in (1, 2):
        rewards.observe([(RowKey(env, 0, t), rows[2 * env + t - 1]) for env in range(n_envs)])
        keys += [(env, 0, t) for env in range(n_envs)]
    assert calls == [4, 4]  # begun before anybody has asked
    filled = rewards.fill(np.array(keys, dtype=KEY_DTYPE))
    assert calls == [4, 4]
    order = [2 * env + t - 1 for t in (1, 2) for env in range(n_envs)]
    alone = [model(stack([row], [1], model.needs))[0] for row in rows]
    np.testing.assert_array_equal(filled, np.array(alone)[order])
    model.close()


def test_calls_may_be_asked_for_in_any_order_and_pile_up_without_end() -> None:
    model = _model()
    rows = _rows(model, 60)
    # Far more than two pipes hold: whoever waits for whom, nobody waits for ever.
    begun = [model.start(rows) for _ in range(400)]
    expected = model(stack(rows, range(60), model.needs))
    np.testing.assert_array_equal(model.finish([begun[399][7], begun[0][3], begun[0][59]]), expected[[7, 3, 59]])
    for i in reversed(range(1, 399)):
        np.testing.assert_array_equal(model.finish(begun[i]), expected)
    model.finish([one for one in begun[0] if one not in (begun[0][3], begun[0][59])])
    model.finish([one for one in begun[399] if one != begun[399][7]])
    assert not model._rewards and not model._unread  # nothing is kept of what was taken
    model.close()


def test_a_learner_that_can_leaves_the_newest_step_alone() -> None:
    scene = ["env=cartpole", "reward=text2reward", f"reward.confinement={LEVEL}"]
    parts = build_parts(train_settings(plain(compose("train", scene))), "cpu")
    assert parts.rewards(n_envs=8).lag == 1 and parts.rewards().lag == 0
    parts.close()


def test_a_program_that_fails_later_says_where_its_text_is() -> None:
    source = GOOD.replace("    effort", "    if np.any(state.angle > 100):\n        up = up[1:]\n    effort")
    model = _model(source)
    rows = _rows(model, 3)
    rows[1].quantities[0] = 101.0
    with pytest.raises(UserError, match="failed on a state(.|\n)*program.py"):
        model(stack(rows, [1, 2, 3], model.needs))
    begun = model.start(rows)
    with pytest.raises(UserError, match="failed on a state(.|\n)*program.py"):
        model.finish(begun)
    good = stack(_rows(model, 3), [1, 2, 3], model.needs)
    assert np.isfinite(model(good)).all()  # an exception leaves the process alive
    model.close()


def test_a_program_of_ones_own_may_be_a_file_and_must_pass(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    model = _model(str(path))
    assert model.config.program == GOOD and str(path) in model.files["program.json"]
    path.write_text(GOOD.replace("state.angle", "state.angel"))
    with pytest.raises(UserError, match="cannot be used(.|\n)*angel"):
        _model(str(path))
    with pytest.raises(UserError, match="no file"):
        _model("nowhere.py")


def test_what_is_asked_of_nobody_is_an_error() -> None:
    with pytest.raises(UserError, match="judge=openai(.|\n)*reward.program=<run folder>/program.py"):
        Text2RewardConfig(completions="judge", confinement=LEVEL).build(WORDS, None, ToyScene())
    with pytest.raises(UserError, match="reward.shots"):
        Text2RewardConfig(shots=1, confinement=LEVEL).build(WORDS, None, ToyScene())


def test_a_level_that_cannot_be_had_is_refused_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.seccomp, "available", lambda: False)
    assert measured_level() == "rlimit"
    with pytest.raises(UserError, match="reward.confinement=full cannot be had.*reward.confinement=rlimit"):
        Text2RewardConfig(program=GOOD).build(WORDS, None, ToyScene())
    model = Text2RewardConfig(program=GOOD, confinement="rlimit").build(WORDS, None, ToyScene())
    assert json.loads(model.files["program.json"])["confinement"] == "rlimit"


def test_settings_of_a_run_hold_the_program() -> None:
    given = train_settings(
        plain(compose("train", ["env=cartpole", "reward=text2reward", f"reward.confinement={LEVEL}"]))
    )
    parts = build_parts(given, "cpu")
    decided = settled(given, parts.model)
    assert given.reward.config.program is None
    assert decided.reward.config.program == parts.model.source  # type: ignore[attr-defined]
    stored = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(decided.plain()))))
    again = build_parts(train_settings(stored), "cpu")
    assert again.model.source == parts.model.source  # type: ignore[attr-defined]
    parts.close()
    again.close()


def _run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, timeout=280, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_run_that_goes_on_uses_its_own_program(tmp_path: Path) -> None:
    short = ["eval_episodes=2", "video=false", "progress_bar=false"]
    said = _run(
        tmp_path,
        "vlmrl.train",
        "env=cartpole",
        "reward=text2reward",
        f"reward.confinement={LEVEL}",
        "agent.n_steps=64",
        "total_timesteps=1600",
        "log_interval=1",
        *short,
    )
    assert "reward program: height + balance + middle, from recorded" in said
    run = tmp_path / "runs" / "last"
    source = (run / "program.py").read_text()
    facts = json.loads((run / "program.json").read_text())
    assert facts["confinement"] == LEVEL and facts["components"] == ["height", "balance", "middle"]
    assert yaml.safe_load((run / "config.yaml").read_text())["reward"]["program"] == source
    header = (run / "progress.csv").read_text().splitlines()[0]
    assert {"reward/component_height", "reward/component_balance"} <= set(header.split(","))
    # From now on the run's own program is what counts: it is not asked for again.
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["reward"]["program"] = source.replace('"middle": 0.1', '"middle": 0.0').replace(
        '"height": 0.3', '"height": 100'
    )
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "going on from step 2,048" in _run(tmp_path, "vlmrl.train", "resume=last", "total_timesteps=3200", *short)
    policies = json.loads((run / "result.json").read_text())["policies"]
    assert policies["untrained"]["model_reward"]["mean"] > 1000
