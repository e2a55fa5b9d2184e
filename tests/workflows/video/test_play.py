"""Scenes of Crafter for training: what they are called is what the game counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmrl.envs.crafter_text import ACHIEVEMENTS
from vlmrl.errors import UserError
from vlmrl.workflows.video import phrases
from vlmrl.workflows.video.footage import Footage, _shown, from_play, plainly, say
from vlmrl.workflows.video.play import FACED, NAMES, STATE, Scene, scenes
from vlmrl.workflows.video.train import statements

SIZE = (36, 36)


@pytest.fixture(scope="module")
def played() -> list[Scene]:
    return list(scenes(66, SIZE, seed=3))


def test_scenes_reach_most_achievements_and_fail_at_some(played: list[Scene]) -> None:
    reached = {NAMES[i] for scene in played for i in np.flatnonzero(scene.achieved.any(axis=0))}
    assert len(reached) >= 17 and {"collect_diamond", "eat_plant", "make_iron_pickaxe", "make_iron_sword"} & reached
    nothing = sum(not scene.achieved.any() for scene in played)
    assert 5 <= nothing <= 40


def test_a_scene_is_of_one_length_throughout(played: list[Scene]) -> None:
    for scene in played:
        n = len(scene.frames)
        assert scene.frames.shape == (n, *SIZE, 3) and scene.frames.dtype == np.uint8
        assert scene.achieved.shape == (n, 22) and scene.behaviour.shape == (n,)
        assert scene.state.shape == (n, len(STATE)) and scene.shares.shape == (n, len(FACED) - 1)
        assert scene.state.min() >= 0 and scene.state.max() <= 1 and scene.shares.sum(axis=1).max() <= 1
        assert not scene.achieved[0].any()  # nothing was done before it


def test_what_is_achieved_is_seen_in_the_inventory(played: list[Scene]) -> None:
    wood = STATE.index("has wood")
    changes = [
        scene.state[t, wood] - scene.state[t - 1, wood]
        for scene in played
        for t in np.flatnonzero(scene.achieved[:, NAMES.index("collect_wood")])
        if scene.state[t - 1, wood] < 1  # nine is all that one can hold
    ]
    assert len(changes) >= 3 and np.allclose(changes, 1 / 9)


def test_the_same_seed_plays_the_same(played: list[Scene]) -> None:
    again = list(scenes(3, SIZE, seed=3))
    for first, second in zip(played, again, strict=False):
        np.testing.assert_array_equal(first.frames, second.frames)
        np.testing.assert_array_equal(first.state, second.state)
    other = next(scenes(1, SIZE, seed=4))
    assert other.frames.shape != again[0].frames.shape or (other.frames != again[0].frames).any()


def scene_of(behaviour: list[str], achieved: dict[int, str]) -> Scene:
    n = len(behaviour)
    counts = np.zeros((n, 22), dtype=bool)
    for t, name in achieved.items():
        counts[t, NAMES.index(name)] = True
    frames = np.zeros((n, 2, 2, 3), dtype=np.uint8)
    return Scene(frames, counts, np.array(behaviour), np.zeros((n, len(STATE))), np.zeros((n, len(FACED) - 1)))


@pytest.mark.parametrize(
    ("behaviour", "achieved", "places", "shown"),
    [
        (["still", "walk", "walk", "walk"], {2: "eat_cow"}, [0, 1, 2, 3], ["achievement:eat_cow"]),
        (["still", "walk", "walk", "walk"], {1: "eat_cow"}, [0, 0, 0, 1], ["achievement:eat_cow"]),
        # On arriving at a clip's first frame: there is nothing before it that would show it.
        (["still", "walk", "walk", "walk"], {1: "eat_cow"}, [1, 2, 3], ["behaviour:walk"]),
        (["still"] * 4, {}, [0, 1, 2, 3], ["behaviour:still"]),
        (["walk", "walk", "walk", "sleep"], {}, [0, 1, 2, 3], ["behaviour:sleep"]),
        (["walk", "hurt", "walk", "approach_tree"], {}, [0, 1, 2, 3], ["behaviour:hurt"]),
        (["walk", "walk", "walk", "approach_tree"], {}, [0, 1, 2, 3], ["behaviour:approach_tree"]),
    ],
)
def test_what_a_clip_shows(behaviour: list[str], achieved: dict[int, str], places: list[int], shown: list[str]) -> None:
    assert _shown(scene_of(behaviour, achieved), np.array(places)) == shown


def test_every_way_to_say_a_thing_is_taught() -> None:
    known = set(phrases.all_sentences())
    rng = np.random.default_rng(0)
    meanings = [f"achievement:{name}" for name in ACHIEVEMENTS] + [f"behaviour:{name}" for name in phrases.BEHAVIOURS]
    for meaning in meanings:
        said = {say(meaning, rng) for _ in range(60)}
        assert plainly(meaning) in said and len(said) > 1 and said <= known
    assert say("text:pull the lever", rng) == plainly("text:pull the lever") == "pull the lever"


def test_verbs_go_with_their_subject() -> None:
    rng = np.random.default_rng(0)
    said = {phrases.achievement("collect_wood", rng) for _ in range(300)}
    assert {"you chop down a tree", "the player chops down a tree", "chop down a tree"} <= said
    assert "a player quenches the thirst with water" in {phrases.achievement("collect_drink", rng) for _ in range(500)}


def test_statements_are_those_that_the_game_makes_true() -> None:
    state = np.zeros((4, len(STATE)), dtype=np.float32)
    state[:, STATE.index("daylight")] = (1, 1, 0.1, 1)
    state[:, STATE.index("has health")] = (1, 0.3, 1, 1)
    state[3, STATE.index("has wood")] = 1 / 9
    state[3, STATE.index("faces tree")] = 1
    true = statements(state, np.arange(4))
    assert {name: rows.tolist() for name, rows in true.items()} == {
        "night": [2], "weak": [1], "has wood": [3], "faces tree": [3],
    }  # fmt: skip
    assert set(true) <= set(phrases.state_sentences())


def test_footage_is_kept_and_found_again(tmp_path: Path) -> None:
    first = from_play(4, 5, SIZE, tmp_path, seed=0, progress=False)
    again = from_play(4, 5, SIZE, tmp_path, seed=1, progress=False)  # what is there is taken
    np.testing.assert_array_equal(first.clips, again.clips)
    np.testing.assert_array_equal(first.frames, again.frames)
    assert first.shown == again.shown and first.clips.shape == (len(first.frames), 5)
    assert (np.diff(first.clips, axis=1) >= 0).all()  # in the order of time
    assert all((first.group[clip] == first.group[clip[0]]).all() for clip in first.clips)  # of one scene
    assert first.state is not None and len(first.state) == len(first.frames)


def test_clips_of_one_scene_are_never_on_both_sides() -> None:
    group = np.repeat(np.arange(10), 3)
    footage = Footage(np.zeros((30, 2, 2, 3)), np.zeros((30, 2), dtype=int), (("text:a",),) * 30, group)
    learned, held_out = footage.split(0.2, seed=0)
    assert len(held_out) == 6 and not set(group[learned]) & set(group[held_out])
    with pytest.raises(UserError, match="too few"):
        footage.split(0.95, seed=0)
