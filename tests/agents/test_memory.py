from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from vlmrl.agents import memory
from vlmrl.agents.buffers import _ARRAYS, RewardFillingReplayBuffer
from vlmrl.agents.memory import in_words, machine_bytes, replay_bytes, retained_bytes
from vlmrl.errors import UserError

Box = gym.spaces.Box


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (Box(-1, 1, (45,), np.float32), Box(-1, 1, (17,), np.float32)),
        (Box(-1, 1, (3, 4), np.float64), Box(-1, 1, (2,), np.float64)),
        (Box(0, 255, (8, 8, 3), np.uint8), gym.spaces.Discrete(5)),
        (gym.spaces.Discrete(7), gym.spaces.Discrete(2)),
    ],
)
@pytest.mark.parametrize(("size", "n_envs"), [(1000, 1), (1001, 8), (3, 8)])
def test_the_size_is_that_of_a_real_buffer(observation: gym.Space, action: gym.Space, size: int, n_envs: int) -> None:
    buffer = RewardFillingReplayBuffer(size, observation, action, device="cpu", n_envs=n_envs)
    arrays = sum(getattr(buffer, name).nbytes for name in _ARRAYS)
    assert replay_bytes(size, n_envs, observation, action) == arrays


def test_observations_of_several_parts_are_for_other_agents() -> None:
    parts = gym.spaces.Dict({"glyphs": Box(0, 9, (3, 4), np.int16), "message": Box(0, 255, (8,), np.uint8)})
    with pytest.raises(UserError, match=r"several things at once \(glyphs, message\).*agent=ppo or"):
        replay_bytes(1000, 2, parts, gym.spaces.Discrete(3))


def test_a_container_may_have_less_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine_bytes()
    assert whole is not None and whole > 1e8
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (str(limit),))
    for text, expected in (("12345678\n", 12345678), (str(10**18), None), ("max\n", None)):
        limit.write_text(text)
        found = machine_bytes()
        assert found == expected if expected else found is not None and found >= whole


def test_in_words() -> None:
    assert [in_words(size) for size in (136_000_000, 2_000_000_000)] == ["136 MB", "2.0 GB"]


def test_what_a_reward_model_keeps_is_counted_where_it_lies() -> None:
    retained = {"embeddings/front": np.zeros((1, 128), np.float32), "frames/front": np.zeros((1, 64, 64, 3), np.uint8)}
    assert retained_bytes(retained) == (512, 12288)
    assert retained_bytes({}) == (0, 0)
