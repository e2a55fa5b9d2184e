from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

import vlmrl
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.datasets.base import Frames, open_dataset, transitions
from vlmrl.datasets.writers import WRITERS
from vlmrl.envs.cartpole_tasks import balance
from vlmrl.envs.tasks import dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.workflows.collect import collect
from vlmrl.workflows.config.collect import CollectConfig, collect_settings

CARTPOLE = ("env=cartpole", "policy=random", "env.max_episode_steps=6", "env.height=32", "env.width=32", "episodes=2")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)


def settings(*overrides: str) -> CollectConfig:
    arguments = for_hydra(["progress_bar=false", *overrides])
    values = plain(compose("collect", arguments))
    number = len(list(Path("runs").glob("*"))) if Path("runs").is_dir() else 0
    return collect_settings(
        {**values, "run_dir": f"runs/{number}"}, [argument.partition("=")[0] for argument in arguments]
    )


def test_what_happened_is_recorded() -> None:
    collect(settings(*CARTPOLE, "out=cartpole/random-v0"))
    dataset = minari.load_dataset("cartpole/random-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (2, 12)
    one = dataset[1]
    assert one.infos["frames"]["front"].shape == (7, 32, 32, 3)
    for t in range(6):
        conditions = balance({name: values[t + 1] for name, values in one.infos["state"].items()})
        assert one.rewards[t] == pytest.approx(dense_reward(conditions))  # the truth of the task, of where a step led
        assert one.infos["predicate"][t] == holds(conditions)
    assert one.infos["is_success"].tolist() == [False] * 5 + [bool(np.mean(one.infos["predicate"]) >= 0.5)]
    assert one.truncations.tolist() == [False] * 5 + [True]
    assert one.infos["env_reward"].shape == (6,)


def test_the_environment_can_be_had_again_and_draws_the_same() -> None:
    collect(settings(*CARTPOLE, "out=cartpole/random-v0"))
    dataset = minari.load_dataset("cartpole/random-v0")
    env = dataset.recover_environment()
    (metadata,) = dataset.storage.get_episode_metadata([1])
    observation, _ = env.reset(seed=metadata["seed"])
    one = dataset[1]
    np.testing.assert_array_equal(observation, one.observations[0])
    np.testing.assert_array_equal(env.render(), one.infos["frames"]["front"][0])
    for t, action in enumerate(one.actions):
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(observation, one.observations[t + 1])
        np.testing.assert_array_equal(env.render(), one.infos["frames"]["front"][t + 1])
    env.close()


def test_the_same_seed_is_the_same_data_and_another_is_other() -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        collect(settings(*CARTPOLE, f"out={name}-v0", f"seed={seed}", "frames=false"))
    a, b, c = (transitions(open_dataset(f"{name}-v0")) for name in "abc")
    np.testing.assert_array_equal(a.observations, b.observations)
    np.testing.assert_array_equal(a.actions, b.actions)
    assert not np.array_equal(a.observations, c.observations)


def test_several_policies_take_turns_and_some_actions_are_random() -> None:
    collect(settings(*CARTPOLE, "policy=[zero,random]", "out=a-v0", "frames=false", "episodes=4"))
    dataset = minari.load_dataset("a-v0")
    assert [int(one.infos["policy"][0]) for one in dataset] == [0, 1, 0, 1]
    assert (dataset[0].actions == 0).all()
    collect(settings(*CARTPOLE, "policy=zero", "out=b-v0", "frames=false", "episodes=20", "random_actions=0.5"))
    pushed = np.concatenate([one.actions for one in minari.load_dataset("b-v0")])
    assert 0.1 < pushed.mean() < 0.4  # half of the actions are drawn, and half of these are no zeros


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_every_form_holds_the_same(kind: str) -> None:
    collect(settings(*CARTPOLE, "out=./there-v0", f"format={kind}"))
    collect(settings(*CARTPOLE, "out=first-v0"))
    there, first = open_dataset("there-v0"), open_dataset("first-v0")
    assert there.format == kind
    assert (there.observation_space, there.action_space) == (first.observation_space, first.action_space)
    for one, other in zip(there.episodes(), first.episodes(), strict=True):
        one.check()
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.terminations, other.terminations)
        np.testing.assert_array_equal(one.truncations, other.truncations)
        np.testing.assert_allclose(one.rewards, other.rewards, rtol=1e-6)
        seen, drawn = (np.asarray(each.frames["front"]).astype(int) for each in (one, other))
        assert np.abs(seen - drawn).mean() < (0.5 if kind == "minari" else 6)
    assert there.metadata["vlmrl"]["env"]["name"] == "cartpole"


def test_an_interrupted_recording_keeps_what_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmrl.workflows import collect as module

    record, calls = module._record, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return record(*arguments)

    monkeypatch.setattr(module, "_record", interrupted)
    collect(replace(settings(*CARTPOLE, "out=a-v0", "frames=false"), episodes=9))
    assert minari.load_dataset("a-v0").total_episodes == 2


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_an_episode_whose_writing_is_interrupted_is_left_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate, calls = Frames.__iter__, []

    def interrupted(self: Frames) -> Iterator[np.ndarray]:
        calls.append(1)
        for i, frame in enumerate(iterate(self)):
            if len(calls) == 2 and i == 85:  # a film has nothing in its file before it has some dozens
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Frames, "__iter__", interrupted)
    collect(settings(*CARTPOLE, "env.max_episode_steps=90", "out=./there-v0", f"format={kind}"))
    assert len(transitions(open_dataset("there-v0"))) == 90


@pytest.mark.parametrize("kind", ["clips", "lerobot"])
def test_pictures_that_a_film_cannot_hold_are_refused_before_anybody_acts(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrl.workflows.collect._record", None)
    with pytest.raises(UserError, match=r"33 x 32.*34 x 32.*env.height=34 env.width=32"):
        collect(settings(*CARTPOLE, "env.height=33", "out=./there-v0", f"format={kind}"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["out=a-v0"], "Nobody acts"),
        (["policy=random", "out=a-v0"], "comes without an environment"),
        (["policy=random", "env=cartpole"], "out is empty"),
        (["policy=random", "env=cartpole", "out=a-v0", "reward=clip"], "means nothing to collect"),
        (["run=last", "env=cartpole", "out=a-v0"], "has an environment of its own"),
        (["run=last", "task=balance", "out=a-v0"], "needs the environment"),
        (["policy=random", "env=cartpole", "out=./a", "format=clips", "frames=false"], "is about pictures"),
        (["policy=random", "env=cartpole", "out=a-v0", "format=zarr"], "format=zarr is not one of"),
    ],
)
def test_mistakes_are_said_at_start(overrides: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        settings(*overrides)


def test_a_name_that_is_taken_is_said_before_anything_is_recorded() -> None:
    collect(settings(*CARTPOLE, "out=a-v0", "frames=false"))
    with pytest.raises(UserError, match="never written over"):
        collect(settings(*CARTPOLE, "out=a-v0", "episodes=1000000"))


def test_help_names_the_same_algorithms_wherever_policies_come_from_outside() -> None:
    configs = Path(vlmrl.__file__).parent / "configs"
    lines = [
        next(line for line in (configs / name).read_text().splitlines() if line.startswith("algorithm: "))
        for name in ("collect.yaml", "evaluate.yaml")
    ]
    assert lines[0] == lines[1]
