"""The command's arguments, and what it does by itself."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3 import PPO

from benchmarks.results.__main__ import Settings, read_settings, work
from benchmarks.results.plan import Plan
from benchmarks.results.records import Records
from benchmarks.results.runner import Work
from tests.benchmarks.results.made import TOY, by_hand, line, summary
from vlmrl import evaluate as command
from vlmrl.agents import reference_policies
from vlmrl.errors import UserError
from vlmrl.workflows.run_folder import versions


def test_arguments_are_read_as_those_of_the_commands() -> None:
    settings = read_settings(["rows=[kneeling*,*_truth]", "seeds=0", "budget_minutes=1.5", "import=a/b"])
    assert settings == Settings(("kneeling*", "*_truth"), (0,), budget_minutes=1.5, import_="a/b")
    for arguments, message in (
        (["row=a"], "Unknown key 'row'. Did you mean 'rows'"),
        (["jobs=0"], "jobs is 0; it must be a whole number, at least 1"),
        (["import=a", "publish=b"], "three different things"),
        (["rows=[a"], "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            read_settings(arguments)


def test_a_run_made_by_hand_is_taken_over(place: Path, plan: Plan) -> None:
    run = by_hand(place / "elsewhere" / "run", plan, "short")
    work(Settings(plan="plan.yaml", import_=str(run.path)))
    kept = Records(Path("docs/results")).load("short", 0)
    assert kept is not None and (kept.steps, kept.training_seconds, kept.command_seconds) == (256, 7.0, None)
    assert str(place) not in Records(Path("docs/results")).path("short", 0).read_text()
    assert "platform" not in kept.versions and kept.versions["torch"] == versions()["torch"]
    assert line(place / "docs" / "results.md", "a short one")["predicate holds"] == "50 % [40, 60]"
    found = Work(Path("runs/results"), plan.rows["short"], 0).run()
    assert found is not None and found.path.resolve() == run.path.resolve()


def test_a_finished_run_becomes_the_policy_that_evaluate_finds(
    place: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = by_hand(place / "run", plan, "short", seed=3)
    trained = PPO("MlpPolicy", gym.make("vlmrl/CartPole-v0"), device="cpu", policy_kwargs={"net_arch": [8]}, seed=1)
    trained.save(run.model)
    work(Settings(publish=str(run.path), reference="reference"))
    card = json.loads((place / "reference" / "cartpole_balance.json").read_text())
    assert card["policies"]["trained"] == summary(0.5) and card["command"].endswith(" seed=3")
    assert str(place) not in json.dumps(card)

    monkeypatch.setattr(reference_policies, "FOLDER", place / "reference")
    settings = ["env=cartpole", "reward=ground_truth", "episodes=4", "n_envs=2", "progress_bar=false", "device=cpu"]
    by_name = command.evaluate({}, *settings, "policy=reference", f"run_dir={place / 'a'}")
    directly = command.evaluate({"it": trained}, *settings, f"run_dir={place / 'b'}")
    assert by_name["reference"].truth == directly["it"].truth
    with pytest.raises(UserError, match="no reference policy for env=mountaincar task=climb. There are: env=cartpole"):
        command.evaluate({}, "env=mountaincar", "reward=ground_truth", "policy=reference", f"run_dir={place / 'c'}")


def test_a_row_that_needs_what_is_not_installed_is_left_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "plan.yaml").write_text(TOY.replace("  published: elsewhere\n", "  module: no_such_module\n"))
    assert work(Settings(plan="plan.yaml", rows=("short",))) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "short-0: left out, its environment needs 'no_such_module'" in printed and "elsewhere: short-0" in printed
    assert not Path("docs/results").exists() or not list(Path("docs/results").glob("*.json"))
