"""sample-factory for real: `make test-appo`, in the environment that has it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.agents.appo.test_config import agent
from tests.agents.appo.worlds import TEXTS
from tests.patience import PATIENCE
from tests.reward_models.label_endpoint import serve_labels
from vlmrl.agents.appo.options import factory_options, factory_settings
from vlmrl.agents.appo.policy import AppoPolicy
from vlmrl.errors import UserError

pytest.importorskip("sample_factory")
psutil = pytest.importorskip("psutil")  # which comes with it

ROOT = Path(__file__).parents[3]
QUICK = [
    "agent=appo",
    "task=none",
    "total_timesteps=4000",
    "n_envs=4",
    "agent.batch_size=256",
    "agent.net_arch=[32]",
    "agent.rnn_size=32",
    "agent.learning_rate=3e-3",
    "video=false",
    "eval_episodes=4",
    "progress_bar=false",
    "checkpoint_every=2000",
]
SAYS = ["env=gym", "env.id=tests.agents.appo.worlds:Says-v0"]


def arguments(module: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", module, *overrides]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(folder: Path, module: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(module, *overrides), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )


class Started:
    """A run in a process of its own that steps already."""

    def __init__(self, folder: Path, *overrides: str):
        self._folder = folder
        self.process = subprocess.Popen(
            arguments("vlmrl.train", *QUICK, "total_timesteps=100000000", "reward=ground_truth", *overrides),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until_it_steps(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(self._finished()) < 4:  # each environment has ended an episode
            assert self.process.poll() is None, self.process.stdout.read()  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def _finished(self) -> list[Path]:
        tables = self._folder.glob("runs/*/*/monitor/*.csv")
        return [path for path in tables if path.read_text().count("\n") > 2]

    @property
    def children(self) -> list[psutil.Process]:
        return [
            child for child in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]

    def end(self, timeout: float) -> str:
        output, _ = self.process.communicate(timeout=timeout)
        return output


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    runs: list[Started] = []

    def start(*overrides: str) -> Started:
        runs.append(Started(tmp_path, *overrides))
        return runs[-1]

    yield start
    for one in runs:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has learned from labels of texts, asynchronously."""
    folder = tmp_path_factory.mktemp("appo")
    table = {"goal": "find keys", "about": "a test", "helpful": ["you find a key"], "other": ["a wall"]}
    folder.joinpath("labels.json").write_text(json.dumps(table))
    reward = ["reward=oni", "reward.table=labels.json", "reward.extrinsic_coef=0", "reward.intrinsic_coef=1"]
    done = run(folder, "vlmrl.train", *SAYS, *QUICK, *reward, "reward.beta=0", "total_timesteps=12000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a label that comes after a step counts from the next time" in done.stdout
    return folder


def last_line(table: Path) -> dict[str, str]:
    with table.open() as file:
        return list(csv.DictReader(file))[-1]


def test_a_run_learns_what_its_labels_say_and_leaves_what_any_run_leaves(trained: Path) -> None:
    last = trained / "runs" / "last"
    for name in (
        "config.yaml",
        "command.txt",
        "versions.json",
        "model.zip",
        "untrained.zip",
        "reward_model.safetensors",
    ):
        assert (last / name).is_file(), name
    assert len(list((last / "monitor").glob("*.monitor.csv"))) == 4
    assert list(last.glob("events.out.tfevents.*")) and list((last / "checkpoints" / "checkpoint_p0").glob("*.pth"))
    assert not list(last.glob("checkpoints/.summary/**/events*"))  # curves are in one place
    figures = last_line(last / "progress.csv")
    assert float(figures["reward/intrinsic"]) > 0 and float(figures["reward/extrinsic"]) == 0
    assert 0 < float(figures["reward/labelled_share"]) < 1 and float(figures["annotator/labels"]) == 2
    policies = json.loads((last / "result.json").read_text())["policies"]
    assert policies["trained"]["truth"]["mean"] > policies["random"]["truth"]["mean"]
    assert policies["trained"]["model_reward"]["mean"] == policies["trained"]["truth"]["mean"]  # a key each fourth step


def test_evaluate_reads_it_and_resume_goes_on(trained: Path) -> None:
    measured = run(trained, "vlmrl.evaluate", "runs=last", "episodes=4", "video=false", "progress_bar=false")
    assert measured.returncode == 0, measured.stderr
    short = run(trained, "vlmrl.train", "resume=last")
    assert short.returncode == 2 and "total_timesteps=" in short.stderr
    before = AppoPolicy.load((trained / "runs" / "last" / "model.zip").resolve())
    longer = run(trained, "vlmrl.train", "resume=last", f"total_timesteps={before.num_timesteps + 1000}")
    assert longer.returncode == 0, longer.stdout + longer.stderr
    assert f"going on from step {before.num_timesteps:,}" in longer.stdout
    after = AppoPolicy.load((trained / "runs" / "last" / "model.zip").resolve())
    assert after.num_timesteps > before.num_timesteps + 1000 - 1
    first = int(last_line(trained / "runs" / "last" / f"progress_{before.num_timesteps}.csv")["time/total_timesteps"])
    assert first > before.num_timesteps


def test_a_judge_labels_what_the_workers_meet_and_a_dead_one_stops_nothing(tmp_path: Path) -> None:
    judge = (
        "reward=oni reward.labels=judge judge=openai judge.model=labeller judge.store=answers.sqlite judge.retries=0"
    )
    words = ["goal=find keys", "task=none", *judge.split()]
    with serve_labels() as server:
        done = run(tmp_path, "vlmrl.train", *SAYS, *QUICK, *words, f"judge.base_url={server.url}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(server.texts) == set(TEXTS) - {""}
        assert set(server.texts.values()) == {1}  # each once, whatever worker met it and however often
    figures = last_line(tmp_path / "runs" / "last" / "progress.csv")
    assert float(figures["annotator/labelled"]) == 3 and float(figures["reward/labelled_share"]) > 0
    labels = json.loads((tmp_path / "runs" / "last" / "labels.json").read_text())
    assert sorted(labels["soft"]) == sorted(set(TEXTS) - {""})
    dead = [
        "judge.store=other.sqlite",
        "judge.base_url=http://127.0.0.1:9/v1",
        "judge.check=false",
        "judge.timeout_s=1",
    ]
    done = run(tmp_path, "vlmrl.train", *SAYS, *QUICK, *words, *dead)
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(last_line(tmp_path / "runs" / "last" / "progress.csv")["annotator/alive"]) == 0


@pytest.mark.parametrize("which", ["first", "last"], ids=["learner", "worker"])
def test_a_process_that_is_killed_ends_the_run_with_an_error_within_seconds(started: Any, which: str) -> None:
    run = started(*SAYS)
    run.until_it_steps()
    children = sorted(run.children, key=lambda child: child.create_time())
    children[0 if which == "first" else -1].kill()
    killed = time.monotonic()
    output = run.end(60)
    assert run.process.returncode == 1
    assert time.monotonic() - killed < 30  # on a machine that is busy
    assert re.search(r"^Error: The process \w+ \(pid \d+\) was killed by SIGKILL\.", output, re.MULTILINE)
    assert gone(children, 10)


@pytest.mark.parametrize("serial", ["false", "true"])
def test_an_environment_that_fails_ends_the_run_with_its_own_words(started: Any, serial: str) -> None:
    run = started("env=gym", "env.id=tests.agents.appo.worlds:Breaks-v0", f"agent.serial={serial}")
    output = run.end(240)
    assert run.process.returncode == 1
    error = output[output.index("Error: ") :]
    assert ("The process rollout_proc" in error) == (serial == "false")
    assert "ValueError: the dungeon collapsed in process" in error


def test_an_environment_that_hangs_is_named_and_ends_the_run(started: Any) -> None:
    run = started("env=gym", "env.id=tests.agents.appo.worlds:Breaks-v0", "env.kwargs.hangs=true", "agent.timeout_s=15")
    output = run.end(240)
    assert run.process.returncode == 1
    assert "These environments have not come back from a step: " in output


def test_ctrl_c_saves_what_was_learned(started: Any, tmp_path: Path) -> None:
    run = started(*SAYS)
    run.until_it_steps()
    children = run.children
    run.process.send_signal(signal.SIGINT)
    output = run.end(200)
    assert run.process.returncode == 0, output
    assert "Stopped at step" in output
    assert AppoPolicy.load((tmp_path / "runs" / "last" / "model.zip").resolve()).num_timesteps > 0
    assert gone(children, 10)


def test_nothing_outlives_a_run_that_is_killed(started: Any) -> None:
    run = started(*SAYS)
    run.until_it_steps()
    children = run.children
    assert len(children) == 4  # learner, policy, two workers
    run.process.kill()
    assert gone(children, 30)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["model"]


def test_in_one_process_a_run_is_the_same_every_time_and_begins_with_the_untrained_policy(tmp_path: Path) -> None:
    serial = [*SAYS, *QUICK, "agent.serial=true", "total_timesteps=600", "eval_episodes=1", "reward=ground_truth"]
    for name, rate in (("a", 3e-3), ("b", 3e-3), ("c", 1e-30)):
        folder = tmp_path / name
        folder.mkdir()
        done = run(folder, "vlmrl.train", *serial, f"agent.learning_rate={rate}")
        assert done.returncode == 0, done.stdout + done.stderr
    a, b, c = (weights(tmp_path / name / "runs" / "last" / "model.zip") for name in "abc")
    untrained = weights(tmp_path / "c" / "runs" / "last" / "untrained.zip")
    assert all(torch.equal(a[name], b[name]) for name in a)
    learned = [name for name in a if name.endswith(("weight", "bias")) or "weight_" in name]
    # Steps of 1e-30 move nothing but biases, which begin at 0.
    assert learned and all(torch.allclose(c[name], untrained[name], rtol=0, atol=1e-25) for name in learned)
    assert any(not torch.equal(a[name], untrained[name]) for name in learned)


def policy(observation_space: gym.Space, action_space: gym.Space, tmp_path: Path, **changes: Any) -> AppoPolicy:
    options = factory_options(
        agent(net_arch=(16,), rnn_size=8, **changes), observation_space, tmp_path, 8, 100, 0, "cpu"
    )
    made = AppoPolicy(vars(factory_settings(options)), observation_space, action_space)
    made.draw(0)
    return made


@pytest.mark.parametrize("rnn", ["none", "gru", "lstm"])
def test_a_policy_remembers_within_an_episode_and_comes_back_from_a_file(rnn: str, tmp_path: Path) -> None:
    sees = gym.spaces.Box(-1, 1, (3,))
    acts = gym.spaces.Box(np.array([-2, 0], dtype=np.float32), np.array([2, 0.1], dtype=np.float32))
    one = policy(sees, acts, tmp_path, rnn=rnn)
    one.save(tmp_path / "model.zip")
    other = AppoPolicy.load(tmp_path / "model.zip")
    assert (other.observation_space, other.action_space) == (sees, acts)
    seen = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
    begun, state = one.predict(seen, deterministic=True)
    again, _ = other.predict(seen, None, np.ones(4, dtype=bool), deterministic=True)
    np.testing.assert_array_equal(begun, again)
    assert begun.shape == (4, 2) and all(acts.contains(action) for action in begun)
    kept, _ = one.predict(seen, state, np.array([False, False, True, True]), deterministic=True)
    np.testing.assert_array_equal(kept[2:], begun[2:])  # an episode begins, nothing is remembered
    raw = [np.abs(kept[i] - begun[i]).max() for i in range(2)]
    assert (max(raw) == 0) == (rnn == "none")
    drawn = {tuple(one.predict(seen)[0][0].tolist()) for _ in range(5)}
    assert len(drawn) > 1


def test_numbered_actions_begin_where_their_space_does(tmp_path: Path) -> None:
    space = gym.spaces.Dict({"here": gym.spaces.Discrete(3), "map": gym.spaces.Box(0, 9, (2, 2), np.int16)})
    acts = gym.spaces.Discrete(4, start=10)
    seen = {"here": np.array([0, 1, 2]), "map": np.ones((3, 2, 2), dtype=np.int16)}
    actions, _ = policy(space, acts, tmp_path).predict(seen)
    assert actions.shape == (3,) and all(acts.contains(action) for action in actions)


def test_a_file_that_is_no_policy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no policy of agent=appo"):
        AppoPolicy.load(path)


def test_sample_factory_knows_every_option_that_is_set(tmp_path: Path) -> None:
    from sample_factory.cfg.arguments import default_cfg

    options = factory_options(agent(), gym.spaces.Box(-1, 1, (3,)), tmp_path, 8, 100, 0, "cpu")
    assert set(options) - set(vars(default_cfg())) == {"features_dim"}  # which is ours
    defaults = default_cfg()
    for name, value in options.items():
        default = getattr(defaults, name, None)
        if default is not None and value is not None and not isinstance(default, type(value)):
            assert isinstance(default, int | float) and isinstance(value, int | float), (name, default, value)
