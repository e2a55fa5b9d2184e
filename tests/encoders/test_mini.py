"""The embedded encoder: it loads as any open_clip model does, knows the tasks' words, and refuses what it never saw."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

import vlmrl
from tests.encoders.conftest import save_tiny
from vlmrl.encoders.mini import CARD_ENVS, WEIGHTS, MiniConfig, MiniEncoder
from vlmrl.errors import UserError

TASKS = Path(vlmrl.__file__).parent / "configs" / "task"


@pytest.fixture(scope="module")
def encoder() -> MiniEncoder:
    return MiniConfig().build("cpu")


def test_file_is_small_and_open_clip_loads_it_by_itself(encoder):
    import torch

    from vlmrl.encoders.open_clip_files import open_clip

    assert (WEIGHTS / "open_clip_model.safetensors").stat().st_size <= 16e6
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{WEIGHTS}")
    from PIL import Image

    frames = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    with torch.inference_mode():
        theirs = (
            model.eval()
            .encode_image(torch.stack([transform(Image.fromarray(frame)) for frame in frames]), normalize=True)
            .numpy()
        )
    assert ((encoder.encode_images(frames) * theirs).sum(axis=1) > 0.9999).all()


def words_of(task: str, *keys: str) -> list[str]:
    """Sentences of a task."""
    words = yaml.safe_load((TASKS / f"{task}.yaml").read_text())
    return [text for key in keys for text in ([words[key]] if isinstance(words[key], str) else words[key])]


def test_knows_the_words_of_the_tasks_on_its_card(encoder):
    from vlmrl.envs.tasks import PREDICATES

    names = {task.split("/")[1] for task in PREDICATES if task.split("/")[0] in CARD_ENVS}
    assert {"kneeling", "arms_raised", "balance", "climb", "jump"} <= names
    for name in names - {"hands_on_hips", "arms_crossed"}:
        for text in words_of(name, "goal", "baseline", "negatives"):
            assert encoder.unknown_words(text) == [], (name, text)


def test_was_not_taught_the_two_poses_that_its_card_leaves_out(encoder):
    assert encoder.unknown_words(words_of("hands_on_hips", "goal")[0]) == ["hips"]
    assert encoder.unknown_words(words_of("arms_crossed", "goal")[0]) == ["crossed"]


def test_passes_over_unknown_words_and_says_so(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["a humanoid robot kneeling"])
    with pytest.warns(UserWarning, match="never taught the words \\['zeppelin'\\]"):
        encoder.encode_texts(["a humanoid robot kneeling, zeppelin"])


def test_refuses_other_environments_unless_told(encoder):
    configs = {path.stem for path in (TASKS.parent / "env").glob("*.yaml")}
    assert set(CARD_ENVS) <= configs
    for env in CARD_ENVS:
        encoder.check_env(env)
    with pytest.raises(UserError, match="only seen ant, .*, walker2d, and this is 'gym'.*encoder.any_env=true"):
        encoder.check_env("gym")
    MiniConfig(any_env=True).build("cpu").check_env("gym")


def test_other_weights_of_the_kind(tmp_path):
    folder = save_tiny(tmp_path / "mine")
    assert MiniConfig(path=str(folder)).build("cpu").name == "mini/mine"
    with pytest.raises(UserError, match="^encoder.path: there is no folder .*nothing'"):
        MiniConfig(path=str(tmp_path / "nothing")).build("cpu")
    with pytest.raises(UserError, match="^encoder.path: .* holds no open_clip_config.json"):
        MiniConfig(path=str(tmp_path)).build("cpu")


def test_tells_poses_apart(encoder):
    from vlmrl.envs.humanoid import Humanoid
    from vlmrl.workflows.mini.scenes.humanoid_states import PoseSampler

    env = Humanoid(render_mode="rgb_array", width=112, height=112)
    env.reset(seed=0)
    sampler = PoseSampler(env, np.random.default_rng(7))
    words = {
        "standing": "a humanoid robot standing up",
        "kneeling tall": "a humanoid robot kneeling",
        "lying": "a humanoid robot lying down",
    }
    frames = []
    for pose in words:
        for _ in range(20):
            sampler._place(*sampler._pose(pose))
            frames.append(env.render())
    env.close()
    cosines = encoder.encode_images(np.stack(frames)) @ encoder.encode_texts(list(words.values())).T
    # 20 pictures of each pose: nearly all are nearest to their own words, drawn with jitter and some tipped over.
    right = (cosines.argmax(axis=1) == np.repeat(np.arange(3), 20)).reshape(3, 20).mean(axis=1)
    assert (right >= 0.7).all(), right


@pytest.mark.slow
def test_is_fast_enough(encoder):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        frames = np.zeros((64, 112, 112, 3), dtype=np.uint8)
        encoder.encode_images(frames)
        start = time.perf_counter()
        for _ in range(10):
            encoder.encode_images(frames)
        assert 640 / (time.perf_counter() - start) >= 400
    finally:
        torch.set_num_threads(threads)


def test_an_encoder_can_be_pickled() -> None:
    import pickle

    encoder = MiniConfig().build("cpu")
    copy = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(
        copy.encode_texts(["a humanoid robot kneeling"]), encoder.encode_texts(["a humanoid robot kneeling"])
    )
