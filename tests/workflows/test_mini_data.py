"""What the embedded encoder learns from: degrees of truth, sentences, frames."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import vlmrl.workflows.mini as mini
from vlmrl.envs.humanoid import Humanoid
from vlmrl.errors import UserError
from vlmrl.workflows.mini.captions import CARTPOLE, HUMANOID, MIRRORED, MODIFIERS, POSTURES, draw_captions, truth_of
from vlmrl.workflows.mini.frames import Frames, render_frames
from vlmrl.workflows.mini.poses import POSES, PoseSampler, lowest_point
from vlmrl.workflows.mini.states import load_states, save_states
from vlmrl.workflows.mini.truths import cartpole_truths, humanoid_truths


@pytest.fixture(scope="module")
def frames() -> Frames:
    return render_frames(120, 5, progress=False)


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
            rows.append(
                {**env.simulator_state(), "lowest": lowest_point(env.model, env.data), "view": np.array([-1.0, 0, 0])}
            )
        truths = humanoid_truths({key: np.stack([row[key] for row in rows]) for key in rows[0]})
        means[name] = {key: float(degrees.mean()) for key, degrees in truths.items()}
    env.close()
    return means


def test_nothing_here_knows_the_predicates():
    for path in Path(mini.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any(module.endswith("_tasks") for module in modules), path
        if path.stem not in ("measure", "rounds"):  # what judges
            assert "PREDICATES" not in names and "dense_reward" not in names, path


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
    bends = np.deg2rad([0, -30, -60, -90, -112])
    degrees = []
    for bend in bends:  # from standing to a kneel: knees bend and sink
        angles = np.zeros(17)
        for i, name in enumerate(sampler.names):
            if name.endswith("_knee"):
                angles[i] = bend
            if name.endswith("_hip_y"):
                angles[i] = bend * 0.2
        sampler._place(angles, 0.0, 0.0)
        row = {**env.simulator_state(), "lowest": np.float32(0), "view": np.array([-1.0, 0, 0])}
        degrees.append(float(humanoid_truths({key: np.stack([value]) for key, value in row.items()})["kneeling"][0]))
    env.close()
    assert degrees[0] == 0 and degrees[-1] > 0.8
    assert all(after >= before for before, after in zip(degrees, degrees[1:], strict=False))
    assert len({round(degree, 3) for degree in degrees}) >= 4  # steps in between, not a switch


def test_upright_pole_has_a_slope_all_the_way_round():
    angles = np.linspace(0, np.pi, 50)
    upright = cartpole_truths({"x": np.zeros(50), "angle": angles})["upright"]
    assert upright[0] == 1 and (np.diff(upright) < 0).all() and upright[-1] < 0.01
    assert upright[0] - upright[3] > 0.2  # steep near the top: 11 degrees


def test_every_statement_has_a_degree_and_every_degree_a_sentence(frames):
    assert set(frames.truths) == set(HUMANOID) | set(CARTPOLE)
    assert set(POSTURES) | set(MODIFIERS) <= set(HUMANOID) and set(MIRRORED) <= set(CARTPOLE)
    for name, degrees in frames.truths.items():
        assert degrees.dtype == np.float32 and (degrees >= 0).all() and (degrees <= 1).all(), name


def test_captions_are_seeded_whole_sentences():
    first, again = (draw_captions(np.random.default_rng(3)) for _ in range(2))
    assert first == again and first != draw_captions(np.random.default_rng(4))
    for caption in first:
        assert caption.text == caption.text.strip() and "  " not in caption.text and "{" not in caption.text
    assert {caption.statements[0] for caption in first if len(caption.statements) == 1} == set(HUMANOID) | set(CARTPOLE)


def test_conjunction_is_as_true_as_its_parts_together(frames):
    captions = [caption for caption in draw_captions(np.random.default_rng(0)) if len(caption.statements) == 2]
    table = truth_of(captions, frames.truths)
    for column, caption in zip(table.T, captions, strict=True):
        parts = [frames.truths[name] for name in caption.statements]
        np.testing.assert_allclose(column, parts[0] * parts[1], atol=1e-6)


def test_taught_words_cover_every_caption():
    import json

    from vlmrl.workflows.mini.train import new_model, save_model

    pytest.importorskip("safetensors")
    import tempfile

    from safetensors.torch import load_file

    from vlmrl.encoders.open_clip_files import open_clip

    with tempfile.TemporaryDirectory() as folder:
        weights = load_file(save_model(new_model("test_resnet", 0), Path(folder)))["token_embedding.weight"]
        assert json.loads((Path(folder) / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"] == 128
    taught = weights.abs().sum(dim=1) > 0
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    rng = np.random.default_rng(0)
    texts = [caption.text for _ in range(60) for caption in draw_captions(rng)]
    assert taught[tokenizer(texts).unique()[1:]].all()  # the first is 0, the padding
    assert taught.float().mean() < 0.02


def test_frames_are_seeded_and_survive_saving(frames, tmp_path):
    again = render_frames(120, 5, progress=False)
    np.testing.assert_array_equal(frames.pixels, again.pixels)
    assert not np.array_equal(frames.pixels, render_frames(120, 6, progress=False).pixels)
    frames.save(tmp_path / "frames.npz")
    loaded = Frames.load(tmp_path / "frames.npz")
    np.testing.assert_array_equal(loaded.pixels, frames.pixels)
    np.testing.assert_array_equal(loaded.truths["kneeling"], frames.truths["kneeling"])
    assert loaded.source.tolist() == frames.source.tolist() and set(loaded.state) == set(frames.state)


def test_both_environments_and_several_sources_are_shown(frames):
    assert frames.pixels.shape == (120, 112, 112, 3) and frames.pixels.dtype == np.uint8
    assert (frames.source == "cartpole").sum() == 18
    assert {"pose", "controlled", "torques"} <= set(frames.source.tolist())
    assert frames.pixels.std(axis=(1, 2, 3)).min() > 5  # none is blank
    human = frames.source != "cartpole"
    assert (frames.truths["robot"] == human).all() and (frames.truths["pole and cart"] == ~human).all()


def test_frames_of_a_random_policy_are_seen_as_the_task_sees_them():
    frames = render_frames(12, 0, cartpole=0, policy_only=True, vary=False, progress=False)
    assert set(frames.camera.tolist()) == {"front"} and set(frames.source.tolist()) == {"policy"}


def test_two_sets_join(frames):
    cart = render_frames(4, 1, cartpole=1, progress=False)
    both = frames + cart
    assert len(both) == 124 and (both.source[-4:] == "cartpole").all()
    np.testing.assert_array_equal(both.state["angle"][-4:], cart.state["angle"])
    assert (both.state["torso"][-4:] == 0).all()


def test_states_of_agents(tmp_path):
    env = Humanoid()
    env.reset(seed=0)
    lying = env.data.qpos.copy()
    lying[2:7] = [0.15, 0.7071, 0, -0.7071, 0]
    env.close()
    path = tmp_path / "visited.npz"
    assert save_states(path, [np.tile(lying, (3, 1))] * 10) == 30
    assert len(load_states(path, "train")) == 24 and len(load_states(path, "held out")) == 6
    frames = render_frames(6, 0, cartpole=0, visited=load_states(path, "train"), vary=False, progress=False)
    assert set(frames.source.tolist()) == {"visited"} and (frames.truths["lying on back"] > 0.8).all()


def test_archives_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no archive of states"):
        load_states(tmp_path / "missing.npz", "train")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(UserError, match="is not an archive of states"):
        load_states(tmp_path / "other.npz", "train")
    np.savez(tmp_path / "short.npz", train=np.zeros((3, 7)), held_out=np.zeros((3, 7)))
    with pytest.raises(UserError, match="expected states"):
        load_states(tmp_path / "short.npz", "train")
    with pytest.raises(UserError, match="at least 2"):
        save_states(tmp_path / "one.npz", [np.zeros((3, 24))])
