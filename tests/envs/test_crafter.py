"""Crafter: the package's own worlds, pictures and rules, at a fraction of the time; its achievements as tasks."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crafter
import gymnasium as gym
import numpy as np
import opensimplex
import pytest
import yaml

import vlmrl
from vlmrl.commands import compose, plain
from vlmrl.envs.crafter_game import Game, OrderedSet
from vlmrl.envs.crafter_noise import noise3
from vlmrl.envs.crafter_text import ACHIEVEMENTS, ITEMS, MATERIALS, events, surroundings
from vlmrl.envs.make import make_vec_env
from vlmrl.envs.tasks import PREDICATES, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.workflows.build import build_parts
from vlmrl.workflows.config.train import train_settings

ID = "vlmrl/Crafter-v0"
CONFIGS = Path(vlmrl.__file__).parent / "configs"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The package with chunks in order, so that which creature disappears does not hang on addresses in memory."""
    reset = crafter.engine.World.reset

    def ordered(self: Any, seed: int | None = None) -> None:
        reset(self, seed)
        if type(self) is crafter.engine.World:
            self._chunks = defaultdict(OrderedSet)

    monkeypatch.setattr(crafter.engine.World, "reset", ordered)
    yield crafter.Env


@pytest.mark.parametrize("z", [0, 3, 7.5])
def test_noise_is_the_packages_at_any_point_and_on_the_diagonals(z: float) -> None:
    noise = opensimplex.OpenSimplex(seed=5)
    columns, rows = (grid.ravel() for grid in np.meshgrid(np.arange(20.0), np.arange(20.0)))
    points = np.concatenate(
        [
            np.stack([columns / 3, rows / 3, np.full(400, z)], axis=1),
            np.random.default_rng(0).uniform(-20, 20, (400, 3)),
        ]
    )
    np.testing.assert_allclose(noise3(noise, points), [noise.noise3(*point) for point in points.tolist()], atol=1e-12)


def test_an_episode_is_the_packages_step_by_step_into_the_night(package: type) -> None:
    """World, rewards, deaths, inventory, pictures: random play, then sleep, meets creatures, tools and the dark."""
    theirs, ours = package(seed=7), Game()
    first = theirs.reset()
    ours.start(7)
    np.testing.assert_array_equal(ours.world._mat_map, theirs._world._mat_map)
    np.testing.assert_array_equal(ours.world._obj_map, theirs._world._obj_map)
    kinds = [[type(thing).__name__ for thing in world.objects] for world in (ours.world, theirs._world)]
    assert kinds[0] == kinds[1] and len(set(kinds[0])) >= 3
    np.testing.assert_array_equal(ours.render((64, 64)), first)
    rng = np.random.default_rng(0)
    dark = False
    for t in range(420):
        action = int(rng.integers(17)) if t < 150 else 6
        health = max(ours.player.health, 3)  # so that the player lives to see the night
        for game in (theirs, ours):
            game._player.health = game._last_health = game._player._last_health = health
        picture, reward, over, info = theirs.step(action)
        assert ours.advance(action) == (pytest.approx(reward), over)
        assert (ours.player.inventory, ours.player.achievements) == (info["inventory"], info["achievements"])
        if t % 7 == 0:
            np.testing.assert_array_equal(ours.render((64, 64)), picture)
        if t == 40:  # by day pictures of other sizes are the package's as well
            np.testing.assert_array_equal(ours.render((180, 144)), theirs.render((180, 144)))
        dark = dark or ours.world.daylight < 0.3
    np.testing.assert_array_equal(ours.world._mat_map, theirs._world._mat_map)
    assert [tuple(thing.pos) for thing in ours.world.objects] == [tuple(thing.pos) for thing in theirs._world.objects]
    assert dark and ours.player.achievements["wake_up"] + ours.player.sleeping


def make(**kwargs: Any) -> gym.Env:
    return gym.make(ID, disable_env_checker=True, **kwargs)


def test_looking_changes_nothing() -> None:
    """Pictures of any size, or none, leave the episode what it is, also at night when they have noise."""
    ends = []
    for size in (None, (64, 64), (126, 90)):
        env = make() if size is None else make(render_mode="rgb_array", width=size[0], height=size[1])
        env.reset(seed=4)
        core = env.unwrapped
        core.game.set_clock(200)  # the night begins
        policy = np.random.default_rng(1)
        for _ in range(60):
            observation, *_ = env.step(int(policy.integers(6)))
            if size is not None:
                env.render()
        ends.append(observation)
        assert core.game.world.daylight < 0.5
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


def test_the_world_of_an_episode_is_named_and_new_each_time() -> None:
    env = make(render_mode="rgb_array", width=64, height=64)
    _, info = env.reset(seed=11)
    again = Game()
    again.start(info["world_seed"])
    np.testing.assert_array_equal(env.render(), again.render((64, 64)))
    assert env.reset()[1]["world_seed"] != info["world_seed"]


def test_the_symbolic_observation_says_what_lies_where() -> None:
    env = make()
    observation, _ = env.reset(seed=0)
    core = env.unwrapped
    kinds = 1 + len(MATERIALS) + 6
    tiles = observation[: 63 * kinds].reshape(9, 7, kinds)
    assert tiles[..., : 1 + len(MATERIALS)].sum() == 63
    x, y = core.game.player.pos
    for dx, dy in ((0, 0), (-4, -3), (4, 3), (1, -2)):
        material, thing = core.game.world[x + dx, y + dy]
        assert tiles[4 + dx, 3 + dy, 1 + MATERIALS.index(material)] == 1
        assert tiles[4 + dx, 3 + dy, 1 + len(MATERIALS) :].sum() == (
            thing is not None and thing is not core.game.player
        )
    np.testing.assert_allclose(observation[63 * kinds :][:4], 1)  # in full health
    core.game.player.pos = np.array([0, 0])
    edge = core._observe()[: 63 * kinds].reshape(9, 7, kinds)
    assert edge[:4, :, 0].all() and edge[:, :3, 0].all() and not edge[4:, 3:, 0].any()


def test_it_ends_where_the_player_dies_and_not_before() -> None:
    env = make()
    env.reset(seed=0)
    core = env.unwrapped
    *_, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["discount"]) == (False, False, 1.0)
    core.game.player.health = 1
    x, y = core.game.player.pos
    core.game.world._mat_map[x - 1, y] = core.game.world._mat_ids["lava"]
    *_, terminated, truncated, info = env.step(1)
    assert (terminated, truncated, info["discount"], info["text"]) == (True, False, 0.0, "you die")


def test_achievements_are_the_packages_and_are_paid_once() -> None:
    env = make()
    env.reset(seed=0)
    core = env.unwrapped
    player, world = core.game.player, core.game.world
    assert list(player.achievements) == list(ACHIEVEMENTS) and tuple(player.inventory) == ITEMS
    assert tuple(crafter.constants.materials) == MATERIALS and len(crafter.constants.actions) == env.action_space.n
    target = (player.pos[0], player.pos[1] + 1)
    predicate = PREDICATES.load("crafter/collect_wood")
    rewards = []
    for _ in range(2):
        world[target] = "tree"
        assert world[target][1] is None
        _, reward, *_, info = env.step(5)
        rewards.append(reward)
        conditions = predicate(core.simulator_state())
        assert holds(conditions) and dense_reward(conditions) == 1
        assert info["text"] == "you collect wood from a tree" and info["achievements"]["collect_wood"] == len(rewards)
    assert rewards == [1.0, 0.0]
    assert not holds(PREDICATES.load("crafter/place_table")(core.simulator_state()))
    env.reset()
    assert not holds(predicate(core.simulator_state()))


@pytest.mark.parametrize("name", ACHIEVEMENTS)
def test_each_achievement_is_a_task_in_its_own_words(name: str) -> None:
    task = yaml.safe_load((CONFIGS / "task" / f"{name}.yaml").read_text())
    assert task["goal"] == ACHIEVEMENTS[name] and task["name"] == name and task["rule"] == "end"
    state = {"achievements": np.array([float(other == name) for other in ACHIEVEMENTS], dtype=np.float32)}
    assert [other for other in ACHIEVEMENTS if holds(PREDICATES.load(f"crafter/{other}")(state))] == [name]


def test_no_other_predicate_can_be_asked_for() -> None:
    from vlmrl.envs import crafter_tasks

    with pytest.raises(AttributeError, match="collect_gold"):
        _ = crafter_tasks.collect_gold


def test_texts_of_what_happens_and_of_what_there_is() -> None:
    before = {"achievements": dict.fromkeys(ACHIEVEMENTS, 0), "inventory": dict.fromkeys(ITEMS, 4), "sleeping": False}
    hungry = {**before["inventory"], "food": 3}
    assert events(before, before) == ""
    assert events(before, {**before, "inventory": hungry}) == "you are hungry"
    assert events({**before, "inventory": hungry}, {**before, "inventory": hungry}) == ""
    worse = {**before["inventory"], "health": 2}
    assert events(before, {**before, "inventory": worse, "sleeping": True}) == "you fall asleep, you are hurt"
    done = {**before["achievements"], "eat_cow": 1, "wake_up": 2}
    assert events(before, {**before, "achievements": done}) == "you eat a cow, you wake up"
    view = np.full((9, 7), 2.0)
    view[4, 4], view[0, 0], view[8] = 6, 13, -1
    owned = np.array([9, 9, 9, 9, 0, 3, *[0] * 4, 1, *[0] * 5], dtype=float)
    state = {"view": view, "facing": np.array([0, 1]), "inventory": owned, "sleeping": 0.0, "daylight": 0.3}
    assert surroundings(state) == (
        "you see grass, tree, cow. you face tree. you have 3 wood, 1 wood pickaxe. it is dark"
    )


def test_a_row_has_the_text_that_was_asked_for() -> None:
    env = make(text="state")
    _, info = env.reset(seed=0)
    assert info["text"].startswith("you see ") and "you face " in info["text"]
    assert make().reset(seed=0)[1]["text"] == ""


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"observation": "pixels"}, "observation of Crafter"),
        ({"text": "story"}, "text of Crafter"),
        ({"width": 9}, "at least 18 x 18"),
    ],
)
def test_what_cannot_be_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**kwargs)


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(UserError, match=r"'crafter'.*vlmrl\[crafter\]"):
        make()


def test_pictures_as_observations() -> None:
    env = make(observation="picture")
    observation, _ = env.reset(seed=2)
    assert env.observation_space.contains(observation) and observation.shape == (64, 64, 3)


def test_a_worker_plays_what_one_process_plays_and_is_rewarded_for_it_alike() -> None:
    """Environment 0 alone in this process, and as one of two in processes of their own, by the video reward."""
    settings = train_settings(plain(compose("train", ["env=crafter", "reward=clip4mc", "reward.kind=probability"])))
    parts = build_parts(settings, "cpu")
    found = []
    for n in (1, 2):
        rewards = parts.rewards(n_envs=n)
        env = make_vec_env(parts.env, rewards, n, seed=3)
        try:
            env.reset()
            keys = []
            for t in range(20):
                env.step(np.full(n, (1, 3, 5)[t % 3]))
                keys.append(env.keys[:1].copy())
            found.append(rewards.fill(np.concatenate(keys)))
        finally:
            env.close()
    parts.close()
    assert np.ptp(found[0]) > 0
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
