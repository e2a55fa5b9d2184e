"""The embedded video-text model of Crafter: what its card says of it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import vlmrl
from vlmrl.encoders.base import video_head_of
from vlmrl.encoders.crafter import WEIGHTS, CrafterConfig, CrafterEncoder
from vlmrl.envs.crafter_text import ACHIEVEMENTS
from vlmrl.errors import UserError
from vlmrl.reward_models.video_heads import load_head
from vlmrl.workflows.video.footage import from_play
from vlmrl.workflows.video.measure import measure

TASKS = Path(vlmrl.__file__).parent / "configs" / "task"


@pytest.fixture(scope="module")
def encoder() -> CrafterEncoder:
    return CrafterConfig().build("cpu")


def test_it_is_for_crafter_alone(encoder: CrafterEncoder) -> None:
    encoder.check_env("crafter")
    assert encoder.name == "crafter" and encoder.image_size == (64, 64)
    with pytest.raises(UserError, match=r"crafter has only seen crafter, and this is 'humanoid'"):
        encoder.check_env("humanoid")
    CrafterConfig(any_env=True).build("cpu").check_env("humanoid")


def test_it_is_small_enough_to_come_along() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 16e6


@pytest.mark.parametrize("name", ACHIEVEMENTS)
def test_it_knows_every_word_of_the_tasks(encoder: CrafterEncoder, name: str) -> None:
    task = yaml.safe_load((TASKS / f"{name}.yaml").read_text())
    for sentence in (task["goal"], task["baseline"], *task["negatives"]):
        assert encoder.unknown_words(sentence) == []


def test_its_head_tells_what_happens_in_scenes_that_nothing_was_learned_from(
    encoder: CrafterEncoder, tmp_path: Path
) -> None:
    path = video_head_of(encoder)
    assert path is not None
    footage = from_play(88, 16, encoder.image_size, tmp_path, seed=987_654_321, progress=False)
    embeddings = encoder.encode_images(footage.frames)
    figures = measure(encoder, load_head(path, encoder), footage, embeddings, np.arange(len(footage.clips)))
    for name in ("achievement:wake_up", "achievement:eat_cow", "achievement:place_furnace", "behaviour:sleep"):
        assert figures[name]["auroc"] > 0.9, name
    # The mean on its card, 0.90, is of many more scenes. A clip says more than its last frame.
    assert figures["mean"]["auroc"] > 0.8 and figures["mean"]["auroc"] > figures["mean"]["single"] + 0.1
