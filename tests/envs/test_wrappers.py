from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.toys import BrightnessEncoder, CountingEnv, PixelReward, PointEnv
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.reward_models.ground_truth import GroundTruthReward


def test_rewards_of_a_clip_reward_on_any_environment() -> None:
    env = ModelRewardWrapper(PointEnv(), ClipReward("bright", encoder=BrightnessEncoder()))
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    for _ in range(5):
        _, reward, _, _, info = env.step(np.ones(1, dtype=np.float32))
        position = env.unwrapped.position
        assert reward == info["vlm_reward"] == pytest.approx(np.cos((1 - position) * np.pi / 2), abs=0.01)
        assert info["original_reward"] == position
        assert ROW not in info


@pytest.mark.parametrize("context", [0, 1])
def test_episodes_left_early_leave_nothing_behind(context: int) -> None:
    env = ModelRewardWrapper(CountingEnv(length=5), PixelReward(context))
    for steps in (2, 5, 0, 1, 5):
        env.reset()
        for _ in range(steps):
            env.step(np.zeros(1))
    assert len(env._rewards) == 0


def test_ground_truth_needs_no_picture() -> None:
    env = ModelRewardWrapper(PointEnv(render_mode=None), GroundTruthReward())
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.ones(1))
    assert reward == pytest.approx(info["original_reward"])


def test_a_field_that_nobody_needs_is_not_produced() -> None:
    class NoPicture(PointEnv):
        def render(self) -> np.ndarray:
            raise AssertionError("rendered")

    env = RowWriter(NoPicture(), {"reward"})
    env.reset(seed=0)
    assert env.step(np.zeros(1))[4][ROW].frames is None


@pytest.mark.parametrize(
    ("env", "fields", "message"),
    [
        (lambda: PointEnv(render_mode=None), {"embeddings"}, "render_mode='rgb_array'"),
        (PointEnv, {"state"}, "simulator_state"),
        (PointEnv, {"frame"}, "Did you mean 'frames'"),
        (lambda: gym.make("vlmrl/CartPole-v0", render_mode="rgb_array"), {"frames"}, "Did you mean 'front'"),
    ],
)
def test_bad_input_at_construction(env, fields: set[str], message: str) -> None:  # noqa: ANN001
    with pytest.raises(UserError, match=message):
        RowWriter(env(), fields, cameras=("fronts",))


def test_several_views_need_an_environment_that_has_them() -> None:
    with pytest.raises(UserError, match="looks through front and side, .* the one view of its render"):
        RowWriter(PointEnv(), {"frames"}, cameras=("front", "side"))


def test_each_camera_draws_its_own_picture_and_the_reward_sees_all() -> None:
    model = ClipReward("bright", encoder=BrightnessEncoder(), views="min")
    both = ("front", "side")
    single = {}
    for cameras in (both, *((name,) for name in both)):
        env = ModelRewardWrapper(
            gym.make("vlmrl/Hopper-v0", render_mode="rgb_array", width=32, height=32), model, cameras
        )
        env.reset(seed=0)
        single[cameras] = env.step(env.action_space.sample() * 0)[1]
        env.close()
    assert single["front",] != single["side",]
    assert np.isclose(single[both], min(single["front",], single["side",]), atol=1e-6)


def test_a_picture_that_is_none_is_said_so() -> None:
    class Grey(PointEnv):
        def render(self) -> np.ndarray:
            return np.zeros((8, 8), dtype=np.uint8)

    env = RowWriter(Grey(), {"frames"})
    with pytest.raises(UserError, match=r"\(H, W, 3\), uint8 RGB is needed"):
        env.reset(seed=0)


def test_the_model_is_taken_as_it_is_and_not_copied() -> None:
    class Uncopied(BrightnessEncoder):
        def __deepcopy__(self, memo: dict) -> None:
            raise TypeError("weights of gigabytes")

    model = ClipReward("bright", encoder=Uncopied())
    env = ModelRewardWrapper(PointEnv(), model)
    assert env._saved_kwargs["model"] is model


class PosesOnly(BrightnessEncoder):
    """Was made for one environment, and says so."""

    def check_env(self, env: str) -> None:
        if env != "humanoid":
            raise UserError(f"has only seen humanoid, and this environment is '{env}'.")


@pytest.mark.parametrize(
    ("make", "warned"),
    [
        (PointEnv, "has only seen humanoid, and this environment is 'PointEnv'.*any_env=True"),
        (lambda: gym.make("CartPole-v1", render_mode="rgb_array"), "this environment is 'CartPole-v1'"),
        (lambda: gym.make("vlmrl/CartPole-v0", render_mode="rgb_array"), "this environment is 'cartpole'"),
        (lambda: gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array"), None),
    ],
)
def test_pictures_that_the_encoder_was_not_made_for_are_warned_of(make: Any, warned: str | None) -> None:
    model = ClipReward("bright", encoder=PosesOnly())
    if warned is None:
        with warnings.catch_warnings(category=UserWarning, action="error"):
            ModelRewardWrapper(make(), model)
        return
    with pytest.warns(UserWarning, match=warned):
        ModelRewardWrapper(make(), model)
