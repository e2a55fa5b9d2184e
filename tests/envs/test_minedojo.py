"""MineDojo over the drawn stand-in: spaces, tasks that can be done, masks; and a run with a made checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from tests.encoders import released
from vlmrl.commands import compose, plain
from vlmrl.encoders.mineclip import check_frames
from vlmrl.envs.make import make_vec_env
from vlmrl.envs.minecraft.engine import ATTACK, NO_OP, PLACE, USE, Snapshot, allowed, observation
from vlmrl.envs.minecraft.tasks import SHIPPED
from vlmrl.envs.minedojo import MineDojo
from vlmrl.errors import UserError
from vlmrl.workflows.build import build_parts
from vlmrl.workflows.config.train import train_settings

STILL = np.array([0, 0, 0, 12, 12, 0, 0, 0])


def approach(env: MineDojo, function: int, steps: int = 400) -> tuple[float, bool, int]:
    """Turn to the mob, walk to it, look down at it and use or hit it; return the last reward, its end and the steps."""
    engine = env._engine
    for t in range(1, steps + 1):
        offset = engine._mob - engine._place  # type: ignore[attr-defined]
        bearing = (np.rad2deg(np.arctan2(offset[0], offset[1])) - engine._yaw + 180) % 360 - 180  # type: ignore[attr-defined]
        distance = float(np.linalg.norm(offset))
        action = STILL.copy()
        action[4] = 12 + int(np.round(bearing / 15))
        wanted = 30 if distance < 3 else 0
        action[3] = 12 + int(np.round((wanted - engine._pitch) / 15))  # type: ignore[attr-defined]
        action[0] = 1 if distance > 1.5 else 0
        action[5] = function if distance < 3 else 0
        _, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return reward, terminated, t
    return reward, False, steps


@pytest.mark.parametrize("task", sorted(SHIPPED))
def test_every_task_can_be_done_and_is_not_done_by_standing_still(task: str) -> None:
    env = MineDojo(task_id=task)
    env.reset(seed=1)
    for _ in range(20):
        _, reward, terminated, _, info = env.step(STILL)
        assert reward == 0 and not terminated and not info["success"]
    env.reset(seed=1)
    reward, terminated, _ = approach(env, ATTACK if SHIPPED[task].goal == "kill" else USE)
    assert (reward, terminated) == (1.0, True)
    state = env.simulator_state()
    assert state["success"] == 1 and state["gained"] >= 1
    observed, info = env.reset(seed=1)
    assert (
        not info["success"] and env.simulator_state()["gained"] == 0
    )  # kills go on counting, and the task begins anew
    assert env.observation_space.contains(observed)


def test_monsters_kill_who_stands_still() -> None:
    env = MineDojo(task_id="combat_zombie")
    env.reset(seed=0)
    for _ in range(2000):
        _, reward, terminated, _, _ = env.step(STILL)
        if terminated:
            break
    assert terminated and reward == 0 and env.simulator_state()["life"] == 0


def test_pictures_are_those_that_mineclip_looks_at() -> None:
    env = gym.make("vlmrl/MineDojo-v0", render_mode="rgb_array", width=256, height=160)
    observed, _ = env.reset(seed=0)
    check_frames(env.render()[None])
    np.testing.assert_array_equal(env.render(), observed["rgb"].transpose(1, 2, 0))
    small = gym.make("vlmrl/MineDojo-v0", render_mode="rgb_array", width=32, height=20)
    small.reset(seed=0)
    assert small.render().shape == (20, 32, 3)
    assert gym.make("vlmrl/MineDojo-v0").unwrapped.render() is None


def test_walking_and_turning_change_the_picture_as_they_should() -> None:
    env = MineDojo(render_mode="rgb_array")
    observed, _ = env.reset(seed=0)
    place, view = observed["position"], observed["view"]
    forward = STILL.copy()
    forward[0] = 1
    observed, *_ = env.step(forward)
    moved = observed["position"] - place
    np.testing.assert_allclose(moved[[0, 2]], 0.216 * view[:2], atol=1e-3)  # ahead is (sin yaw, cos yaw)
    down = STILL.copy()
    down[3] = 18
    observed, *_ = env.step(down)
    np.testing.assert_allclose(observed["view"][2:], [1, 0], atol=1e-6)
    assert env.render()[:60, :, 1].mean() > env.render()[:60, :, 2].mean()  # only grass where the sky was


def test_what_the_masks_do_not_allow_does_nothing() -> None:
    masks = {"mask_place": np.array([0.0, 1.0] + [0.0] * 34)}
    place = np.array([1, 0, 0, 12, 12, PLACE, 0, 1])
    np.testing.assert_array_equal(allowed(place, masks), place)
    place[7] = 0
    assert allowed(place, masks).tolist() == [1, 0, 0, 12, 12, NO_OP, 0, 0]
    assert allowed(np.array([0, 0, 0, 12, 12, 4, 3, 0]), {})[5] == NO_OP  # an engine without crafting
    assert allowed(np.array([0, 0, 0, 12, 12, ATTACK, 3, 0]), {})[5] == ATTACK


def test_what_an_engine_does_not_know_reads_zero_and_numbers_keep_to_their_bounds() -> None:
    rgb = np.zeros((160, 256, 3), np.uint8)
    observed = observation(Snapshot(rgb, {"life_stats": np.array([20, 20, 5, 300, 0, 9999])}))
    assert observed["life_stats"][5] == 1395 and not observed["voxels"].any()
    assert MineDojo().observation_space.contains(observed)


def test_what_is_named_wrongly_is_said() -> None:
    with pytest.raises(UserError, match="Unknown Minecraft engine 'fak'. Did you mean 'fake'"):
        MineDojo(engine="fak")
    with pytest.raises(UserError, match="no Minecraft task 'milk_a_cow'"):
        MineDojo(task_id="milk_a_cow")
    with pytest.raises(UserError, match="camera"):
        MineDojo(camera="back")


def test_the_task_of_the_command_is_that_of_the_game() -> None:
    settings = train_settings(plain(compose("train", ["env=minedojo", "task=shear_sheep"])))
    assert settings.env.kwargs["task_id"] == "shear_sheep" and settings.words is not None
    assert SHIPPED["shear_sheep"].prompt in settings.words.goal and len(settings.words.negatives) == 8


GIVEN = ["env=minedojo", "env.kwargs.engine=fake", "reward=mineclip", "progress_bar=false", "n_envs=1"]


def test_without_weights_it_is_said_how_to_give_them() -> None:
    settings = train_settings(plain(compose("train", GIVEN)))
    with pytest.raises(UserError, match="there are no weights: encoder.path=<attn.pth or avg.pth>"):
        build_parts(settings, "cpu")


def test_steps_are_rewarded_by_a_made_checkpoint(tmp_path: Path) -> None:
    path = released.write(released.mineclip_state(layers=1), tmp_path / "attn.pth")
    settings = train_settings(plain(compose("train", [*GIVEN, f"encoder.path={path}", "reward.kind=probability"])))
    parts = build_parts(settings, "cpu")
    rewards = parts.rewards(n_envs=1)
    env = make_vec_env(parts.env, rewards, 1, seed=0)
    try:
        env.reset()
        keys, frames = [], []
        for _ in range(4):
            _, _, _, infos = env.step(STILL[None])
            keys.append(env.keys.copy())
            frames.append(env.get_images()[0])
        found = rewards.fill(np.concatenate(keys))
    finally:
        env.close()
        parts.close()
    assert found.shape == (4,) and ((found > 0) & (found < 1)).all()
    assert all(frame.shape == (160, 256, 3) for frame in frames)


def test_height_and_width_swapped_are_an_error_at_start(tmp_path: Path) -> None:
    path = released.write(released.mineclip_state(layers=1), tmp_path / "attn.pth")
    given = [*GIVEN, f"encoder.path={path}", "env.height=256", "env.width=160"]
    with pytest.raises(UserError, match=r"env.height=256 env.width=160: the head .* pictures of 160 x 256"):
        build_parts(train_settings(plain(compose("train", given))), "cpu")


@pytest.mark.slow  # SB3's network for pictures of this size takes long to make
def test_a_run_with_a_made_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train env=minedojo reward=mineclip` from the command's settings to its result, with the stand-in."""
    from vlmrl.workflows.train import train

    monkeypatch.chdir(tmp_path)
    path = released.write(released.mineclip_state(layers=1), tmp_path / "attn.pth")
    given = [*GIVEN, "total_timesteps=16", "agent.n_steps=8", "agent.batch_size=8", "agent.n_epochs=1", "video=false"]
    given += ["env.max_episode_steps=6", "eval_episodes=1", f"run_dir={tmp_path}/runs/one/run", f"encoder.path={path}"]
    folder = train(train_settings(plain(compose("train", given))))
    result = json.loads(folder.result.read_text())
    assert result["steps"] == 16 and result["audit"]["verdict"] in ("SEES", "DEAF")
