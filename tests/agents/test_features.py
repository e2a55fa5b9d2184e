"""Networks of worlds that are no vectors see what is in their parts, and learn through recurrent and plain PPO."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrl.agents import AGENTS
from vlmrl.agents.features import (
    CellFeatures,
    MapFeatures,
    MessageFeatures,
    StatisticsFeatures,
    WordFeatures,
    WorldFeatures,
    policy_for,
)

HIGHEST = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3))
GRID = Dict(
    {
        "direction": Discrete(4),
        "image": Box(np.zeros_like(HIGHEST), HIGHEST, dtype=np.uint8),
        "mission": Box(0, 60, (12,), np.uint8),
    }
)
NETHACK = Dict(
    {
        "glyphs": Box(0, 5976, (21, 79), np.int16),
        "blstats": Box(-(2**31), 2**31 - 1, (27,), np.int64),
        "message": Box(0, 255, (256,), np.uint8),
    }
)


def batch(space: Dict, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    space.seed(seed)
    samples = [space.sample() for _ in range(n)]
    return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}


def seen(observations: dict[str, np.ndarray], space: Dict) -> dict[str, torch.Tensor]:
    """What Stable-Baselines3 hands to a features extractor."""
    return preprocess_obs({key: torch.as_tensor(value) for key, value in observations.items()}, space)  # type: ignore[return-value]


@pytest.mark.parametrize("space", [GRID, NETHACK], ids=["grid", "nethack"])
def test_each_part_changes_what_comes_out_and_an_observation_alone_gives_what_it_gives_in_a_batch(space: Dict) -> None:
    torch.manual_seed(0)
    extractor = WorldFeatures(space, features_dim=24)
    observations, others = batch(space, 5), batch(space, 5, seed=1)
    with torch.no_grad():
        features = extractor(seen(observations, space))
        assert features.shape == (5, 24) and torch.isfinite(features).all()
        alone = extractor(seen({key: value[2:3] for key, value in observations.items()}, space))
        torch.testing.assert_close(alone[0], features[2], rtol=1e-5, atol=1e-6)
        for key in space.spaces:
            changed = extractor(seen({**observations, key: others[key]}, space))
            assert not torch.allclose(changed, features), key


def test_every_parameter_is_learned() -> None:
    for space in (GRID, NETHACK):
        extractor = WorldFeatures(space, features_dim=8)
        extractor(seen(batch(space, 32), space)).square().sum().backward()
        still = [name for name, value in extractor.named_parameters() if value.grad is None or not value.grad.any()]
        assert not still


def test_words_beyond_the_sentence_do_not_count_and_their_order_does() -> None:
    part = WordFeatures(GRID["mission"])  # type: ignore[arg-type]
    sentence = torch.tensor([[5.0, 9, 7, 0, 0, 0], [7, 9, 5, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        features = part(sentence)
        torch.testing.assert_close(part(sentence[:1, :3])[0], features[0])
    assert not torch.allclose(features[0], features[1])
    assert torch.isfinite(features[2]).all()


@pytest.mark.parametrize("text", ["", "Hi", "You see here a scroll.", "x" * 256])
def test_messages_of_any_length(text: str) -> None:
    part = MessageFeatures(NETHACK["message"])  # type: ignore[arg-type]
    line = np.zeros((1, 256), np.uint8)
    line[0, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    features = part(torch.as_tensor(line).float())
    assert features.shape == (1, 64) and torch.isfinite(features).all()


def test_the_close_view_is_centred_on_the_hero_and_ends_at_the_edge_of_the_map() -> None:
    torch.manual_seed(0)
    part = MapFeatures(NETHACK["glyphs"])  # type: ignore[arg-type]
    whole = 32 * 3 * 10

    def close(glyphs: np.ndarray, x: int, y: int) -> torch.Tensor:
        with torch.no_grad():
            return part(torch.as_tensor(glyphs[None]).float(), torch.tensor([[x, y]]))[0, whole:]

    glyphs = np.zeros((21, 79), np.int16)
    here, moved = glyphs.copy(), glyphs.copy()
    here[10, 40], moved[5, 20] = 99, 99
    torch.testing.assert_close(close(here, 40, 10), close(moved, 20, 5))  # the same around the hero
    far = glyphs.copy()
    far[10, 45] = 99  # five columns away is out of view
    torch.testing.assert_close(close(far, 40, 10), close(glyphs, 40, 10))
    assert not torch.allclose(close(glyphs, 0, 0), close(glyphs, 40, 10))  # beyond the edge is no floor
    assert torch.isfinite(close(glyphs, 78, 20)).all()


def test_statistics_of_any_size_stay_small() -> None:
    part = StatisticsFeatures(NETHACK["blstats"])  # type: ignore[arg-type]
    assert part(torch.full((1, 27), 2.0**31)).abs().max() < 100


def test_cells_count_by_place() -> None:
    part = CellFeatures(GRID["image"])  # type: ignore[arg-type]
    one, other = torch.zeros(1, 7, 7, 3), torch.zeros(1, 7, 7, 3)
    one[0, 2, 3], other[0, 3, 2] = torch.tensor([5.0, 1, 0]), torch.tensor([5.0, 1, 0])
    with torch.no_grad():
        assert not torch.allclose(part(one), part(other))


def test_policies_are_chosen_by_what_there_is_to_see() -> None:
    picture = Box(0, 255, (64, 64, 3), np.uint8)
    assert policy_for(Box(-1, 1, (4,)), 8) == ("MlpPolicy", {})
    assert policy_for(picture, 8, "LstmPolicy") == ("CnnLstmPolicy", {})
    name, arguments = policy_for(GRID, 8, "LstmPolicy")
    assert name == "MultiInputLstmPolicy" and arguments["features_extractor_kwargs"] == {"features_dim": 8}
    # Parts that are not known are seen as Stable-Baselines3 sees them.
    mixed = Dict({"picture": Box(0, 255, (3, 64, 64), np.uint8), "arm": Box(-1, 1, (2, 3))})
    assert WorldFeatures(mixed, 8)(seen(batch(mixed, 2), mixed)).shape == (2, 8)


class Recall(gym.Env):
    """Says "left" or "right" in words, and pays for doing it at the second step.

    Args:
        again: Whether the word is said at the second step, too; else it must be remembered.
    """

    observation_space = Dict({"mission": Box(0, 3, (4,), np.uint8), "arm": Box(-1, 1, (2,))})
    action_space = Discrete(2)

    def __init__(self, again: bool):
        self._again = again

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self._right, self._t = int(self.np_random.integers(2)), 0
        return self._show(said=True), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        self._t += 1
        done = self._t == 2
        return self._show(said=self._again), float(done and int(action) == self._right), done, False, {}

    def _show(self, said: bool) -> dict[str, np.ndarray]:
        words = np.array([3, self._right + 1 if said else 0, 0, 0], np.uint8)
        return {"mission": words, "arm": np.array([self._t / 2, 0], np.float32)}


@pytest.mark.parametrize(("agent", "again"), [("ppo", True), ("recurrent_ppo", False)])
def test_words_are_learned_and_the_recurrent_one_remembers_them(agent: str, again: bool) -> None:
    settings: dict[str, Any] = {
        "learning_rate": 1e-2,
        "learning_rate_schedule": "constant",
        "n_steps": 32,
        "batch_size": 256,
        "n_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "net_arch": (16,),
        "features_dim": 16,
    }
    if agent == "recurrent_ppo":
        settings |= {"lstm_hidden_size": 16, "n_lstm_layers": 1, "enable_critic_lstm": True}
    env = DummyVecEnv([lambda: Monitor(Recall(again)) for _ in range(8)])
    model = AGENTS.load(agent)(**settings).build(env, seed=0, device="cpu")
    model.learn(2560)
    # Chance earns 0.5, and so does whoever has forgotten the word.
    assert np.mean([episode["r"] for episode in list(model.ep_info_buffer)[-100:]]) > 0.9
