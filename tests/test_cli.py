"""The command shells: what a person types, and the one line that says what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from vlmrl import evaluate, train
from vlmrl.commands import compose, expand
from vlmrl.errors import UserError

COMMANDS = ["train", "evaluate", "audit", "fit", "collect", "relabel"]
Type = Callable[..., list[Any]]


@pytest.fixture
def type_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Type:
    """Run `vlmrl.train` in this process, in an empty folder, with a workflow that writes down its settings."""

    def type_(*arguments: str) -> list[Any]:
        runs: list[Any] = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        monkeypatch.setattr(train, "_work", runs.append)
        train.main()
        return runs

    return type_


def one_error(capsys: pytest.CaptureFixture[str], type_: Type, *arguments: str) -> str:
    """Return the one line on stderr of a command that ends with 2."""
    with pytest.raises(SystemExit) as caught:
        type_(*arguments)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["env=humaniod"], "Unknown env 'humaniod'. Did you mean 'humanoid'? Available: "),
        (["reward=clp"], "Unknown reward 'clp'. Did you mean 'clip'?"),
        (["agent=sca"], "Unknown agent 'sca'. Did you mean 'sac'? Available: appo, bc, crossq, dqn, iql, ppo, "),
        (["task=kneel"], "Unknown task 'kneel'. Did you mean 'kneeling'?"),
        (["encoder=minni"], "Unknown encoder 'minni'. Did you mean 'mini'?"),
        (["seeed=1"], "Unknown key 'seeed'. Did you mean 'seed'?"),
        (["+seeed=1"], "Unknown key 'seeed'. Did you mean 'seed'?"),
        (["agnt=sac"], "Unknown key 'agnt'. Did you mean 'agent'?"),
        (["agent.learningrate=1"], "Unknown agent key 'learningrate'. Did you mean 'learning_rate'?"),
        (["seed=abc"], "seed is 'abc'; it must be a whole number"),
        (["agent.learning_rate=fast"], "agent.learning_rate is 'fast'; it must be a number"),
        (["goal="], "goal holds an empty sentence"),
        (
            ["env=cartpole", "task=kneeling"],
            "Unknown task of environment 'cartpole': 'kneeling'. Available: balance, none.",
        ),
        (["task=kneeling", "goal=a robot"], "task 'kneeling' has one already"),
        (["seed=0,1"], "seed=0,1 lists several values. Add -m to run them all"),
        (["env"], "'env' has no value: write env=..."),
        (["agent=null"], "agent takes one name"),
        (["~agent"], "agent takes one name"),
        (["agent=[sac,ppo]"], "agent takes one name"),
        (["~seed"], "seed is missing; give it a whole number, at least 0"),
        (["run_dir=it's"], "cannot be read. Write key=value, and put a value with commas"),
        (["threads=${sed}"], "Interpolation key 'sed' not found"),
        (["--config-dir", "nowhere"], "there is no folder 'nowhere'"),
        (["-m", "seed=0,abc"], "seed is 'abc'; it must be a whole number"),
        (["-m", "reward=ground_truth,clp"], "Unknown reward 'clp'. Did you mean 'clip'?"),
        (["seeed=1", "-m", "seed=0,1"], "Unknown key 'seeed'. Did you mean 'seed'?"),
        (["--cfg", "job", "seeed=1"], "Unknown key 'seeed'. Did you mean 'seed'?"),
        (["--help", "seeed=1"], "Unknown key 'seeed'. Did you mean 'seed'?"),
    ],
)
def test_a_mistake_is_one_line_at_start(
    arguments: list[str], says: str, type_train: Type, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = one_error(capsys, type_train, *arguments)
    assert says in line
    assert "use +" not in line and "hydra" not in line.lower()
    assert list(tmp_path.iterdir()) == []  # no run was started, not even the first ones of a sweep


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str, files: tuple[str, ...] = ()) -> None:
    """Run `vlmrl.train` with a workflow that writes files into the run's folder and then finds a mistake."""

    def work(settings: Any) -> None:
        for name in files:
            Path(settings.run_dir, name).write_text("")
        raise UserError("There is no such file.")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    monkeypatch.setattr(train, "_work", work)
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert caught.value.code == 2


@pytest.mark.parametrize("arguments", [["seed=1"], ["-m", "seed=1,2", "run_dir=runs/of/mine"]])
def test_a_mistake_that_the_workflow_finds_is_one_line_too(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    refuse(monkeypatch, tmp_path, *arguments)
    assert capsys.readouterr().err == "Error: There is no such file.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_wrote_something_stays_and_so_does_what_was_there_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath("empty").mkdir()
    refuse(monkeypatch, tmp_path, "run_dir=empty")
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    refuse(monkeypatch, tmp_path, "run_dir=empty", files=("config.yaml",))
    (folder,) = tmp_path.glob("empty/*/*")
    assert {path.name for path in folder.iterdir()} == {".hydra", "config.yaml"}
    refuse(monkeypatch, tmp_path, "run_dir=empty")
    assert list(tmp_path.glob("empty/*/*")) == [folder]


def test_a_run_lands_under_the_folder_one_stands_in(type_train: Type, tmp_path: Path) -> None:
    (settings,) = type_train("env=cartpole", "total_timesteps=1e3")
    folder = Path(settings.run_dir)
    assert folder.parent == tmp_path / "runs" / "cartpole-balance-clip-ppo"
    assert (folder / ".hydra" / "overrides.yaml").read_text() == "- env=cartpole\n- total_timesteps=1e3\n"
    assert settings.total_timesteps == 1000
    assert [path.name for path in folder.iterdir()] == [".hydra"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_sweep_gives_each_job_a_folder_of_its_own(type_train: Type, tmp_path: Path) -> None:
    jobs = type_train(
        "env=cartpole", "-m", "seed=0,1", "reward=clip,ground_truth"
    )  # -m in the middle, as people type it
    assert [(job.seed, job.reward.name) for job in jobs] == [
        (0, "clip"),
        (0, "ground_truth"),
        (1, "clip"),
        (1, "ground_truth"),
    ]
    folders = {Path(job.run_dir) for job in jobs}
    assert len(folders) == 4
    for job in jobs:
        folder = Path(job.run_dir)
        assert folder.parent == tmp_path / "runs" / f"cartpole-balance-{job.reward.name}-ppo"
        assert folder.name.endswith(f"seed={job.seed}")
        assert (folder / ".hydra").is_dir()
    assert {folder.parent for folder in folders} == set(tmp_path.joinpath("runs").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_run_dir_moves_the_runs(type_train: Type, tmp_path: Path) -> None:
    (settings,) = type_train(f"run_dir={tmp_path}/elsewhere")
    assert Path(settings.run_dir).parent.parent == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    "sentence",
    [
        "a humanoid robot doing the splits",
        "arms up, head high (very high); it's 50% [sic] {brace}: a=b",
        'a "quoted" word',
        "1",
        "true",
        "ein Roboter, der kniet — ü",
    ],
)
def test_any_sentence_can_be_typed(sentence: str, type_train: Type) -> None:
    (settings,) = type_train(f"goal={sentence}", f"baseline={sentence}")
    assert settings.words.goal == (sentence,)
    assert settings.words.baseline == (sentence,)
    assert settings.task.name == "none"


def test_sentences_can_be_swept_and_listed(type_train: Type) -> None:
    assert [job.words.goal for job in type_train("-m", "goal='a, b','c'")] == [("a, b",), ("c",)]
    assert [job.words.goal for job in type_train("goal=['a, b','c']")] == [("a, b", "c")]


def test_goal_null_is_no_goal(type_train: Type) -> None:
    (settings,) = type_train("goal=null")
    assert settings.task.name == "kneeling"


def test_keywords_of_an_environment_need_no_plus(type_train: Type) -> None:
    (settings,) = type_train("env.kwargs.reset_noise_scale=0.1")
    assert settings.env.kwargs == {"reset_noise_scale": 0.1}


def test_a_folder_of_ones_own_yaml(type_train: Type, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "task").mkdir(parents=True)
    own.joinpath("task", "praying.yaml").write_text(
        "name: kneeling\ngoal: a robot at prayer\nbaseline: a robot\nnegatives: []\n"
        "camera: side\nrule: end\nfraction: 0.5\n"
    )
    (settings,) = type_train("--config-dir", str(own), "task=praying")
    assert settings.words.goal == ("a robot at prayer",)


def test_expand_lists_every_job_of_a_sweep() -> None:
    assert expand(["a=1"], multirun=False) == [["a=1"]]
    assert expand(["a=1,2", "b=x", "c=range(0,2)"], multirun=True) == [
        ["a=1", "b=x", "c=0"],
        ["a=1", "b=x", "c=1"],
        ["a=2", "b=x", "c=0"],
        ["a=2", "b=x", "c=1"],
    ]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_with_examples_and_explains_each_key(name: str, tmp_path: Path) -> None:
    result = command(f"vlmrl.{name}", "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    examples = [line for line in result.stdout.splitlines()[:8] if line.startswith(f"  python -m vlmrl.{name} ")]
    assert len(examples) >= 3
    config = compose(name, [])
    for key, value in config.items():
        if not hasattr(value, "name"):  # a group is shown key by key
            assert f"\n  {key}=" in result.stdout, key
    assert list(tmp_path.iterdir()) == []


def test_help_shows_what_is_chosen(tmp_path: Path) -> None:
    result = command("vlmrl.train", "--help", "env=cartpole", "agent=dqn", cwd=tmp_path)
    assert "agent.exploration_fraction=0.16" in result.stdout
    assert "Keys of env (cartpole):" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_mistakes_load_nothing_heavy(name: str, tmp_path: Path) -> None:
    code = (
        "import json, runpy, sys\n"
        f"sys.argv = ['{name}', *json.loads(sys.argv[1])]\n"
        "try:\n"
        f"    runpy.run_module('vlmrl.{name}', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'mujoco', 'open_clip', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    for arguments in (["--help"], ["seeed=1"]):
        result = subprocess.run(
            [sys.executable, "-c", code, json.dumps(arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert result.returncode == 0, result.stderr


def test_cfg_job_shows_the_whole_configuration(tmp_path: Path) -> None:
    result = command("vlmrl.train", "env=cartpole", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "id: vlmrl/CartPole-v0" in result.stdout
    assert "${" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    result = command("vlmrl.train", "env=humanoid", "reward=clp", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: Unknown reward 'clp'. Did you mean 'clip'? Available: clip, ")
    assert len(result.stderr.splitlines()) == 1


def test_the_help_may_be_read_in_part() -> None:
    """`python -m vlmrl.train --help | head -1`, where nobody reads on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmrl.train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=PATIENCE)
    assert errors == ""


def test_ctrl_c_is_a_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", "runs=[a,b]", "episodes=3"])
    monkeypatch.setattr(evaluate, "_work", pressed)
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert ended.value.code == 130  # as shells have it
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert not (tmp_path / "runs").exists()


def test_evaluate_is_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", "runs=[a,b]", "episodes=3"])
    monkeypatch.setattr(evaluate, "_work", runs.append)
    evaluate.main()
    (settings,) = runs
    assert (settings.runs, settings.episodes) == (("a", "b"), 3)
    assert Path(settings.run_dir).parent == tmp_path / "runs" / "evaluate"
