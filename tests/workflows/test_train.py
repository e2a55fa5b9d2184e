"""The commands for real, in processes of their own, on runs of seconds."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from filelock import FileLock

from tests.patience import PATIENCE
from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import train_settings
from vlmrl.workflows.train import train

TINY = {
    "humanoid": [
        "env=humanoid",
        "n_envs=2",
        "agent.learning_starts=100",
        "agent.batch_size=32",
        "agent.net_arch=[16]",
        "checkpoint_every=200",
        "total_timesteps=400",
    ],
    "hopper": [
        "env=hopper",
        "task=stand",
        "env.max_episode_steps=40",
        "n_envs=2",
        "agent.learning_starts=100",
        "agent.batch_size=32",
        "agent.net_arch=[16]",
        "checkpoint_every=200",
        "total_timesteps=400",
    ],
    "cartpole": [
        "env=cartpole",
        "n_envs=2",
        "agent.n_steps=64",
        "agent.batch_size=64",
        "agent.net_arch=[16]",
        "total_timesteps=512",
    ],
}
COMMON = ["eval_episodes=2", "progress_bar=false", "threads=1", "device=cpu", "audit=false"]


def command(cwd: Path, *arguments: str, module: str = "vlmrl.train") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )


def run(cwd: Path, *arguments: str, module: str = "vlmrl.train") -> str:
    result = command(cwd, *arguments, module=module)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def last(cwd: Path) -> Path:
    return (cwd / "runs" / "last").resolve()


def parameters(path: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(path / "model.zip") as content:
        return torch.load(io.BytesIO(content.read("policy.pth")), map_location="cpu", weights_only=True)


@pytest.fixture(scope="session")
def humanoid_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """One run that several tests look at; the first worker that asks makes it, the others wait."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "humanoid_run"
    output = folder / "output.txt"
    with FileLock(f"{folder}.lock"):
        if not output.is_file():
            folder.mkdir(exist_ok=True)
            output.write_text(run(folder, *TINY["humanoid"], *COMMON, "reward=clip", "audit=true"))
    return folder, output.read_text()


def test_the_main_job_end_to_end(humanoid_run: tuple[Path, str]) -> None:
    folder, output = humanoid_run
    path = last(folder)
    assert path.parent.name == "humanoid-kneeling-clip-crossq"
    for name in (
        "config.yaml",
        "command.txt",
        "versions.json",
        "model.zip",
        "progress.csv",
        "monitor/0.monitor.csv",
        "monitor/1.monitor.csv",
    ):
        assert (path / name).stat().st_size > 0, name
    assert list(path.glob("events.out.tfevents.*"))
    for said in (
        "trained",
        "untrained",
        "random",
        "zero",
        "replay buffer: ",
        "predicate",
        "success",
        "truth",
        "reward",
        "longer:",
    ):
        assert said in output
    result = json.loads((path / "result.json").read_text())
    assert f"audit of the reward: {result['audit']['verdict']}. AUROC" in output
    assert result["hacking"] == []
    policies = result["policies"]
    for summary in policies.values():
        assert summary["episodes"] == 2
        assert 0 <= summary["fraction"]["mean"] <= 1
        low, high = summary["success"]["interval"]
        assert 0 <= low < high <= 1


def test_both_rewards_are_logged_and_differ(humanoid_run: tuple[Path, str]) -> None:
    rows = list(csv.DictReader((last(humanoid_run[0]) / "progress.csv").open()))
    truth = [float(row["rollout/ep_rew_mean"]) for row in rows if row["rollout/ep_rew_mean"]]
    model = [float(row["rollout/ep_vlm_rew_mean"]) for row in rows if row["rollout/ep_vlm_rew_mean"]]
    assert truth and model
    assert all(0 <= value <= 100 for value in truth)
    assert not np.isclose(truth[-1], model[-1])
    assert {"rollout/success_rate", "rollout/predicate_fraction"} <= set(rows[0])


def test_the_clip_is_a_film_that_moves(humanoid_run: tuple[Path, str]) -> None:
    (clip,) = (humanoid_run[0] / "videos").glob("*clip-crossq*.mp4")
    frames = np.stack([frame for frame in imageio.get_reader(clip)])
    assert frames.shape[1:] == (320, 640, 3)
    assert len(frames) == 3 * 101
    assert np.abs(frames[0].astype(int) - frames[60].astype(int)).mean() > 0.5


def test_evaluate_reads_the_run(humanoid_run: tuple[Path, str]) -> None:
    folder, _ = humanoid_run
    output = run(
        folder, "runs=last", "episodes=3", "n_envs=2", "progress_bar=false", "threads=1", module="vlmrl.evaluate"
    )
    assert "predicate" in output
    (result,) = (folder / "runs" / "evaluate").glob("*/result.json")
    (summary,) = json.loads(result.read_text()).values()
    assert summary["episodes"] == 3


def test_the_same_seed_gives_the_same_run_and_another_does_not(humanoid_run: tuple[Path, str], tmp_path: Path) -> None:
    # The first run was audited, these are not: an audit draws from nothing that training draws from.
    first = parameters(last(humanoid_run[0]))
    for seed, equal in ((0, True), (1, False)):
        run(tmp_path, *TINY["humanoid"], *COMMON, "reward=clip", f"seed={seed}", "video=false")
        second = parameters(last(tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first) == equal


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_cartpole_with_both_discrete_agents(tmp_path: Path, agent: str) -> None:
    own = (
        TINY["cartpole"]
        if agent == "ppo"
        else ["env=cartpole", "agent=dqn", "n_envs=2", "agent.learning_starts=100", "total_timesteps=600"]
    )
    output = run(tmp_path, *own, *COMMON, "reward=clip", "video=false")
    assert "trained" in output
    assert last(tmp_path).parent.name == f"cartpole-balance-clip-{agent}"


def test_a_sentence_of_ones_own_has_no_predicate(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        *TINY["humanoid"],
        *COMMON,
        "goal=a humanoid robot doing the splits",
        "baseline=a humanoid robot",
        "video=false",
    )
    assert "no predicate" in output
    assert "fraction" not in json.loads((last(tmp_path) / "result.json").read_text())["policies"]["trained"]


def test_an_agent_that_cannot_act_there_leaves_no_folder(tmp_path: Path) -> None:
    given = ["env=cartpole", "agent=sac", "reward=ground_truth", "audit=false", "device=cpu"]
    with pytest.raises(UserError, match="The actions of this agent are numbers"):
        train(train_settings({**plain(compose("train", given)), "run_dir": str(tmp_path / "runs" / "a" / "b")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("env", "agent", "reward"), [("humanoid", "crossq", "clip"), ("hopper", "sac", "text2reward")])
def test_a_killed_run_goes_on_and_ends_as_an_uninterrupted_one(
    env: str, agent: str, reward: str, tmp_path: Path
) -> None:
    """kill -9 between two checkpoints; the resumed run's policy equals that of a run that was never stopped."""
    arguments = [*TINY[env][:-1], *COMMON, f"agent={agent}", f"reward={reward}", "video=false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmrl.train", *arguments, "total_timesteps=800"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("runs/*/*/checkpoints/400")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    (stopped,) = tmp_path.glob("runs/*/2*")  # its folder is named by the time
    assert not (stopped / "result.json").exists()
    output = run(tmp_path, f"resume={stopped}", "progress_bar=false")
    assert "going on from step" in output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [stopped.parent.name, "last"]
    run(tmp_path, *arguments, "total_timesteps=800")
    whole = last(tmp_path)
    assert whole != stopped
    first, second = parameters(stopped), parameters(whole)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_says_how_to_go_on(humanoid_run: tuple[Path, str]) -> None:
    folder, _ = humanoid_run
    for arguments, message in (
        ([], "give more: total_timesteps="),
        (["agent.gamma=0.5"], "agent.gamma= cannot be given"),
    ):
        result = command(folder, f"resume={last(folder)}", *arguments)
        assert result.returncode == 2
        assert message in result.stderr and "Traceback" not in result.stderr
    result = command(folder, "resume=runs/nowhere")
    assert result.returncode == 2 and "There is no run folder" in result.stderr


def test_ground_truth_draws_nothing(tmp_path: Path) -> None:
    # A backend that does not exist: any picture would fail.
    result = subprocess.run(
        [sys.executable, "-m", "vlmrl.train", *TINY["humanoid"], *COMMON, "reward=ground_truth", "video=false"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "MUJOCO_GL": "disabled"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


def test_no_opengl_is_one_clear_error_at_start(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | {
        "MUJOCO_GL": "glfw",
        "PYTHONWARNINGS": "ignore",
    }
    result = subprocess.run(
        [sys.executable, "-m", "vlmrl.train", *TINY["humanoid"], *COMMON],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
    )
    assert result.returncode == 2
    assert "apt-get install" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs" / "last").exists()


def test_ctrl_c_saves(tmp_path: Path) -> None:
    arguments = [*TINY["humanoid"][:-1], *COMMON, "reward=clip", "total_timesteps=10000000", "video=false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmrl.train", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("runs/*/*/monitor/0.monitor.csv")) or not any(
            len(path.read_text().splitlines()) > 5 for path in tmp_path.glob("runs/*/*/monitor/0.monitor.csv")
        ):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the run gets it
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Stopped at step" in output and "go on:" in output and "longer:" not in output
    assert (last(tmp_path) / "model.zip").is_file()
    assert (last(tmp_path) / "result.json").is_file()
