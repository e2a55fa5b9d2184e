"""MiniGrid and BabyAI: what they say, what they show, when their tasks are done."""

from __future__ import annotations

import re
import sys

import gymnasium as gym
import numpy as np
import pytest

from vlmrl.commands import compose, plain
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.minigrid import MISSION_WORDS, WORDS, BabyAI, MiniGrid, mission_numbers
from vlmrl.envs.row_writer import ROW
from vlmrl.envs.tasks import PREDICATES, Task, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import train_settings

pytest.importorskip("minigrid")

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)
LEVELS = [
    "MiniGrid-DoorKey-6x6-v0",
    "MiniGrid-KeyCorridorS3R2-v0",
    "MiniGrid-LavaGapS5-v0",
    "MiniGrid-Dynamic-Obstacles-5x5-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "BabyAI-GoToLocal-v0",
    "BabyAI-KeyInBox-v0",
    "BabyAI-BossLevel-v0",
]


def world(*things: tuple[int, int, str, str], **kwargs) -> MiniGrid:
    """An empty room of 6 x 6 cells with these things, the agent at (1, 1) looking to the right."""
    from minigrid.core import world_object

    env = MiniGrid(level="MiniGrid-Empty-8x8-v0", **kwargs)
    env.reset(seed=0)
    for x, y, kind, colour in things:
        name, _, state = kind.partition(" ")
        made = {"goal": world_object.Goal, "lava": world_object.Lava}.get(name)
        thing = made() if made else getattr(world_object, name.capitalize())(colour)
        if name == "door":
            thing.is_open, thing.is_locked = state == "open", state == "locked"
        env._level.grid.set(x, y, thing)
    env._captions.start(env._level, env._level.gen_obs()["image"])
    return env


def told(env: MiniGrid, *actions: int) -> list[str]:
    return [env.step(action)[4]["text"] for action in actions]


def test_a_key_a_door_and_a_goal() -> None:
    env = world((2, 1, "key", "red"), (3, 1, "door locked", "red"), (4, 1, "goal", "green"))
    assert told(env, FORWARD, PICK_UP, FORWARD) == [
        "a red key is in your way",
        "you pick up the red key",
        "you stand before the red door",
    ]
    assert told(env, TOGGLE) == ["you unlock the red door with the red key"]
    assert told(env, TOGGLE, TOGGLE) == ["you close the red door", "you open the red door"]
    assert told(env, FORWARD) == ["you walk through the red door"]
    _, reward, terminated, _, info = env.step(FORWARD)
    assert info["text"] == "you reach the green goal" and terminated and reward > 0
    assert holds(PREDICATES.load("minigrid/mission")(env.simulator_state()))
    assert holds(PREDICATES.load("minigrid/reach_goal")(env.simulator_state()))


def test_a_locked_door_a_wall_and_turning_round() -> None:
    env = world((2, 1, "door locked", "blue"))
    assert told(env, TOGGLE, FORWARD) == ["the blue door is locked", "a blue door is in your way"]
    assert told(env, LEFT, FORWARD) == ["", "a wall is in your way"]
    assert told(env, RIGHT) == ["you stand before the blue door"]


def test_things_put_down_next_to_others() -> None:
    env = world((2, 1, "ball", "blue"), (3, 2, "box", "grey"))
    assert told(env, PICK_UP) == ["you pick up the blue ball"]
    assert told(env, FORWARD, DROP) == ["", "you put down the blue ball next to the grey box"]
    assert told(env, LEFT, RIGHT) == ["", "you stand before the blue ball"]


def test_boxes_say_what_they_hold() -> None:
    from minigrid.core.world_object import Key

    env = world((2, 1, "box", "purple"))
    env._level.grid.get(2, 1).contains = Key("yellow")
    assert told(env, TOGGLE) == [
        "you open the purple box: it holds a yellow key; you stand before the yellow key; you see a yellow key"
    ]
    env = world((2, 1, "box", "purple"))
    assert told(env, TOGGLE) == ["you open the purple box: it is empty"]


def test_lava_is_fallen_into_and_fails_the_mission() -> None:
    env = world((2, 1, "lava", "red"))
    _, _, terminated, _, info = env.step(FORWARD)
    assert terminated and info["text"] == "you fall into the lava"
    assert not holds(PREDICATES.load("minigrid/mission")(env.simulator_state()))


def test_a_thing_is_news_once_an_episode() -> None:
    env = MiniGrid(level="MiniGrid-Empty-5x5-v0")
    start = env.reset(seed=0)[1]["text"]
    env.step(LEFT)
    back = env.step(RIGHT)[4]["text"]
    assert (start, back) == ("you see a green goal", "")
    assert env.reset(seed=1)[1]["text"] == "you see a green goal"


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_speaks_in_words_that_say_nothing_of_rewards(level: str) -> None:
    env = MiniGrid(level=level)
    env.action_space.seed(0)
    texts, missions = set(), set()
    env.reset(seed=0)
    for step in range(300):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        texts.add(info["text"])
        missions.add(info["mission"])
        if terminated or truncated:
            env.reset(seed=step)
    assert len(texts) > 3
    assert all(re.fullmatch(r"[a-z:; ]*", text) for text in texts)
    assert not any(word in text for text in texts for word in ("success", "reward", "mission", "None"))
    # No word of the missions is unknown, and none is lost.
    for mission in missions:
        numbers = mission_numbers(mission)
        spelled = [WORDS[number - 2] for number in numbers[numbers > 0]]
        assert spelled == re.findall("[a-z]+", mission)


def test_long_missions_are_cut_and_strange_words_are_one_number() -> None:
    known = [WORDS.index(word) + 2 for word in ("go", "to", "the")]
    assert mission_numbers("go to the zeppelin").tolist()[:5] == [*known, 1, 0]
    assert (mission_numbers("go " * 200) > 0).sum() == MISSION_WORDS


def test_babyai_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    env = BabyAI(level="BabyAI-BossLevel-v0")
    for seed in range(6):
        env.reset(seed=seed)
    assert capsys.readouterr().out == ""


def test_the_mission_may_stand_before_each_text() -> None:
    env = BabyAI()
    assert re.match(r"mission: go to .*; you see ", env.reset(seed=0)[1]["text"])
    quiet = [env.step(action)[4]["text"] for action in (6, 6)]  # nothing happens, so nothing is said
    assert quiet == ["", ""]
    plain_env = BabyAI(mission_in_text=False)
    assert not plain_env.reset(seed=0)[1]["text"].startswith("mission")


def test_rows_have_the_text_where_a_reward_needs_it_and_only_there() -> None:
    task = Task("none", "g", "b")
    settings = EnvSettings("vlmrl/MiniGrid-v0", task, kwargs={"level": "MiniGrid-DoorKey-5x5-v0"})
    env = make_env(settings, {"text"})
    _, info = env.reset(seed=0)
    assert info[ROW].text == "you see a yellow key" and info[ROW].frames is None
    row = env.step(FORWARD)[4][ROW]
    assert isinstance(row.text, str)
    env = make_env(settings, {"reward"})
    env.reset(seed=0)
    assert env.step(FORWARD)[4][ROW].text is None


def test_episodes_are_cut_by_the_level_and_sooner_if_asked() -> None:
    task = Task("none", "g", "b")
    for limit, expected in ((None, 20), (7, 7)):
        settings = EnvSettings("vlmrl/MiniGrid-v0", task, max_episode_steps=limit, kwargs={"max_steps": 20})
        env = make_env(settings)
        env.reset(seed=0)
        ends = [env.step(LEFT)[2:4] for _ in range(expected)]
        assert ends == [(False, False)] * (expected - 1) + [(False, True)]


def test_states_for_audits_are_of_both_labels() -> None:
    env = gym.make("vlmrl/MiniGrid-v0").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for task in ("mission", "reach_goal", "open_door"):
        predicate = PREDICATES.load(f"minigrid/{task}")
        done = []
        for _ in range(60):
            env.draw_state(rng)
            conditions = predicate(env.simulator_state())
            done.append(holds(conditions))
            assert (dense_reward(conditions) == 1) == done[-1]
        assert 10 <= sum(done) <= 50


def test_a_task_that_a_level_cannot_have_is_refused() -> None:
    for level, task in (("BabyAI-GoToLocal-v0", "reach_goal"), ("MiniGrid-Empty-5x5-v0", "open_door")):
        env = MiniGrid(level=level)
        env.reset(seed=0)
        with pytest.raises(UserError, match="This level has no .*task=mission"):
            PREDICATES.load(f"minigrid/{task}")(env.simulator_state())


def test_unknown_levels_and_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="Unknown level 'MiniGrid-Doorkey-5x5-v0'. Did you mean 'MiniGrid-DoorKey"):
        MiniGrid(level="MiniGrid-Doorkey-5x5-v0")
    with pytest.raises(UserError, match="does not take"):
        MiniGrid(speed=3)
    with pytest.raises(UserError, match="cannot be made"):  # its wheel lacks their patterns
        MiniGrid(level="MiniGrid-WFC-MazeSimple-v0").reset(seed=0)


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(UserError, match=r"'minigrid'.*vlmrl\[minigrid\]"):
        MiniGrid()


@pytest.mark.parametrize(("env", "task"), [("minigrid", "open_door"), ("babyai", "mission")])
def test_a_level_is_chosen_on_the_command_line(env: str, task: str) -> None:
    level = "BabyAI-OpenDoor-v0"
    settings = train_settings(plain(compose("train", [f"env={env}", f"task={task}", f"env.kwargs.level={level}"])))
    assert settings.env.kwargs["level"] == level and settings.agent.name == "ppo"
    assert settings.make_task().predicate is not None
