"""Scores that workers read are those that the reward model gives, as soon as it gives them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vlmrl.agents.annotations import Annotations
from vlmrl.agents.appo.labels import PublishedScores
from vlmrl.reward_models.oni import OniConfig, OniReward
from vlmrl.reward_models.oni_labels import LabelTable
from vlmrl.rows import text_keys

LABELS = {f"you find a {thing}": 1.0 for thing in ("key", "door", "sword", "ring", "scroll", "potion")} | {
    f"you hit a {thing}": 0.0 for thing in ("wall", "tree", "rock", "fence", "barrel", "statue")
}
Make = Callable[..., PublishedScores]


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Make]:
    made: list[PublishedScores] = []

    def make(model: OniReward) -> PublishedScores:
        made.append(PublishedScores(model, Annotations(model, 100, tmp_path / "labels.json")))
        return made[-1]

    yield make
    for one in made:
        one.close()


def feed(published: PublishedScores, *texts: str) -> None:
    """Have a worker report texts, and the main process read them."""
    before = published.texts
    published.feed.put((0, dict.fromkeys(texts, 2)))
    deadline = time.monotonic() + 30
    while published.texts == before:
        assert time.monotonic() < deadline, "the report did not arrive"
        time.sleep(0.01)
        published.update()


def score(published: PublishedScores, text: str) -> float:
    return published.reward.scores.read(int(text_keys([text])[0]))


def test_recorded_labels_are_there_before_the_first_step_and_other_texts_have_none(publish: Make) -> None:
    model = OniReward(OniConfig(), table=LabelTable("", "aim", "a world", LABELS))
    published = publish(model)
    assert score(published, "you find a key") == 1 and score(published, "you hit a wall") == 0
    feed(published, "you find a lamp")
    assert math.isnan(score(published, "you find a lamp"))
    assert model.distinct_texts == 1
    assert published.figures()["annotator/published"] == len(LABELS) + 1


@pytest.mark.parametrize("variant", ["classification", "ranking"])
def test_networks_score_every_text_that_was_met(publish: Make, variant: str) -> None:
    config = OniConfig(variant=variant, pairs=40, gradient_steps=30)  # type: ignore[arg-type]
    model = OniReward(config, table=LabelTable("", "aim", "a world", LABELS))
    published = publish(model)
    feed(published, *LABELS, "you find a lamp", "")
    assert model.version > 0
    for text in [*LABELS, "you find a lamp"]:
        assert score(published, text) == pytest.approx(model.opinion(text), rel=1e-6)
    assert len({score(published, text) for text in LABELS}) > 1


def test_a_label_that_comes_later_is_published_with_a_new_version(publish: Make) -> None:
    model = OniReward(OniConfig(), table=LabelTable("", "aim", "a world", LABELS))
    published = publish(model)
    feed(published, "you find a lamp")
    before = published.reward.scores.version
    model._take({("you find a lamp",): 1.0})  # as from an annotator
    published.update()
    assert score(published, "you find a lamp") == 1
    assert published.reward.scores.version == model.version > before


def test_what_a_run_knows_is_kept_for_the_next_one(publish: Make, tmp_path: Path) -> None:
    model = OniReward(OniConfig(), table=LabelTable("", "aim", "a world", LABELS))
    published = publish(model)
    feed(published, "you find a lamp")
    published.save(tmp_path / "checkpoints")
    published.save(tmp_path / "checkpoints")  # over the first one

    again = OniReward(OniConfig(), table=LabelTable("", "aim", "a world", {"you hit a wall": 0.0}))
    Annotations(again, 100, tmp_path / "labels.json").restore(tmp_path / "checkpoints")
    assert again.distinct_texts == 1 and again.version == model.version
    assert score(publish(again), "you find a key") == 1
