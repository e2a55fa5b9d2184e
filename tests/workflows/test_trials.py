"""Trials from elsewhere: what files may look like, and what the command says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.comparison import compare_with_first, sentence, summary
from vlmrl.workflows.config.evaluate import EvaluateConfig, evaluate_settings
from vlmrl.workflows.evaluate_trials import evaluate_trials
from vlmrl.workflows.trials import Trial, as_trials, read_trials


def settings(tmp_path: Path, *overrides: str) -> EvaluateConfig:
    values = plain(compose("evaluate", list(overrides)))
    return evaluate_settings({**values, "run_dir": str(tmp_path / "out")}, [key.partition("=")[0] for key in overrides])


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_table_is_read_as_people_write_it(tmp_path: Path) -> None:
    file = write(tmp_path / "drawer.csv", "\ufeffSuccess, score ,judge\ns,,\nFALSE,0.25,0\n,,0.5\n1,1,1\n")
    (trials,) = read_trials([file]).values()
    assert trials.name == "drawer" and trials.task == ("",) * 4
    np.testing.assert_array_equal(trials.success, [1, 0, np.nan, 1])
    np.testing.assert_array_equal(trials.judged, [np.nan, 0, 0.5, 1])
    np.testing.assert_array_equal(trials.score, [np.nan, 0.25, np.nan, 1])


def test_policies_of_one_table_and_of_several(tmp_path: Path) -> None:
    both = write(tmp_path / "day1.csv", "policy,task,seed,success\nb,cup,1,0\na,cup,1,1\n")
    more = write(tmp_path / "day2.csv", "policy,task,seed,success\na,cup,2,0\n")
    found = read_trials([both, more])
    assert list(found) == ["b", "a"] and found["a"].start == ("1", "2")


def test_lerobots_evaluations_are_named_by_their_folders(tmp_path: Path) -> None:
    new = {"per_task": [{"task_group": "libero", "task_id": 3, "metrics": {"successes": [True, False]}}], "overall": {}}
    old = {"per_episode": [{"episode_ix": 0, "success": True, "seed": 1000}], "aggregated": {"pc_success": 100.0}}
    write(tmp_path / "act" / "eval_info.json", json.dumps(new))
    file = write(tmp_path / "pi0" / "eval_info.json", json.dumps(old))
    found = read_trials([str(tmp_path / "act"), file])
    assert list(found) == ["act", "pi0"]
    assert found["act"].task == ("libero/3", "libero/3") and list(found["act"].success) == [1, 0]
    assert found["pi0"].start == ("1000",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "win\n1\n", "has no column success. Bring a csv"),
        ("a.csv", "success\n", "holds no trials"),
        ("a.csv", "success\nmaybe\n", "line 2 .* success is 'maybe'; it must be true or false"),
        ("a.csv", "success,score\n1,3\n", "line 2 .*score is '3'; it must be a number from 0 to 1"),
        ("a.csv", "success,judge\n1,1\n,\n", "line 3 .* neither success nor judge"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"overall": {"pc_success": 50.0}}', "holds no outcomes, neither under per_task nor"),
        ("a.json", '{"per_episode": [{"success": 0.5}]}', "success = 0.5 of a trial"),
        ("a.txt", "1", "neither csv nor json"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_trials([write(tmp_path / name, text)])


def policy(name: str, outcomes: str, task: str = "", seeds: bool = True, first: int = 0) -> list[Trial]:
    return [Trial(name, task, str(first + i) if seeds else "", float(c)) for i, c in enumerate(outcomes)]


def compare(*policies: list[Trial], margin: float = 0.1):
    return compare_with_first({trials[0].policy: as_trials(trials) for trials in policies}, margin)


def test_equal_seeds_are_paired_whatever_the_order() -> None:
    good, bad = policy("good", "1111111111" * 3), policy("bad", "1110000000" * 3)
    (entry,) = compare(bad, good[::-1])
    assert entry.paired == 30 and entry.fixed.word == "BETTER" and entry.fixed.method.endswith("McNemar's exact test")
    (apart,) = compare(bad, policy("good", "1" * 30, seeds=False))
    assert apart.paired == 0 and apart.fixed.word == "BETTER" and "Barnard" in apart.fixed.method
    (elsewhere,) = compare(bad, policy("good", "1" * 30, first=500))
    assert elsewhere.paired == 0  # other seeds


def test_tasks_that_only_one_was_tried_on_are_left_out() -> None:
    one = policy("one", "11110000", "cup") + policy("one", "1111", "drawer")
    (entry,) = compare(one, policy("two", "11110000", "cup"))
    assert (
        entry.paired == 8
        and entry.fixed.difference == 0
        and entry.notes == ("Only one of them was tried on 'drawer'; left out here.",)
    )
    with pytest.raises(UserError, match="no task in common"):
        compare(one, policy("two", "1", "door"))
    (mixed,) = compare(policy("a", "1" * 8, "x", False) + policy("a", "0" * 2, "y", False),
                       policy("b", "1" * 2, "x", False) + policy("b", "0" * 8, "y", False))  # fmt: skip
    assert any("different shares" in note for note in mixed.notes)


def test_several_comparisons_are_each_more_careful() -> None:
    first, second = policy("a", "1" * 12 + "0" * 28), policy("b", "1" * 22 + "0" * 18)
    (alone,) = compare(first, second)
    many = compare(first, second, *(policy(f"c{i}", "1" * 12 + "0" * 28) for i in range(9)))
    assert alone.fixed.interval[0] > many[0].fixed.interval[0]
    assert alone.fixed.word == "BETTER" and many[1].fixed.word == "SAME"


def test_a_judge_fills_in_for_labels_and_is_refused_with_too_few() -> None:
    rng = np.random.default_rng(0)

    def judged(name: str, rate: float, labels: int) -> list[Trial]:
        truth = rng.random(300) < rate
        return [
            Trial(name, "", "", float(y) if i < labels else np.nan, float(rng.random() < (0.95 if y else 0.1)))
            for i, y in enumerate(truth)
        ]

    low, high = judged("low", 0.3, 60), judged("high", 0.8, 60)
    (entry,) = compare(low, high)
    assert entry.fixed.word == "BETTER" and entry.sequential is None
    assert abs(summary(as_trials(high))["corrected"]["mean"] - 0.8) < 0.1
    with pytest.raises(UserError, match="'few': A judge is set right by at least 30 labels"):
        summary(as_trials(judged("few", 0.5, 12)))


def test_the_command_prints_and_writes_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"{name},{i},{int(i % 10 < wins)},{(i % 10 < wins) * 0.5 + 0.2}"
        for name, wins in (("before", 3), ("after", 9))
        for i in range(40)
    ]
    file = write(tmp_path / "trials.csv", "\n".join(["policy,seed,success,score", *lines]))
    (entry,) = evaluate_trials(settings(tmp_path, f"trials={file}"))
    out = capsys.readouterr().out
    assert "BETTER: b is better than a (Newcombe interval for pairs, McNemar's exact test, from 40 equal starts)" in out
    assert "a: before" in out and "90% [76.9, 96.0]" in out
    (written,) = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["verdict"] == "BETTER" and written["paired_episodes"] == 40
    assert written["progress"]["verdict"] == "BETTER" and written["sequential"]["settled_after"] < 40
    rates = json.loads((tmp_path / "out" / "result.json").read_text())
    assert rates["after"]["success"]["mean"] == 0.9 and rates["after"]["score_iqm"]["mean"] == pytest.approx(0.7)
    evaluate_trials(settings(tmp_path / "again", f"trials={file}", "sequential=true"))
    assert "betting confidence sequence, from 40 equal starts, settled after" in capsys.readouterr().out


def test_an_undecided_comparison_says_what_it_would_take() -> None:
    (entry,) = compare(policy("a", "1100"), policy("b", "1110"), margin=0.01)
    text = sentence(entry, {"a": "a", "b": "b"}, False, 0.01)
    assert (
        text.startswith("UNDERPOWERED: nobody can tell yet whether b is better than a") and "episodes of each" in text
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trials=a.csv", "runs=last"], "name one kind"),
        (["trials=['']"], "trials holds an empty name"),
        (["trials=a.csv", "margin=0"], "margin is 0; it must be a number, 0 to 1"),
    ],
)
def test_settings_of_trials(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(tmp_path, *overrides)
