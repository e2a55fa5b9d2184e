"""Rewards of texts while an agent learns: late labels count, runs go on to the bit, and no server stops training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.reward_models.label_endpoint import serve_labels
from tests.toys import TalkingEnv
from vlmrl.agents import checkpoints
from vlmrl.agents.annotations import Annotations
from vlmrl.agents.buffers import (
    RewardFillingDictRolloutBuffer,
    RewardFillingReplayBuffer,
    RewardFillingRolloutBuffer,
    attach_rewards,
)
from vlmrl.agents.recurrent import RewardFillingRecurrentPPO, RewardFillingRecurrentRolloutBuffer
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.envs.reward_vec_env import RewardVecEnv
from vlmrl.envs.row_writer import RowWriter
from vlmrl.envs.seeded_episodes import SeededEpisodes
from vlmrl.judges.desk import Desk
from vlmrl.judges.openai import OpenAIConfig
from vlmrl.judges.store import AnswerStore
from vlmrl.reward_models import oni_annotator
from vlmrl.reward_models.oni import OniConfig, OniReward
from vlmrl.reward_models.oni_annotator import Annotator
from vlmrl.reward_models.oni_labels import Item, LabelQuestions, LabelTable

SCRIPT = [("you find a key", 0.0), ("a wall", 0.0), ("you find a key", 0.0), ("out", 1.0)]
TABLE = LabelTable("test", "get out", "a toy", {"you find a key": 1.0, "a wall": 0.0, "out": 1.0})


class LateLabels:
    """An annotator whose labels come when the test says so."""

    def __init__(self) -> None:
        self.ready: list[tuple[Item, float]] = []
        self.offered: set[Item] = set()

    def offer(self, items: Mapping[Item, float]) -> None:
        self.offered |= set(items)

    def stats(self) -> dict[str, float]:
        return {}

    def collect(self) -> list[tuple[Item, float]]:
        ready, self.ready = self.ready, []
        return ready


def talking(model: OniReward, script: list[tuple[str, float]] = SCRIPT, n_envs: int = 1) -> RewardVecEnv:
    def factory(i: int) -> Any:
        env = RowWriter(TalkingEnv(script), model.needs, at_reset=False)
        return lambda: SeededEpisodes(env, seed=3, index=i)

    return RewardVecEnv(DummyVecEnv([factory(i) for i in range(n_envs)]), LazyRewards(model))


def played(model: OniReward, kind: str, placeholders: list[float]) -> Any:
    """Return a buffer with one episode of two environments: discount 1/2, lambda 1, every value 0.1."""
    env = talking(model, n_envs=2)
    rest = {"gae_lambda": 1.0, "gamma": 0.5, "n_envs": 2}
    box = Box(0, 1, (1,), np.float32)
    if kind == "recurrent":
        buffer: Any = RewardFillingRecurrentRolloutBuffer(4, box, Discrete(2), (4, 1, 2, 3), "cpu", **rest)
    elif kind == "dict":
        buffer = RewardFillingDictRolloutBuffer(4, Dict({"x": box}), Discrete(2), "cpu", **rest)
    else:
        buffer = RewardFillingRolloutBuffer(4, box, Discrete(2), "cpu", **rest)
    buffer.attach(env)
    seen = env.reset()
    states = tuple(torch.zeros(1, 2, 3) for _ in range(2))
    extra: dict[str, Any] = {}
    if kind == "recurrent":
        from sb3_contrib.common.recurrent.type_aliases import RNNStates

        extra = {"lstm_states": RNNStates(states, states)}
    for t in range(4):
        following, reward, dones, _ = env.step(np.zeros(2, dtype=int))
        assert not reward.any()
        observation = {"x": seen} if kind == "dict" else seen
        values = torch.full((2, 1), 0.1)
        starts = np.full(2, t == 0)
        buffer.add(observation, np.zeros((2, 1)), reward + placeholders[t], starts, values, torch.zeros(2), **extra)
        seen = following
    buffer.compute_returns_and_advantage(torch.full((2, 1), 7.0), dones)
    return buffer


def returns(rewards: list[float]) -> list[float]:
    total, found = 0.0, []
    for reward in reversed(rewards):
        total = reward + 0.5 * total
        found.append(total)
    return found[::-1]


@pytest.mark.parametrize("kind", ["vector", "dict", "recurrent"])
def test_a_late_label_counts_from_the_next_pass_on(kind: str) -> None:
    model = OniReward(OniConfig(extrinsic_coef=1, intrinsic_coef=0.8, beta=1))
    late: Any = LateLabels()
    model.annotator = late
    placeholders = [0.0, 0.3, 0.0, 0.0]  # such as gamma * V(terminal) of a truncated step
    buffer = played(model, kind, placeholders)

    def passed() -> tuple[np.ndarray, np.ndarray]:
        """One pass over the rollout, put in order again: returns and advantages, (2, 4)."""
        for _ in buffer.get(3):
            pass
        assert buffer.returns.shape == (8, 1)  # one environment after the other
        return buffer.returns.reshape(2, 4), buffer.advantages.reshape(2, 4)

    before = returns([0, 0.3, 0, 1])
    for found in passed():
        assert found.shape == (2, 4)
    np.testing.assert_allclose(buffer.returns.reshape(2, 4), [before, before], atol=1e-6)
    assert buffer.refills == 0
    assert late.offered == {("you find a key",), ("a wall",), ("out",)}

    late.ready = [(("you find a key",), 1.0), (("a wall",), 0.0)]
    after = returns([0.8, 0.3, 0.8 / 2, 1])
    assert after == pytest.approx([0.8 + 0.15 + 0.1 + 0.125, 0.3 + 0.2 + 0.25, 0.4 + 0.5, 1.0])
    for _ in range(2):
        now, advantages = passed()
        np.testing.assert_allclose(now, [after, after], atol=1e-6)
        np.testing.assert_allclose(advantages, now - 0.1, atol=1e-6)
        assert buffer.refills == 1  # the second pass brings no news
    late.ready = [(("out",), 1.0)]
    np.testing.assert_allclose(passed()[0][1], returns([0.8, 0.3, 0.4, 1.8]), atol=1e-6)
    assert buffer.refills == 2
    # What batches see is what the arrays hold.
    (batch,) = buffer.get(8)
    shown = batch.returns.flatten().numpy()  # of a recurrent buffer filled up with zeros
    np.testing.assert_array_equal(np.unique(shown[shown != 0]), np.unique(buffer.returns))


def test_first_pass_and_later_ones_come_to_the_same() -> None:
    """Labels that are there before the rollout ends, or in the middle of learning from it."""
    early = OniReward(OniConfig(intrinsic_coef=0.5), table=TABLE)
    late = OniReward(OniConfig(intrinsic_coef=0.5))
    labels: Any = LateLabels()
    late.annotator = labels
    buffers = [played(model, "vector", [0.0] * 4) for model in (early, late)]
    labels.ready = [((text,), label) for text, label in TABLE.labels.items()]
    for buffer in buffers:
        list(buffer.get(8))
    for name in ("returns", "advantages", "rewards", "values"):
        np.testing.assert_array_equal(getattr(buffers[0], name), getattr(buffers[1], name), err_msg=name)


WORDS = [
    f"{verb} {thing}" for verb in ("you find", "you lose", "you see") for thing in ("gold", "a key", "a wall", "air")
]
MANY = LabelTable("test", "get out", "a toy", {word: float("find" in word) for word in WORDS})
LONG = [(word, float(i == len(WORDS) - 1)) for i, word in enumerate(WORDS)]
SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 1}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (PPO, {"n_steps": 10, "batch_size": 20, "n_epochs": 2, "rollout_buffer_class": RewardFillingRolloutBuffer}),
    "recurrent": (RewardFillingRecurrentPPO, {"n_steps": 10, "batch_size": 20, "n_epochs": 2}),
    "dqn": (DQN, {"learning_starts": 30, "buffer_size": 100, "replay_buffer_class": RewardFillingReplayBuffer}),
}


def learner(agent: str, config: OniConfig, path: Path, seed: int = 4, table: LabelTable | None = MANY) -> Any:
    """Return an algorithm and the callback that keeps its reward up to date."""
    cls, arguments = AGENTS[agent]
    model = OniReward(config, table=table)
    model.seed = seed
    algorithm = cls(
        "MlpLstmPolicy" if agent == "recurrent" else "MlpPolicy",
        talking(model, LONG, 2),
        **copy.deepcopy(arguments | SMALL),
    )
    attach_rewards(algorithm)
    return algorithm, Annotations(model, interact=20, labels=path / "labels.json")


class Stop(BaseCallback):
    def _on_step(self) -> bool:
        return self.num_timesteps < 130


@pytest.mark.parametrize("variant", ["retrieval", "classification", "ranking"])
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_with_recorded_labels_a_resumed_run_ends_as_an_uninterrupted_one(
    agent: str, variant: Any, tmp_path: Path
) -> None:
    config = OniConfig(variant=variant, gradient_steps=5, pairs=4, held_out=0)

    def saved(folder: str, companion: Annotations) -> checkpoints.CheckpointCallback:
        return checkpoints.CheckpointCallback(tmp_path / folder, 50, 12, [companion])

    whole, companion = learner(agent, config, tmp_path)
    whole.learn(200, callback=[companion, saved("whole", companion)])

    first, companion = learner(agent, config, tmp_path)
    first.learn(200, callback=[companion, saved("parts", companion), Stop()])
    np.random.seed(99)
    torch.manual_seed(99)
    second, companion = learner(agent, config, tmp_path)
    checkpoint = checkpoints.newest(tmp_path / "parts")
    second = checkpoints.restore(AGENTS[agent][0], checkpoint, second.get_env(), "cpu", [companion])
    assert 50 <= second.num_timesteps <= 130
    second.learn(200 - second.num_timesteps, reset_num_timesteps=False, callback=[companion, saved("parts", companion)])
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[key]), key
    models = [checkpoints._reward_env(algorithm).rewards.model for algorithm in (whole, second)]
    assert models[0].labels == models[1].labels and models[0].labels  # type: ignore[attr-defined]
    assert models[0].version == models[1].version >= 1  # type: ignore[attr-defined]


def test_a_replay_is_rewarded_again_by_newer_labels(tmp_path: Path) -> None:
    algorithm, companion = learner("dqn", OniConfig(extrinsic_coef=0, intrinsic_coef=1), tmp_path, table=None)
    late: Any = LateLabels()
    companion._reward_model.annotator = late
    algorithm.learn(40, callback=companion)
    assert not algorithm.replay_buffer.rewards.any()
    late.ready = [((text,), label) for text, label in MANY.labels.items()]
    algorithm.learn(40, callback=companion, reset_num_timesteps=False)
    buffer = algorithm.replay_buffer
    said = np.array([word in ("you find gold", "you find a key", "you find a wall", "you find air") for word in WORDS])
    t = buffer._keys["t"][: buffer.pos]
    np.testing.assert_array_equal(buffer.rewards[: buffer.pos] > 0, said[t - 1])
    assert companion._relabelled > 0


def asking(url: str, store: Path) -> Annotator:
    config = OpenAIConfig(
        model="labeller", base_url=url, retries=0, timeout_s=1, deadline_s=1, check=False, concurrency=2
    )
    desk = Desk(config.build(), AnswerStore(store), config.budget, attempts=None)
    return Annotator(desk, LabelQuestions("get out", "a toy"), 2)


@pytest.mark.parametrize("mode", ["fair", "broken", "silent", "babble", "gone"])
def test_whatever_the_server_does_training_goes_on(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oni_annotator, "PATIENCE", 0.05)
    monkeypatch.setattr(oni_annotator, "GRACE", 0.2)
    logged: dict[str, float] = {}

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            logged.update({k: v for k, v in self.logger.name_to_value.items() if k.startswith("annotator/")})

    with serve_labels() as server:
        server.mode = mode
        url = server.url if mode != "gone" else "http://127.0.0.1:9/v1"  # nobody listens at "discard"
        algorithm, companion = learner("ppo", OniConfig(labels="judge"), tmp_path, table=None)
        companion._reward_model.annotator = asking(url, tmp_path / "answers.sqlite")
        algorithm.learn(400, callback=[companion, Look()])
        summary = companion.summary()
        companion.close()
        assert algorithm.num_timesteps == 400
        assert {f"annotator/{name}" for name in ("alive", "queue", "labelled", "dropped", "age_s", "version")} <= set(
            logged
        )
        if mode == "fair":
            assert set(server.texts.values()) == {1}
            assert summary["alive"] == 1 and summary["labels"] > 0 and algorithm.rollout_buffer.refills > 0
            asked = server.requests
            again, second = learner("ppo", OniConfig(labels="judge"), tmp_path, seed=5, table=None)
            second._reward_model.annotator = asking(url, tmp_path / "answers.sqlite")
            known = set(companion._reward_model.labels)
            again.learn(100, callback=second)
            second.close()
            assert server.requests == asked + len(WORDS) - len(known)  # only what the first run had not come to
            assert set(second._reward_model.labels) >= known
            assert (tmp_path / "labels.json").is_file()
        else:
            assert summary["labels"] == 0 and not (tmp_path / "labels.json").exists()
            assert mode == "babble" or mode == "silent" or summary["alive"] == 0
