"""What the embedded encoder learns from: scenes, degrees of truth, sentences, frames, states that agents visited."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import vlmrl.workflows.mini as mini
from vlmrl.encoders.mini import CARD_ENVS
from vlmrl.envs.humanoid import Humanoid
from vlmrl.errors import UserError
from vlmrl.workflows.mini.captions import (
    FILLER,
    all_texts,
    all_truths,
    draw_captions,
    joined_statements,
    statements,
    truth_of,
    with_filler,
)
from vlmrl.workflows.mini.frames import KINDS, Frames, Order, parts_of, render, render_all, training_orders
from vlmrl.workflows.mini.scenes import SCENES
from vlmrl.workflows.mini.scenes.humanoid_states import POSES, PoseSampler, mirrored_arm
from vlmrl.workflows.mini.scenes.pictures import MujocoStage
from vlmrl.workflows.mini.states import archive_path, load_states, save_states


@pytest.fixture(scope="module")
def frames() -> dict[str, Frames]:
    return {name: render(Order(name, 40, 5)) for name in SCENES}


@pytest.fixture(scope="module")
def posed() -> dict[str, dict[str, np.ndarray]]:
    """Mean degrees of the statements over 30 draws of each pose."""
    env = Humanoid()
    env.reset(seed=0)
    sampler = PoseSampler(env, np.random.default_rng(0))
    means = {}
    for name in POSES:
        rows = []
        for _ in range(30):
            sampler._place(*sampler._pose(name))
            rows.append(seen(env))
        truths = SCENES["humanoid"].truths({key: np.stack([row[key] for row in rows]) for key in rows[0]})
        means[name] = {key: float(degrees.mean()) for key, degrees in truths.items()}
    env.close()
    return means


def seen(env: Humanoid) -> dict[str, np.ndarray]:
    """What the humanoid's truths read of where it is now."""
    from vlmrl.envs.mujoco_scene import lowest_point

    lowest = np.float32(lowest_point(env.model, env.data))
    return {**env.simulator_state(), "lowest": lowest, "view": np.array([-1.0, 0, 0])}


def test_nothing_here_knows_the_predicates():
    for path in Path(mini.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in imports for alias in node.names}
        modules = {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
        assert not any(module.endswith("_tasks") for module in modules), path
        if path.stem != "exam":  # what judges
            assert not names & {"PREDICATES", "dense_reward"} and "vlmrl.envs.humanoid_poses" not in modules, path


def test_a_scene_for_each_environment_of_the_card():
    assert set(SCENES) == set(CARD_ENVS)


@pytest.mark.parametrize("name", SCENES)
def test_scene_is_whole(frames, name):
    scene, shown = SCENES[name], frames[name]
    assert shown.pixels.shape == (40, 112, 112, 3) and shown.pixels.dtype == np.uint8
    assert shown.pixels.std(axis=(1, 2, 3)).min() > 5  # none is blank
    truths = shown.truths()
    assert set(truths) == set(scene.phrases) | set(scene.identities)
    for statement, degrees in truths.items():
        assert degrees.dtype == np.float32 and (degrees >= 0).all() and (degrees <= 1).all(), statement
    assert all((truths[identity] == 1).all() for identity in scene.identities)
    for table in (scene.mirrored, scene.clauses, scene.weights, scene.postures, scene.modifiers):
        assert set(table) <= set(scene.phrases)
    assert all(scene.mirrored[scene.mirrored[one]] == one for one in scene.mirrored)
    source, state = next(scene.states(np.random.default_rng(0)))
    assert state.shape == (scene.size,) == next(scene.random_policy(np.random.default_rng(0))).shape and source
    geometry = scene.geometry(shown.state, False)
    assert len(geometry) == 40 and np.isfinite(geometry).all()
    if scene.mirrors:
        mirrored = scene.geometry(shown.state, True)
        assert mirrored.shape == geometry.shape and not np.allclose(mirrored, geometry)


def test_pictures_vary_in_training_and_not_for_tasks(frames):
    assert {"front", "moved"} <= set(frames["humanoid"].camera.tolist())
    assert set(frames["mountaincar"].camera.tolist()) == {"textured", "plain"}
    plain = render(Order("humanoid", 5, 5, vary=False))
    assert set(plain.camera.tolist()) == {"front"}
    stage = SCENES["humanoid"].stage(112)
    assert isinstance(stage, MujocoStage)
    state = plain.state["qpos"][0].astype(np.float64)
    once, again = stage.shoot(state), stage.shoot(state)
    stage.close()
    np.testing.assert_array_equal(once["pixels"], again["pixels"])


def test_one_arm_mirrors_the_other():
    import mujoco

    env = Humanoid()
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    low, high = env.model.jnt_range[1:].T
    columns = [i for i in range(17) if "right_shoulder" in env.model.joint(i + 1).name]
    right = slice(columns[0], columns[0] + 3)
    for _ in range(20):
        env.data.qpos[:] = 0
        env.data.qpos[3] = 1
        arm = rng.uniform(low[right], high[right])
        env.data.qpos[7 + right.start : 7 + right.stop + 3] = np.concatenate([arm, mirrored_arm(arm)])
        mujoco.mj_kinematics(env.model, env.data)
        hands = [env.data.geom(f"{side}_hand").xpos for side in ("right", "left")]
        np.testing.assert_allclose(hands[0] * [1, -1, 1], hands[1], atol=1e-6)
    env.close()


def test_arm_styles_are_what_they_are_called():
    env = Humanoid()
    env.reset(seed=0)
    sampler = PoseSampler(env, np.random.default_rng(0))
    degrees = {}
    for style in ("raised", "one raised", "down", "out", "forward"):
        rows = []
        for _ in range(40):
            angles = np.zeros(17)
            angles[sampler._arm_columns] = sampler._arms_like(style)
            sampler._place(angles, 0.0, 0.0)
            rows.append(seen(env))
        truths = SCENES["humanoid"].truths({key: np.stack([row[key] for row in rows]) for key in rows[0]})
        degrees[style] = {key: float(value.mean()) for key, value in truths.items()}
    env.close()
    for style, statement in (
        ("raised", "both arms raised"),
        ("one raised", "one arm raised"),
        ("down", "arms down"),
        ("out", "arms out"),
        ("forward", "arms forward"),
    ):
        own = degrees[style][statement]
        assert own > 0.5 and all(own > 2 * other[statement] for name, other in degrees.items() if name != style)


@pytest.mark.parametrize(
    ("pose", "statement"),
    [
        ("standing", "standing"),
        ("kneeling tall", "kneeling"),
        ("kneeling tall", "kneeling tall"),
        ("squatting", "squatting"),
        ("kneeling half down", "kneeling"),
        ("kneeling on heels", "kneeling"),
        ("right knee down", "one knee"),
        ("lying", "lying"),
        ("sitting, legs forward", "sitting"),
        ("splits", "splits"),
        ("all fours", "all fours"),
        ("bowing", "bowing"),
        ("on the left leg", "one leg"),
        ("lotus", "lotus"),
    ],
)
def test_statement_is_truest_of_its_own_pose(posed, pose, statement):
    own = posed[pose][statement]
    unlike = [
        degrees[statement]
        for name, degrees in posed.items()
        if name.split(",")[0].split()[0] not in pose and statement not in name
    ]
    assert own > 0.15 and own > 2.5 * np.mean(unlike)


def test_kneeling_standing_squatting_lying_exclude_each_other(posed):
    for pose, true in (
        ("standing", "standing"),
        ("kneeling tall", "kneeling"),
        ("squatting", "squatting"),
        ("lying", "lying"),
    ):
        for statement in ("standing", "kneeling", "squatting", "lying"):
            assert statement == true or posed[pose][statement] < 0.25 * posed[pose][true]


def test_degrees_are_graded_along_the_way_down():
    env = Humanoid()
    env.reset(seed=0)
    sampler = PoseSampler(env, np.random.default_rng(0))
    degrees = []
    for bend in np.deg2rad([0, -30, -60, -90, -112]):  # from standing to a kneel: knees bend and sink
        angles = np.zeros(17)
        for i, name in enumerate(sampler.names):
            if name.endswith("_knee"):
                angles[i] = bend
            if name.endswith("_hip_y"):
                angles[i] = bend * 0.2
        sampler._place(angles, 0.0, 0.0)
        row = seen(env)
        degrees.append(
            float(SCENES["humanoid"].truths({key: np.stack([value]) for key, value in row.items()})["kneeling"][0])
        )
    env.close()
    assert degrees[0] == 0 and degrees[-1] > 0.6
    assert all(after >= before for before, after in zip(degrees, degrees[1:], strict=False))
    assert len({round(degree, 3) for degree in degrees}) >= 4  # steps in between, not a switch


def test_upright_pole_has_a_slope_all_the_way_round():
    angles = np.linspace(0, np.pi, 50)
    upright = SCENES["cartpole"].truths({"x": np.zeros(50), "angle": angles})["upright"]
    assert upright[0] == 1 and (np.diff(upright) < 0).all() and upright[-1] < 0.01
    assert upright[0] - upright[3] > 0.2  # steep near the top: 11 degrees


def test_the_way_to_the_flag_goes_up():
    x = np.linspace(-0.5, 0.45, 40)
    at_flag = SCENES["mountaincar"].truths({"x": x})["at the flag"]
    assert at_flag[0] == 0 and (np.diff(at_flag) > 0).all() and at_flag[-1] > 0.95
    assert SCENES["mountaincar"].truths({"x": np.array([-1.1])})["at the flag"][0] == 0


@pytest.mark.parametrize("name", ["hopper", "walker2d", "halfcheetah", "ant"])
def test_runners_stand_lie_and_fly(name):
    scene = SCENES[name]
    env, stage = scene._make(), scene.stage(112)
    env.reset(seed=0)
    stands = scene._posed(env, np.random.default_rng(0), joints=0.0, tilt=0.0, lift=0.0)
    height = env._height_index
    flies = stands.copy()
    flies[height] += 0.7
    env.fall()
    states = {"standing": stands, "high in the air": flies, "fallen": env.data.qpos.copy()}
    rows = [stage.shoot(state) for state in states.values()]
    stage.close()
    env.close()
    truths = scene.truths({key: np.stack([row[key] for row in rows]) for key in rows[0]})
    for i, statement in enumerate(states):
        assert truths[statement][i] > 0.5 and truths[statement].argmax() == i, (statement, truths[statement])


def test_what_a_scene_does_not_say_is_unknown_or_false(frames):
    hopper = all_truths(SCENES["hopper"], frames["hopper"].truths(), 40)
    assert set(hopper) == set(statements())
    assert (hopper["humanoid"] == 0).all()  # another robot's identity
    assert np.isnan(hopper["both arms raised"]).all()  # of a robot, but nothing is said of it here
    assert (hopper["upright"] == 0).all()  # a pole's: a hopper is no pole


def test_captions_are_seeded_whole_sentences():
    first, again = (draw_captions(np.random.default_rng(3)) for _ in range(2))
    assert first == again and first != draw_captions(np.random.default_rng(4))
    for caption in first:
        assert caption.text == caption.text.strip() and "  " not in caption.text and "{" not in caption.text
    drawn = {
        caption.statements[-1]
        for seed in range(60)
        for caption in draw_captions(np.random.default_rng(seed))
        if len(caption.statements) == 2
    }
    assert drawn == {name for scene in SCENES.values() for name in scene.phrases}


def test_sentence_is_as_true_as_its_parts_together(frames):
    humanoid = all_truths(SCENES["humanoid"], frames["humanoid"].truths(), 40)
    hopper = all_truths(SCENES["hopper"], frames["hopper"].truths(), 40)
    captions = [caption for seed in range(5) for caption in draw_captions(np.random.default_rng(seed))]
    pairs = [caption for caption in captions if len(caption.statements) == 3]
    assert pairs and {caption.statements[1:] for caption in pairs} <= set(joined_statements())
    for column, caption in zip(truth_of(pairs, humanoid).T, pairs, strict=True):
        np.testing.assert_allclose(column, humanoid[caption.statements[1]] * humanoid[caption.statements[2]], atol=1e-6)
    for column, caption in zip(truth_of(pairs, hopper).T, pairs, strict=True):
        # A humanoid that raises its arms is not to be seen here; whether a robot does is not known.
        assert (column == 0).all() if caption.statements[0] == "humanoid" else not np.nansum(column)


def test_no_sentence_speaks_of_the_two_poses_that_are_left_out():
    words = {word for text in all_texts() for word in re.findall(r"[a-z]+", text)}
    assert {"kneeling", "raised", "splits"} <= words
    assert not words & {"hip", "hips", "akimbo", "cross", "crossed", "crossing", "folded", "chest"}


def test_a_word_that_is_not_taught_is_put_somewhere():
    rng = np.random.default_rng(0)
    places = {with_filler(rng, "a robot kneeling").split().index(FILLER) for _ in range(60)}
    assert places == {0, 1, 2, 3}


def test_taught_words_cover_every_caption(tmp_path):
    from safetensors.torch import load_file

    from vlmrl.encoders.open_clip_files import open_clip
    from vlmrl.workflows.mini.train import new_model, save_model

    weights = load_file(save_model(new_model("test_resnet", 0, 5), tmp_path))["token_embedding.weight"]
    taught = weights.abs().sum(dim=1) > 0
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    rng = np.random.default_rng(0)
    texts = [caption.text for _ in range(60) for caption in draw_captions(rng)]
    assert taught[tokenizer(texts).unique()[1:]].all()  # the first is 0, the padding
    assert not taught[tokenizer.encode(FILLER)].any()
    assert taught.float().mean() < 0.02


def test_frames_are_seeded_and_survive_saving(frames, tmp_path):
    again = render(Order("humanoid", 40, 5))
    np.testing.assert_array_equal(frames["humanoid"].pixels, again.pixels)
    assert not np.array_equal(again.pixels, render(Order("humanoid", 40, 6)).pixels)
    again.save(tmp_path / "frames.npz")
    loaded = Frames.load(tmp_path / "frames.npz")
    np.testing.assert_array_equal(loaded.pixels, again.pixels)
    np.testing.assert_array_equal(loaded.truths()["kneeling"], again.truths()["kneeling"])
    assert loaded.source.tolist() == again.source.tolist() and set(loaded.state) == set(again.state)


def test_parts_are_rendered_by_processes_and_kept(tmp_path):
    orders = {
        "mountaincar": [Order("mountaincar", 6, 1), Order("mountaincar", 5, 2)],
        "cartpole": [Order("cartpole", 4, 1)],
    }
    first = render_all(orders, tmp_path, workers=2, progress=False)
    assert {name: len(frames) for name, frames in first.items()} == {"mountaincar": 11, "cartpole": 4}
    np.testing.assert_array_equal(first["mountaincar"].pixels[6:], render(Order("mountaincar", 5, 2)).pixels)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = render_all(orders, tmp_path, workers=1, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} and len(times) == 3
    np.testing.assert_array_equal(again["cartpole"].pixels, first["cartpole"].pixels)


def test_training_frames_are_shared_out_and_no_held_out_frame_is_among_them():
    visited = [np.zeros((3, 24)), np.ones((3, 24))]
    orders = training_orders(4_400, 0, visited, 1_000)
    sizes = {name: sum(order.n for order in parts) for name, parts in orders.items()}
    assert sizes["humanoid"] > 0.55 * 4_400 + 1_000 and all(size >= 200 for size in sizes.values())
    assert [order.n for order in orders["humanoid"] if order.kind == "visited"] == [500, 500]
    seeds = [order.seed for parts in orders.values() for order in parts]
    assert len(set(seeds)) == len(seeds)
    held_out = training_orders(4_400, 1_000_001)
    assert not set(seeds) & {order.seed for parts in held_out.values() for order in parts}
    assert [order.n for order in parts_of("ant", 2_300, 0)] == [1_000, 1_000, 300]
    assert len({parts_of("ant", 1, 0, kind)[0].seed for kind in KINDS}) == 3
    # The embedded weights learned from the frames of these seeds.
    assert (orders["humanoid"][0].seed, orders["humanoid"][-1].seed) == (3226724236, 3472058233)


def test_states_of_agents(tmp_path):
    env = Humanoid()
    env.reset(seed=0)
    lying = env.data.qpos.copy()
    lying[2:7] = [0.15, 0.7071, 0, -0.7071, 0]
    env.close()
    path = tmp_path / "visited.npz"
    assert save_states(path, [np.tile(lying, (3, 1))] * 10) == 30
    assert len(load_states(path, "train")) == 24 and len(load_states(path, "held out")) == 6
    shown = render(Order("humanoid", 6, 0, "visited", False, load_states(path, "train")))
    assert set(shown.source.tolist()) == {"visited"} and (shown.truths()["lying on back"] > 0.8).all()


def test_archives_that_come_with_the_suite_are_small_and_divided():
    path = archive_path("visited")
    assert path.stat().st_size < 1e6
    train, held_out = load_states("visited", "train"), load_states("visited", "held out")
    assert len(train) > 3 * len(held_out) > 0 and np.isfinite(train).all()
    assert not {state.tobytes() for state in train} & {state.tobytes() for state in held_out}


def test_archives_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no archive of states.*visited"):
        load_states(tmp_path / "missing.npz", "train")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(UserError, match="is not an archive of states"):
        load_states(tmp_path / "other.npz", "train")
    np.savez(tmp_path / "short.npz", train=np.zeros((3, 7)), held_out=np.zeros((3, 7)))
    with pytest.raises(UserError, match="expected states"):
        load_states(tmp_path / "short.npz", "train")
    with pytest.raises(UserError, match="at least 2"):
        save_states(tmp_path / "one.npz", [np.zeros((3, 24))])
