"""NetHack and MiniHack. What needs NLE runs with `make test-nethack`; the rest everywhere."""

from __future__ import annotations

import importlib.util
import sys

import cv2
import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401
from vlmrl.commands import compose, plain
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.tasks import PREDICATES, Task, dense_reward, holds
from vlmrl.envs.terminal import CELL, COLOURS, terminal_picture
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import train_settings

needs_nle = pytest.mark.skipif(
    importlib.util.find_spec("nle") is None, reason="needs vlmrl[nethack]: make test-nethack"
)
LIMITS = {  # states just outside and just inside
    "nethack/reach_stairs": ({"stood_on_stairs": 0}, {"stood_on_stairs": 1}),
    "nethack/reach_level_3": ({"deepest": 2}, {"deepest": 3}),
    "nethack/reach_level_4": ({"deepest": 3}, {"deepest": 4}),
    "nethack/meet_oracle": ({"met_oracle": 0}, {"met_oracle": 1}),
    "minihack/reach_stairs": ({"stood_on_stairs": 0}, {"stood_on_stairs": 1}),
    "minihack/solve_level": ({"solved": 0}, {"solved": 1}),
}
ROOM = "MiniHack-Room-5x5-v0"  # the stairs are four steps to the south-east
SOUTH_EAST, NORTH = 5, 0


def test_every_task_is_tried() -> None:
    assert {entry for entry in PREDICATES if entry.split("/")[0] in ("nethack", "minihack")} == set(LIMITS)


@pytest.mark.parametrize("entry", LIMITS)
def test_predicates_at_their_limits(entry: str) -> None:
    outside, inside = ({k: np.float32(v) for k, v in state.items()} for state in LIMITS[entry])
    predicate = PREDICATES.load(entry)
    assert not holds(predicate(outside)) and dense_reward(predicate(outside)) < 1
    assert holds(predicate(inside)) and dense_reward(predicate(inside)) == 1


def test_the_truth_rises_with_each_level_of_the_dungeon() -> None:
    predicate = PREDICATES.load("nethack/reach_level_4")
    rewards = [dense_reward(predicate({"deepest": np.float32(depth)})) for depth in (1, 2, 3, 4, 7)]
    np.testing.assert_allclose(rewards, [0, 1 / 3, 2 / 3, 1, 1], atol=1e-6)


@pytest.mark.parametrize("entry", LIMITS)
def test_a_task_composes_with_its_environment(entry: str) -> None:
    env, task = entry.split("/")
    settings = train_settings(plain(compose("train", [f"env={env}", f"task={task}"])))
    assert settings.make_task().name == task and settings.agent.name == "ppo"


@pytest.mark.parametrize(("env_id", "package"), [("vlmrl/NetHack-v0", "nle"), ("vlmrl/MiniHack-v0", "minihack")])
def test_without_the_package_it_says_what_to_do(env_id: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"'{package}'.*vlmrl\[nethack\].*make setup-nethack"):
        gym.make(env_id)


def test_a_terminal_is_drawn_character_by_character() -> None:
    characters = np.full((24, 80), ord(" "), np.uint8)
    colours = np.zeros((24, 80), np.int8)
    characters[3, 5], colours[3, 5] = ord("@"), 9
    characters[7, 70], colours[7, 70] = ord("@"), 2 + 16  # bits beyond the colour are passed over
    picture = terminal_picture(characters, colours)
    assert picture.shape == (24 * CELL[0], 80 * CELL[1], 3) and picture.dtype == np.uint8
    cell = picture.reshape(24, CELL[0], 80, CELL[1], 3).swapaxes(1, 2)
    marked = {(int(row), int(column)) for row, column in np.argwhere(cell.any(axis=(2, 3, 4)))}
    assert marked == {(3, 5), (7, 70)}
    covered = cell[3, 5, ..., 0] / 255  # red, the ninth colour; the second is green
    assert covered.max() > 0.8 and not cell[3, 5, ..., 1:].any()
    for channel in range(3):
        np.testing.assert_allclose(cell[7, 70, ..., channel], covered * COLOURS[2][channel], atol=1)


def test_every_character_of_ascii_looks_like_no_other() -> None:
    codes = np.arange(33, 127, dtype=np.uint8)[None]
    picture = terminal_picture(codes, np.full(codes.shape, 15))
    cells = picture.reshape(CELL[0], -1, CELL[1], 3)[..., 0].swapaxes(0, 1).reshape(len(codes[0]), -1).astype(int)
    apart = np.abs(cells[:, None] - cells[None]).mean(axis=2)
    assert (apart[~np.eye(len(apart), dtype=bool)] > 1).all()


@needs_nle
def test_what_is_said_in_several_parts_is_heard_whole() -> None:
    """NLE's own message is the last part of it."""
    env = gym.make("vlmrl/NetHack-v0").unwrapped
    env.action_space.seed(0)
    joined = 0
    assert env.reset(seed=0)[1]["text"].startswith("Hello Agent, welcome to NetHack!")
    for _ in range(1500):
        observation, _, terminated, _, info = env.step(env.action_space.sample())
        last = observation["message"].tobytes().rstrip(b"\0").decode("latin-1").strip()
        assert "\0" not in info["text"] and info["text"] == info["text"].strip()
        if terminated:
            env.reset()
            continue
        assert info["text"].endswith(last)
        joined += bool(last) and len(info["text"]) > len(last)
    assert joined > 5
    env.close()


@needs_nle
def test_the_words_of_a_death_are_heard() -> None:
    env = gym.make("vlmrl/NetHack-v0").unwrapped
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(5000):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated:
            break
    assert terminated and not truncated and info["end_status"].name == "DEATH"
    assert "You die..." in info["text"]
    assert not observation["blstats"].any()  # NetHack has forgotten them
    state = env.simulator_state()
    assert state["depth"] >= 1 and state["turn"] > 0  # those of the life's last step


@needs_nle
def test_a_solved_level_ends_with_the_state_in_which_it_was_solved() -> None:
    env = gym.make("vlmrl/MiniHack-v0", level=ROOM, render_mode="rgb_array", camera="tiles").unwrapped
    env.reset(seed=0)
    terminated = False
    for _ in range(4):
        assert not terminated
        assert not holds(PREDICATES.load("minihack/solve_level")(env.simulator_state()))
        before = env.render()
        observation, reward, terminated, truncated, info = env.step(SOUTH_EAST)
    assert (terminated, truncated, reward) == (True, False, 1.0)
    assert info["end_status"].name == "TASK_SUCCESSFUL" and "Really quit" not in info["text"]
    for task in ("solve_level", "reach_stairs"):
        assert holds(PREDICATES.load(f"minihack/{task}")(env.simulator_state()))
    assert observation["blstats"].any() and (observation["glyphs"] != 2359).sum() > 20  # the map, and no empty one
    moved = np.abs(env.render().astype(int) - before).mean()
    assert 0 < moved < 20  # a step further, and still the same room


@needs_nle
def test_time_runs_out_as_a_truncation() -> None:
    env = gym.make("vlmrl/MiniHack-v0", level=ROOM, max_episode_steps=None).unwrapped
    env.reset(seed=0)
    ends = [env.step(NORTH)[2:4] for _ in range(100)]  # 20 steps for each cell of a side
    assert ends == [(False, False)] * 99 + [(False, True)]
    task = Task("none", "g", "b")
    for settings in (
        EnvSettings("vlmrl/MiniHack-v0", task, max_episode_steps=7, kwargs={"level": ROOM}),
        EnvSettings("vlmrl/NetHack-v0", task, max_episode_steps=7),
    ):
        env = make_env(settings)
        env.reset(seed=0)
        assert [env.step(NORTH)[2:4] for _ in range(7)] == [(False, False)] * 6 + [(False, True)]
        assert env.reset(seed=1)[0]["blstats"].any()  # cut in the middle of a game, the next one begins


@needs_nle
def test_nethack_is_longer_than_nles_own_limit_if_asked() -> None:
    env = make_env(EnvSettings("vlmrl/NetHack-v0", Task("none", "g", "b"), max_episode_steps=6000))
    env.reset(seed=0)
    steps, ended = 0, False
    while not ended:
        *_, terminated, truncated, _ = env.step(0)  # "more", which takes no time
        steps, ended = steps + 1, terminated or truncated
    assert (steps, truncated) == (6000, True)


@needs_nle
@pytest.mark.parametrize("level", ["NetHackScore-v0", "NetHackOracle-v0", "NetHackStaircaseLvl3-v0", "NetHack-v0"])
def test_levels(level: str) -> None:
    env = gym.make("vlmrl/NetHack-v0", level=level)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert env.action_space.n == (86 if level == "NetHack-v0" else 23)
    everything = gym.make("vlmrl/NetHack-v0", level=level, all_actions=True)
    assert everything.action_space.n == 121


@needs_nle
@pytest.mark.parametrize("depth", [3, 4])
def test_staircase_levels_end_where_they_say(depth: int) -> None:
    from nle import nethack

    from vlmrl.envs.nethack_levels import LEVELS, REWARD

    # A wizard can be anywhere: ^V, then the number of the level.
    keys = [nethack.Command.TRAVEL, 0x16, *(ord(digit) for digit in "234"), nethack.MiscAction.MORE]
    env = gym.make(
        "vlmrl/NetHack-v0",
        level=f"NetHackStaircaseLvl{depth}-v0",
        wizard=True,
        actions=keys,
        allow_all_modes=True,
        allow_all_yn_questions=True,
    ).unwrapped
    assert type(env._game) is LEVELS[f"NetHackStaircaseLvl{depth}-v0"]
    env.reset(seed=0)
    predicate = PREDICATES.load(f"nethack/reach_level_{depth}")
    for target in range(2, depth + 1):
        for action in (1, target, 5):
            assert not holds(predicate(env.simulator_state()))
            observation, reward, terminated, _, _ = env.step(action)
            if terminated:
                break
        assert env.simulator_state()["deepest"] == target
    assert terminated and reward == REWARD and holds(predicate(env.simulator_state()))
    assert observation["blstats"][nethack.NLE_BL_DEPTH] == depth


@needs_nle
def test_the_oracle_is_met_next_to_her() -> None:
    from vlmrl.envs.nethack import _oracle

    env = gym.make("vlmrl/NetHack-v0").unwrapped
    env.reset(seed=0)
    places = env._places
    observation = [np.array(part) for part in env._game.last_observation]
    stats, glyphs = observation[places["blstats"]], observation[places["glyphs"]]
    x, y = stats[:2]
    met = []
    for depth, distance in ((5, 2), (4, 1), (5, 1)):
        glyphs[:] = 2359
        glyphs[y, x + distance] = _oracle()
        stats[12] = depth
        env._keep(observation)
        met.append(bool(env.simulator_state()["met_oracle"]))
    assert met == [False, False, True]


@needs_nle
def test_rows_have_the_text_and_pictures_where_a_reward_needs_them() -> None:
    settings = EnvSettings(
        "vlmrl/NetHack-v0", Task("none", "g", "b", cameras=("front",)), width=640, height=384, kwargs={}
    )
    env = make_env(settings, {"text", "frames"})
    row = env.reset(seed=0)[1][ROW]
    assert row.text.startswith("Hello Agent")
    picture = row.frames["front"]
    assert picture.shape == (384, 640, 3)
    said, empty = picture[:16], picture[16:32]  # the first line says it, the second is empty
    assert said[:, : 8 * len("Hello Agent")].max() > 200 and empty.max() == 0
    env.close()
    env = make_env(settings, {"reward"})
    env.reset(seed=0)
    row = env.step(0)[4][ROW]
    assert row.text is None and row.frames is None


@needs_nle
def test_a_closed_one_begins_anew_and_minihacks_maps_follow_the_seed() -> None:
    env = gym.make("vlmrl/MiniHack-v0", level="MiniHack-MultiRoom-N4-v0", render_mode="rgb_array").unwrapped
    first = env.reset(seed=4)[0]["glyphs"]
    other = env.reset(seed=5)[0]["glyphs"]
    env.close()
    env.close()  # twice is no harm
    np.testing.assert_array_equal(env.reset(seed=4)[0]["glyphs"], first)
    assert not np.array_equal(first, other)


@needs_nle
def test_unknown_levels_cameras_and_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="Unknown level 'NetHackScores-v0'. Did you mean 'NetHackScore-v0'"):
        gym.make("vlmrl/NetHack-v0", level="NetHackScores-v0")
    with pytest.raises(UserError, match="Unknown level 'NetHackScore-v0'"):
        gym.make("vlmrl/MiniHack-v0", level="NetHackScore-v0")
    with pytest.raises(UserError, match="does not take.*speed"):
        gym.make("vlmrl/NetHack-v0", speed=3)


@needs_nle
def test_the_picture_has_the_size_that_is_asked_for() -> None:
    for camera in ("front", "tiles"):
        env = gym.make("vlmrl/NetHack-v0", render_mode="rgb_array", width=100, height=60, camera=camera).unwrapped
        env.reset(seed=0)
        picture = env.render()
        assert picture.shape == (60, 100, 3) and picture.std() > 5
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        assert (grey > 0).mean() > 0.01
        env.close()
